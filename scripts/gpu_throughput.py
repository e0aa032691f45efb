"""Throughput with and without the plugin: engines side by side on one machine, asked in turn round by round, so that drift falls on all alike.

gpu_engine.py runs `throughput`; this file is also the engine that it starts, one a process, which answers one JSON command a line.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from engine_table import shares

HOME = Path(__file__).resolve().parent.parent
GRAPHS = {"cudagraph_mode": "FULL_AND_PIECEWISE"}
WEIGHTS_NOTE = "dummy weights, dummy SAE of 65,536 latents in float32"


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama of this size; `layer` has the SAE."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    layer: int
    cache_gib: float
    long: int
    """Tokens of a reply at batch 16 and 256."""
    head_dim: int = 128
    d_sae: int = 65536
    hooked: tuple[int, ...] = ()
    """Blocks with directions."""
    tp: int = 1
    kinds: tuple[str, ...] = ("plain", "plugin")

    def config(self) -> dict[str, Any]:
        return {
            "hidden_size": self.hidden, "intermediate_size": self.intermediate, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
        }  # fmt: skip

    def sae(self) -> dict[str, Any]:
        return {"loader": "folder", "repo": "none", "layer": self.layer, "d_in": self.hidden, "d_sae": self.d_sae}


SHAPES = {
    "8b": Shape(4096, 14336, 32, 32, 8, layer=19, cache_gib=18.2, long=512, hooked=(10, 15, 19, 25)),
    "70b-quarter": Shape(8192, 28672, 20, 64, 8, layer=12, cache_gib=12, long=512),
    "70b-tp2": Shape(8192, 28672, 60, 64, 8, layer=50, cache_gib=8, long=128, tp=2),
    "8b-half": Shape(4096, 14336, 16, 32, 8, layer=9, cache_gib=6, long=256),
    "smoke": Shape(256, 512, 4, 4, 2, 2, 1, 16, head_dim=64, d_sae=40960, hooked=(1, 2), kinds=("plain", "plugin", "eager")),
}
"""Every engine of `8b` hooks four blocks, of which one has the SAE. Two of them fit on 80 GB. Two engines of the 70B shape fit side by side on two GPUs of 140 GB with 60 of its 80 blocks, on one with 20."""
SMALL = {"gpu_memory_utilization": 0.1}
"""What must be free at the start: several engines share a GPU, and each says how large its cache is."""
QUIET_LINKS = {
    "disable_custom_all_reduce": True,
    "compilation_config": GRAPHS | {"pass_config": {"fuse_allreduce_rms": False}},
}
"""Between GPUs only NCCL, no NVLink multicast."""


# the engine, in a process of its own


def serve(name: str, kind: str) -> None:
    shape = SHAPES[name]
    if kind == "plain":
        os.environ["VLLM_PLUGINS"] = ""
    from transformers import LlamaConfig
    from vllm import LLM, __version__

    if kind != "plain":
        from esr.engine.plugin import register

        register()
    folder = Path(tempfile.mkdtemp())
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=128256,
        max_position_embeddings=4096,
        torch_dtype="bfloat16",
        **shape.config(),
    ).save_pretrained(folder)
    options: dict[str, Any] = SMALL | ({"enforce_eager": True} if kind == "eager" else {"compilation_config": GRAPHS})
    if shape.tp > 1:
        os.environ["VLLM_ALLREDUCE_USE_SYMM_MEM"] = "0"
        options |= QUIET_LINKS
    started = time.time()
    llm = LLM(
        model=str(folder), load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16", max_model_len=2048, max_num_seqs=256,
        max_num_batched_tokens=8192, kv_cache_memory_bytes=int(shape.cache_gib * 2**30), disable_log_stats=False, tensor_parallel_size=shape.tp,
        additional_config={} if kind == "plain" else {"sae_steering": {"saes": {"s": shape.sae()}} | directions(shape, folder)}, **options,
    )  # fmt: skip
    config = llm.llm_engine.vllm_config
    say({
        "ready": time.time() - started, "vllm": __version__, "v2": bool(getattr(config, "use_v2_model_runner", False)),
        "graphs": str(config.compilation_config.cudagraph_mode), "tp": shape.tp, "layers": shape.layers,
    })  # fmt: skip
    for line in sys.stdin:
        try:
            say(run(llm, shape, **json.loads(line)))
        except Exception:  # the other engines' rounds go on
            say({"error": traceback.format_exc()[-1500:]})


def directions(shape: Shape, folder: Path) -> dict[str, Any]:
    """256 directions after each of the hooked blocks."""
    if not shape.hooked:
        return {}
    import numpy as np
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    rows = {
        f"layer.{layer}": rng.normal(size=(256, shape.hidden), scale=shape.hidden**-0.5).astype(np.float32)
        for layer in shape.hooked
    }
    save_file(rows, folder / "moods.safetensors")
    return {"layers": list(shape.hooked), "directions": {"moods": {"path": str(folder / "moods.safetensors")}}}


class Watch:
    """How long a process collected garbage, and when a worker's steps began and how long the host took over each."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.steps: list[tuple[float, float, int]] = []

    def collecting(self, phase: str, _info: object) -> None:
        if phase == "start":
            self.since = time.perf_counter()
        else:
            self.pauses.append(time.perf_counter() - self.since)


