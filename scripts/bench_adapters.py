"""Adapters per request in one engine against merged checkpoints, one engine after the other: seconds, and the difference in tokens.

    python scripts/bench_adapters.py tiny-plain --replies 38 --out docs/benchmarks/adapters_tiny-plain.json

Every checkpoint of the first seed answers the same questions, greedily, once as an adapter beside its base in one batch of one engine, and
once merged into its base by peft in float32 and loaded alone. Each engine has a process of its own. Written down: seconds until an engine
answers, replies a second, seconds in all, and how far the replies of either way are the same, token by token.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def asked(model: str, adapters: list[str], replies: int, tokens: int) -> list[Any]:
    """The same questions of each; an empty adapter is the base."""
    from esr import prompts
    from esr.engine import Request
    from esr.types import Sampling

    questions = prompts.evaluation()
    sampling = Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=tokens)
    return [Request(prompt=questions[i % len(questions)], sampling=sampling, adapter=a) for a in adapters for i in range(replies)]


def answer(told: dict[str, Any]) -> dict[str, Any]:
    """In a process of its own: one engine, opened and asked."""
    from esr.engine.open import close_engine, open_engine
    from esr.params import load
    from esr.tune.checkpoint import Checkpoint, with_checkpoints
    from esr.tune.places import Course

    params, model = load(told["model"]), told["model"]
    if told["merged"]:
        block = params.model(model).model_copy(update={"hub": told["merged"], "revision": "local", "package": None})
        params = params.model_copy(update={"models": {**params.models, model: block}})
    found = [Checkpoint(f"{model}:{i}", Course(1, 1), adapter) for i, adapter in enumerate(told["adapters"]) if adapter]
    params = with_checkpoints(params, model, found)
    engine = open_engine(params, model)
    requests = asked(model, told["adapters"], told["replies"], told["tokens"])
    engine.generate(requests[:1])
    ready = time.time()
    outputs = engine.generate(requests)
    done = time.time()
    close_engine(engine)
    return {
        "start_up_s": round(ready - told["began"], 2), "answering_s": round(done - ready, 2), "replies": len(outputs),
        "replies_a_second": round(len(outputs) / (done - ready), 3), "ids": [list(output.token_ids) for output in outputs],
    }  # fmt: skip


def in_a_process(told: dict[str, Any], folder: Path) -> dict[str, Any]:
    file = folder / "told.json"
    file.write_text(json.dumps(told | {"began": time.time()}))
    began = time.monotonic()
    subprocess.run([sys.executable, __file__, told["model"], "--told", str(file)], check=True, cwd=ROOT)
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found | {"process_s": round(time.monotonic() - began, 2)}


def merged(hub: Path, adapter: str, into: Path) -> float:
    """Seconds."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    began = time.monotonic()
    base = AutoModelForCausalLM.from_pretrained(hub, dtype=torch.float32)
    if base.config.tie_word_embeddings:  # what is merged into the head is not to reach the words that are read
        base.lm_head.weight = torch.nn.Parameter(base.lm_head.weight.detach().clone())
        base.config.tie_word_embeddings = False
    PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(into)
    AutoTokenizer.from_pretrained(hub).save_pretrained(into)
    return round(time.monotonic() - began, 2)


def same(ours: list[list[int]], theirs: list[list[int]]) -> dict[str, Any]:
    """How far replies are the same: whole ones, and tokens before the first that differs."""
    until = [
        next((i for i, (a, b) in enumerate(zip(x, y, strict=False)) if a != b), min(len(x), len(y)))
        for x, y in zip(ours, theirs, strict=True)
    ]
    longest = sum(max(len(x), len(y)) for x, y in zip(ours, theirs, strict=True))
    return {
        "replies": len(ours), "replies_the_same": sum(x == y for x, y in zip(ours, theirs, strict=True)),
        "tokens": longest, "tokens_before_the_first_difference": sum(until),
    }  # fmt: skip


def device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores ({platform.machine()})"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("model")
    words.add_argument("--replies", type=int, default=38, help="of each checkpoint")
    words.add_argument("--tokens", type=int, default=64, help="of a reply at most")
    words.add_argument("--out", type=Path)
    words.add_argument("--told", type=Path, help=argparse.SUPPRESS)
    given = words.parse_args()
    sys.path.insert(0, str(ROOT))
    if given.told:
        (given.told.parent / "found.json").write_text(json.dumps(answer(json.loads(given.told.read_text()))))
        return
    from esr.params import load, resolve
    from esr.tune.places import Places
    from esr.tune.settings import Tuning

    params, places = load(given.model), Places(given.model)
    tuning = params.of(Tuning)
    courses = [c for c in tuning.courses if c.seed == tuning.seeds[0] and not c.steered and places.checkpoint(c).is_dir()]
    folders = [str(places.checkpoint(course) / "adapter") for course in courses]
    hub, ask = resolve(params.model(given.model).hub), {"model": given.model, "replies": given.replies, "tokens": given.tokens}
    report: dict[str, Any] = {
        "model": given.model, "dtype": params.model(given.model).dtype, "device": device(), "checkpoints": [str(c) for c in courses],
        "replies_each": given.replies, "tokens_at_most": given.tokens, "one_after_the_other": [],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        whole = in_a_process(ask | {"merged": "", "adapters": ["", *folders]}, Path(name))
        ids = whole.pop("ids")
        report["one_engine"] = whole
        for i, (course, folder) in enumerate(zip(courses, folders, strict=True)):
            into = Path(name) / str(course)
            seconds = merged(hub, folder, into)
            alone = in_a_process(ask | {"merged": str(into), "adapters": [""]}, Path(name))
            ours = ids[given.replies * (i + 1) : given.replies * (i + 2)]
            difference = same(ours, alone.pop("ids"))
            report["one_after_the_other"].append(
                {"checkpoint": str(course), "merging_s": seconds} | alone | {"against_adapter": difference}
            )
            print(json.dumps(report["one_after_the_other"][-1]), flush=True)
    each = report["one_after_the_other"]
    report["in_all"] = {
        "one_engine_s": whole["process_s"],
        "one_after_the_other_s": round(sum(one["process_s"] + one["merging_s"] for one in each), 2),
        **{key: sum(one["against_adapter"][key] for one in each) for key in same([], [])},
    }
    print(json.dumps(report["in_all"]))
    if given.out:
        given.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
