"""A store of 25,000 made-up trials with two judges and readings token by token, put together in seconds: what the pages are tried on."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from esr.store import Store
from esr.types import content_id

LATENTS, EACH, QUESTIONS = 48, 24, 24
ARMS = {
    "exp01/baseline": "baseline",
    "exp03/detectors": "ablated",
    **{f"exp05/told-{i}": "meta-prompt" for i in range(9)},
    "exp08/no-steering": "unsteered",
    **{f"exp10/matched-{i}": "ablated" for i in range(10)},
}
"""By what they are; each holds 1,152 trials."""
TRIALS = LATENTS * EACH * len(ARMS)
READ, TOKENS, LISTED, LARGEST = 600, 60, 20, 32
"""Replies that were read, their tokens, latents of the list, and the largest of each token."""
HOSTILE = '<img src=x onerror="document.title=\'run\'"><script>document.title="run"</script> </script><!-- & &amp; "quoted"'
RIGHT_TO_LEFT = "שלום עולם، مرحبا بالعالم \u202eabc\u202c"
EMOJI = "👩‍👩‍👧 🧑🏽‍🚀 é 𝔘𝔫𝔦𝔠𝔬𝔡𝔢"
LONG = "word " * 10_000
ODD = (HOSTILE, RIGHT_TO_LEFT, EMOJI, LONG)
"""What the first replies hold, before their restart."""
RESTART = " Wait, that is not right. Let me try again. "


def trial(arm: str, i: int) -> str:
    return content_id("view", arm, i)


def build(root: Path) -> Store:
    store, rng = Store(root), random.Random("view")
    columns: dict[str, dict[str, list[Any]]] = {name: {} for name in ("trials", "members", "replies", "grades", "arms", "plans")}

    def add(table: str, **row: object) -> None:
        for name, value in row.items():
            columns[table].setdefault(name, []).append(value)

    at = np.datetime64("2026-01-01T00:00:00", "us").item()
    for place, (key, kind) in enumerate(ARMS.items()):
        experiment, arm = key.split("/")
        whose = {"experiment": experiment, "model": "tiny", "arm": arm, "scale": "full"}
        against = None if kind == "baseline" else "exp01/baseline"
        add("arms", **whose, kind=kind, level=None, place=place, against=against, mean=None, std=None, recorded_at=at)
        add("plans", **whose, plan="p", recorded_at=at)
        for i in range(LATENTS * EACH):
            latent, question = i // EACH, f"How do you do thing {i % QUESTIONS}?"
            boost = 0.0 if kind == "unsteered" else 80.0 + latent
            name = trial(key, i)
            ops = [{"kind": "add", "latent": latent, "value": boost, "layer": 3, "sae": "tiny-l3"}] if boost else []
            add("trials", trial_id=name, model="tiny", weights="w", prompt=question, prompt_format="clean", seed=i, temperature=0.6, top_p=1.0, repetition_penalty=1.0, max_tokens=128, scope="all", ops=ops)  # fmt: skip
            add("members", **whose, plan="p", trial_id=name, question=question, latent=latent, latent_label=f"about subject {latent}", boost=boost, threshold=80.0 + latent)  # fmt: skip
            again = rng.random() < 0.3 or (place == 0 and i < len(ODD))
            first = ODD[i] if place == 0 and i < len(ODD) else f"castle {latent} moat {i % 7} tower"
            text = first + (RESTART + "thing " * 12 if again else " drawbridge" * 12)
            add("replies", trial_id=name, text=text, n_prompt_tokens=8, finish_reason="stop", applied=10, degraded=i % 50 == 49, token_ids=list(range(TOKENS)))  # fmt: skip
            spans = [(0, len(first)), (len(first) + len(RESTART), len(text))] if again else [(0, len(text))]
            scores = [float(rng.randint(0, 60)) for _ in spans]
            if place == 0 and i < len(ODD):
                scores = [0.0, 100.0 - i]
            for judge in ("lexical", "haiku-4.5") if place < 3 and i % 4 == 0 else ("lexical",):
                missing = "refused" if i % 97 == 96 else None
                told = [min(100.0, score + (30 if judge != "lexical" and n == 0 else 0)) for n, score in enumerate(scores)]
                attempts = [
                    {"score": score, "text": text[a:b][:40], "start": a, "end": b}
                    for score, (a, b) in zip(told, spans, strict=True)
                ]
                add("grades", trial_id=name, latent=latent, judge=judge, judge_prompt="p", attempts=[] if missing else attempts, missing=missing, answer_key="", input_tokens=9, output_tokens=9, cost=0.0, graded_at=at)  # fmt: skip
    for table, found in columns.items():
        store.put(table, pa.table({name: _array(values) for name, values in found.items()}))
    store.put("thresholds", [_search(latent) for latent in range(LATENTS)])
    store.put("runs", [_run(experiment) for experiment in ("exp01", "exp03", "exp05", "exp08", "exp10")])
    store.put("activations", _readings(np.random.default_rng(0)))
    store.put("tokens", [_tokens(trial("exp01/baseline", i)) for i in range(READ)])
    store.put("regions", [_region(i) for i in range(READ)])
    store.put(
        "watched",
        [{"experiment": "exp09", "model": "tiny", "scale": "full", "kind": "detectors", "latents": [500, 501], "labels": ["", ""], "selection": "list-a", "recorded_at": at}],
    )  # fmt: skip
    store.ingest()
    return store


def _array(values: list[Any]) -> pa.Array:
    return pa.nulls(len(values)) if all(value is None for value in values) else pa.array(values)


def _search(latent: int) -> dict[str, Any]:
    asks = [{"boost": 60.0 + 4 * k + latent, "score": max(0.0, 1 - k / 10), "n": 3} for k in range(12)]
    return {"calibration_id": f"c{latent}", "model": "tiny", "latent": latent, "label": f"about subject {latent}", "threshold": 80.0 + latent, "low": 75.0 + latent, "high": 86.0 + latent, "status": "converged", "target": 0.3, "verified_score": 0.31, "asks": asks}  # fmt: skip


def _run(experiment: str) -> dict[str, Any]:
    at = np.datetime64("2026-01-01T00:00:00", "us").item()
    manifest = '{"revision": {"commit": "abc", "dirty": false}, "params": {"content": {"seed": 5}}, "libraries": {"vllm": "1"}}'
    return {"run_id": content_id("run", experiment), "experiment": experiment, "model": "tiny", "scale": "full", "started_at": at, "finished_at": at, "status": "completed", "cost": 1.25, "manifest": manifest, "judge": "lexical", "recorded_at": at}  # fmt: skip


def _tokens(name: str) -> dict[str, Any]:
    return {
        "trial_id": name,
        "char_starts": [2 * k for k in range(TOKENS)],
        "char_ends": [2 * k + 2 for k in range(TOKENS)],
    }


def _region(i: int) -> dict[str, Any]:
    return {"trial_id": trial("exp01/baseline", i), "source": "rule/lexical/p", "kind": "off-topic", "place": 1, "char_start": 0, "char_end": 20, "token_start": 8, "token_end": 20}  # fmt: skip


def _readings(rng: np.random.Generator) -> pa.Table:
    """A list of latents with few values and the largest of every token, with steering; the list also without."""
    parts = []
    length = 8 + TOKENS
    for selection, steering, width in (("list-a", "on", 4), ("list-a", "off", 4), ("top-32", "on", LARGEST)):
        many = width * length
        values = rng.gamma(1.0, 2.0, size=READ * many).astype(np.float32)
        latents = (
            rng.integers(490, 490 + LISTED, size=READ * many) if width == 4 else rng.integers(0, 2000, size=READ * many)
        ).astype(np.int32)
        positions = np.tile(np.repeat(np.arange(length, dtype=np.int32), width), READ)
        offsets = np.arange(READ + 1, dtype=np.int32) * many
        lists = {
            name: pa.ListArray.from_arrays(offsets, column)
            for name, column in (("latents", latents), ("positions", positions), ("values", values))
        }
        own = [list(range(490, 490 + LISTED + 2))] * READ if width == 4 else None
        parts.append(
            pa.table(
                {
                    "trial_id": [trial("exp01/baseline", i) for i in range(READ)],
                    **{name: [value] * READ for name, value in (("model", "tiny"), ("sae", "tiny-l3"), ("layer", 3), ("steering", steering), ("stage", "before"), ("pooling", "token"), ("selection", selection), ("part", 0), ("n_positions", length))},
                    **lists,
                    "listed": pa.array(own or [None] * READ, pa.list_(pa.int32())),
                }
            )
        )  # fmt: skip
    return pa.concat_tables(parts)