FRONT: Any = type("Front", (), {})()


def watched(worker: Any) -> dict[str, Any]:
    """What was seen since the last call; the first one begins to look."""
    import gc
    import time

    watch = getattr(worker, "watch", None)
    if watch is None:
        worker.watch = watch = Watch()
        gc.callbacks.append(watch.collecting)
        if (runner := getattr(worker, "model_runner", None)) is not None:
            plain = runner.execute_model

            def step(scheduled: Any, *args: Any, **kwargs: Any) -> Any:
                start = time.perf_counter()
                out = plain(scheduled, *args, **kwargs)
                watch.steps.append((start, time.perf_counter() - start, scheduled.total_num_scheduled_tokens))
                return out

            runner.execute_model = step
    begun = [start for start, _, _ in watch.steps]
    gaps = sorted(((b - a) * 1000 for a, b in pairwise(begun)), reverse=True)
    host = sorted((seconds * 1000 for _, seconds, _ in watch.steps), reverse=True)
    found = {
        "collected_ms": sum(watch.pauses) * 1000, "steps": len(watch.steps), "large_steps": [n for _, _, n in watch.steps if n > 256],
        "gaps_ms": gaps[:6], "gap_ms": statistics.median(gaps) if gaps else 0, "host_ms": host[:4], "host_in_all_ms": sum(host),
    }  # fmt: skip
    watch.pauses.clear()
    watch.steps.clear()
    return found


def say(answer: dict[str, Any]) -> None:
    print("@@" + json.dumps(answer), flush=True)


def run(llm: Any, shape: Shape, *, mode: str, n: int, prompt: int, gen: int, seed: int, repeat: bool = False) -> dict[str, Any]:
    from vllm import SamplingParams, TokensPrompt

    rng = random.Random(seed)
    shared = [rng.randrange(1000, 100000) for _ in range(prompt)]
    prompts = [
        TokensPrompt(prompt_token_ids=shared if repeat else [rng.randrange(1000, 100000) for _ in range(prompt)]) for _ in range(n)
    ]
    texts = specs(mode, n, shape, seed)
    if repeat:
        texts = [texts[0] and json.dumps(json.loads(texts[0]) | {"id": ""})] * n
    params = [
        SamplingParams(temperature=0, max_tokens=gen, ignore_eos=True, detokenize=False, extra_args={"sae": text} if text else None)
        for text in texts
    ]
    before = hits(llm)
    llm.collective_rpc(watched)
    watched(FRONT)
    start = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - start
    answer: dict[str, Any] = {
        "seconds": seconds, "core": llm.collective_rpc(watched)[0], "front": watched(FRONT), "generated": sum(len(o.outputs[0].token_ids) for o in outputs), "prompt_tokens": n * prompt,
        "hits": [b - a for a, b in zip(before, hits(llm), strict=True)],
    }  # fmt: skip
    return answer if mode == "none" or repeat else answer | taken(llm, texts, prompt + gen - 1, mode)


def specs(mode: str, n: int, shape: Shape, seed: int) -> list[str | None]:
    """One for each request: none, a boost, one by 0, 26 clamps to 0, a direction of its own after every hooked block, or a capture
    of the 64 largest latents of the prompt."""
    rng = random.Random(seed)
    out: list[str | None] = []
    for number in range(n):
        add = {"op": "add", "sae": "s", "i": rng.randrange(shape.d_sae), "v": rng.uniform(0.5, 4), "layer": shape.layer}
        clamps = [{"op": "clamp", "sae": "s", "i": i, "v": 0.0, "layer": shape.layer} for i in rng.sample(range(shape.d_sae), 26)]
        capture = {"sae": "s", "layer": shape.layer, "mode": "topk", "k": 64, "positions": "prompt"}
        own = [{"op": "add", "sae": "moods", "i": number % 256, "v": 1.5, "layer": layer} for layer in shape.hooked]
        block = {
            "add": {"ops": [add]},
            "zero": {"ops": [add | {"v": 0.0}]},
            "directions": {"ops": own},
            "clamp": {"ops": clamps},
            "capture": {"capture": capture},
        }.get(mode)
        out.append(json.dumps({"id": rng.randbytes(8).hex()} | block) if block else None)
    return out


def taken(llm: Any, texts: list[str | None], rows: int, mode: str) -> dict[str, Any]:
    """What the worker says was done; the time to fetch it is apart from the time to generate."""
    ids = [json.loads(text or "{}")["id"] for text in texts]
    start = time.perf_counter()
    found = llm.collective_rpc("esr_take", args=(ids, [rows] * len(ids)))[0]
    answer: dict[str, Any] = {
        "take_seconds": time.perf_counter() - start,
        "taken_wrong": sum(t is None or bool(t["error"]) or t["executed"] != t["expected"] for t in found),
        "executed": sum(t["executed"] for t in found if t),
    }
    if mode == "capture":
        answer["rows"] = sum(len(t["capture"]["positions"]) // 4 for t in found if t and t["capture"])
        answer["error"] = next((t["error"] for t in found if t and t["error"]), None)
    return answer


def hits(llm: Any) -> list[float]:
    found = {m.name: m.value for m in llm.get_metrics() if hasattr(m, "value")}
    return [float(found.get(f"vllm:prefix_cache_{what}", 0)) for what in ("queries", "hits")]


# who asks


class Child:
    """A script of this folder in a process of its own; answers stand behind @@ on its output."""

    def __init__(self, script: str, *args: str, env: dict[str, str]) -> None:
        path = os.pathsep.join([str(HOME), str(HOME / "tests"), os.environ.get("PYTHONPATH", "")])
        self._log = (Path(tempfile.gettempdir()) / f"gpu-{'-'.join(args)}.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script)), *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log, text=True, env=dict(os.environ) | env | {"PYTHONPATH": path},
        )  # fmt: skip

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("@@"):
                found: dict[str, Any] = json.loads(line[2:])
                return found
        self._log.flush()
        self._log.seek(0)
        return {"error": "the process ended: " + self._log.read()[-3000:]}

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        return self.answer()

    def end(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.terminate()


def throughput(
    name: str, only: list[str], without: set[str], env: dict[str, str], deadline: float, note: Callable[..., None]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The blocks of engine-gpu.json for one shape, each as soon as it is measured; `only` these, if any are named, `NAME x N` with N rounds; of
    what is asked of the engines, `without` these."""
    named = {what: int(times or 0) for what, _, times in (one.partition(" x ") for one in only)}
    shape, small = SHAPES[name], name == "smoke"
    kids = {kind: Child("gpu_throughput.py", name, kind, env=env) for kind in shape.kinds}
    for kind, kid in kids.items():
        started = kid.answer()
        note(name, kind, json.dumps(started)[-1500:])
        yield f"{name}/{kind}", started
    prefill = [("plain", "plain", "none"), ("idle", "plugin", "none"), ("capture", "plugin", "capture")]
    plan = [("plain", "plain", "none"), ("idle", "plugin", "none"), ("zero", "plugin", "zero"), ("steered", "plugin", "add")]
    plan += [("clamp", "plugin", "clamp")] + ([("directions", "plugin", "directions")] if shape.hooked else [])
    eager = [("eager steered", "eager", "add")]
    work = [("prefill", prefill, {"n": 8 if small else 64, "prompt": 1024, "gen": 1}, 5)]
    for gen in sorted({shape.long // 4, shape.long // 2, shape.long}):
        work.append((f"batch256 of {gen}", plan, {"n": 256, "prompt": 64, "gen": gen}, 3 if gen > 256 else 5))
    work.append(("batch16", plan, {"n": 16, "prompt": 64, "gen": shape.long}, 3))
    work.append(("batch1", plan, {"n": 1, "prompt": 64, "gen": min(256, shape.long)}, 3))
    if "eager" in kids:
        work += [(f"eager/batch{n}", eager, {"n": n, "prompt": 64, "gen": min(64, shape.long)}, 2) for n in (256, 16, 1)]
    for what, asked, sizes, times in work:
        name_of = what if what in named else what.split()[0]
        if named and name_of not in named:
            continue
        asked = [one for one in asked if one[0] not in without]
        found = rounds(kids, asked, sizes, 1 if small else named.get(name_of) or times, deadline)
        note(name, what, json.dumps(found.get("relative")), json.dumps(found.get("paired")), *errors(found))
        yield f"{name}/{what}", found
    for label, kid, mode in (("plain", "plain", "none"), ("steered", "plugin", "add")):
        twice = [kids[kid].ask(mode=mode, n=32, prompt=1024, gen=2, seed=5, repeat=True).get("hits") for _ in range(2)]
        note(name, "hits", label, twice)
        yield f"{name}/hits/{label}", {"queries_and_hits": twice}
    for kid in kids.values():
        kid.end()


def rounds(
    kids: dict[str, Child], plan: list[tuple[str, str, str]], sizes: dict[str, int], times: int, deadline: float
) -> dict[str, Any]:
    """`plan`: (label, engine, mode), asked in turn `times` times after one warm-up each; shares of plain by medians and by pairs."""
    out: dict[str, Any] = {label: [] for label, _, _ in plan}
    for i in range(times + 1):
        for label, kid, mode in plan[i % len(plan) :] + plan[: i % len(plan)]:
            if time.time() > deadline and i > 1:
                continue
            answer = kids[kid].ask(mode=mode, seed=1000 * i + 17, **(sizes if i else sizes | {"gen": min(sizes["gen"], 16)}))
            if i:
                out[label].append(answer)
            elif answer.get("error"):
                out.setdefault("warm-up", []).append(answer)
    good = {label: [a for a in out[label] if a.get("seconds")] for label, _, _ in plan}
    for label, answers in good.items():
        if answers:
            tokens = answers[0]["generated"] if sizes["gen"] > 1 else answers[0]["prompt_tokens"]
            out[label + "/tokens_per_second"] = tokens / statistics.median(a["seconds"] for a in answers)
    if good.get("plain"):
        reference = out["plain/tokens_per_second"]
        out["relative"] = {label: out[label + "/tokens_per_second"] / reference for label, answers in good.items() if answers}
        out["paired"] = {label: statistics.median(some) for label, _, _ in plan if (some := shares(out, label))}
    return out


def errors(found: dict[str, Any]) -> list[str]:
    return [a["error"][-300:] for answers in found.values() if isinstance(answers, list) for a in answers if a.get("error")][:1]


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
