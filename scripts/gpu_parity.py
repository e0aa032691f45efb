"""One engine against the reference, or soaked; started by gpu_engine.py, prints one answer.

gpu_parity.py parity ARCHITECTURE graphs|eager TP|ppN     64 mixed requests, twice in different orders, token by token
gpu_parity.py rich ARCHITECTURE graphs|eager TP|ppN [N]   208 requests over all there is, and conversations, token by token
gpu_parity.py noise                                       bfloat16 against float32, steered and plain
gpu_parity.py soak graphs|eager N                         N short requests over all there is, a tenth of them aborted
"""

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_throughput import GRAPHS, QUIET_LINKS, SMALL, say
from tiny_models import Toy, make_toy

from esr.engine import Capture, Output, Request
from esr.types import Op, Sampling

PARTS = 10
"""Looks at the memory along a soak: a leak grows with every part, a cache fills once."""


def mixed(n: int) -> list[Request]:
    """`n` requests with `n` distinct specs over both blocks, kinds, scopes."""
    rng = random.Random(7)
    out = []
    for i in range(n):
        ops: tuple[Op, ...] = ()
        for _ in range(i % 4):
            layer, sae = rng.choice([(1, "early"), (2, "late")])
            op = Op(rng.choice(["add", "clamp"]), rng.randrange(96), round(rng.uniform(-6, 10), 3), layer, sae)  # type: ignore[arg-type]  # drawn from the literals
            if not any((o.latent, o.sae) == (op.latent, op.sae) for o in ops):
                ops = (*ops, op)
        mode = ["", "latents", "topk", "max"][(i // 4) % 4]
        latents, k = (1, 5, 9) if mode == "latents" else (), 4 if mode == "topk" else 0
        out.append(Request(
            prompt=f"Question {i}: " + "how does it work? " * rng.randrange(1, 8), ops=ops, scope=rng.choice(["all", "all", "prompt", "generated", "[3,20)"]),
            sampling=Sampling(temperature=0, top_p=1, repetition_penalty=1, max_tokens=32),
            capture=Capture(layer=2, sae="late", mode=mode, latents=latents, k=k) if mode else None,  # type: ignore[arg-type]  # drawn from the literals
        ))  # fmt: skip
    return out


def opened(toy: Toy, kind: str, shared: str) -> tuple[Any, dict[str, Any]]:
    from esr.engine.options import sites_for
    from esr.engine.plugin import KEY
    from esr.engine.vllm import VllmEngine

    options: dict[str, Any] = SMALL | {"max_num_seqs": 64, "max_num_batched_tokens": 512, "kv_cache_memory_bytes": 1 << 30}
    options |= {"enforce_eager": True} if kind == "eager" else {"enforce_eager": False, "compilation_config": GRAPHS}
    stages, tp = (int(shared[2:]), 1) if shared.startswith("pp") else (1, int(shared))
    if tp > 1:
        os.environ["VLLM_ALLREDUCE_USE_SYMM_MEM"] = "0"
        options |= QUIET_LINKS | {"tensor_parallel_size": tp}
    if stages > 1:
        allowed = sites_for(toy.params, toy.name).as_config() | {"allow_untested_vllm": True}
        options |= {"pipeline_parallel_size": stages, "additional_config": {KEY: allowed}}
    started = time.time()
    engine = VllmEngine(toy.params, toy.name, **options)
    config = engine._engine.vllm_config
    return engine, {
        "kind": kind, "tp": tp, "stages": stages, "ready": time.time() - started, "v2": bool(getattr(config, "use_v2_model_runner", False)),
        "graphs": str(config.compilation_config.cudagraph_mode),
    }  # fmt: skip


def parity(architecture: str, kind: str, shared: str) -> dict[str, Any]:
    import numpy as np

    from esr.engine.hf import HfEngine

    toy = make_toy(Path(tempfile.mkdtemp()), architecture)  # type: ignore[arg-type]  # one of the literals
    engine, answer = opened(toy, kind, shared)
    requests = mixed(64)
    found = engine.generate(requests)
    again = engine.generate(list(reversed(requests)))[::-1]
    wanted = HfEngine.open(toy.params, toy.name).generate(requests)
    read = [(a.reading, b.reading) for a, b in zip(found, wanted, strict=True) if a.token_ids == b.token_ids and b.reading]
    answer |= alike(architecture, found, again, wanted) | {
        "captures": sum(r.capture is not None for r in requests),
        "captures_complete": sum(a is not None and len(a.positions) == b.expected for a, b in read),
        "worst_latent_difference": max(float(np.abs(a.values - b.values).max()) for a, b in read if a is not None),
        "stats": engine.stats(),
    }
    engine.close()
    return answer


def alike(architecture: str, found: list[Output], again: list[Output], wanted: list[Output]) -> dict[str, Any]:
    """How many replies are those of the reference, in the order asked and reversed."""
    return {
        "arch": architecture,
        "of": len(wanted),
        "identical": sum(a.token_ids == b.token_ids for a, b in zip(found, wanted, strict=True)),
        "identical_again": sum(a.token_ids == b.token_ids for a, b in zip(again, wanted, strict=True)),
        "applied_right": sum(a.applied == b.applied for a, b in zip(found, wanted, strict=True)),
    }


def rich(architecture: str, kind: str, shared: str, n: int = 208) -> dict[str, Any]:
    import numpy as np
    from mixed_requests import rich as requests_over_all
    from mixed_requests import write_moods
    from test_engine_turns import OPS as TALKED
    from test_engine_turns import SCOPES, Talks, random_turns

    from esr.engine.hf import HfEngine

    folder = Path(tempfile.mkdtemp())
    toy = make_toy(folder, architecture)  # type: ignore[arg-type]  # one of the literals
    engine, answer = opened(toy, kind, shared)
    reference = HfEngine.open(toy.params, toy.name)
    for one in (engine, reference):
        one.load_directions("moods", write_moods(folder))
    requests = requests_over_all(n)
    found, wanted = engine.generate(requests), reference.generate(requests)
    again = engine.generate(list(reversed(requests)))[::-1]
    read = [(a.reading, b.reading) for a, b in zip(found, wanted, strict=True) if a.token_ids == b.token_ids and b.reading]
    talks = Talks(engine, reference)
    turns = [turn for seed in range(2) for turn in random_turns(talks, seed, n // 3)]
    talked = [talks.conversation(TALKED, (scope, scope, scope)) for scope in SCOPES]
    parts = [turns[i : i + 20] for i in range(0, len(turns), 20)] + [[turn[i] for turn in talked] for i in (0, 1, 2, 1, 0, 2)]
    answer |= alike(architecture, found, again, wanted) | {
        "distinct": len({b.token_ids for b in wanted}),
        "turns": sum(map(len, parts)),
        "turns_wrong": len(talks.wrong(*parts)),
        "worst_reading_difference": max(float(np.abs(a.values - b.values).max()) for a, b in read if a is not None),
        "readings": len(read),
        "first_wrong": [repr(r)[:600] for r, a, b in zip(requests, found, wanted, strict=True) if a.token_ids != b.token_ids][:3],
        "stats": engine.stats(),
    }
    engine.close()
    return answer


def soak(kind: str, n: int) -> dict[str, Any]:
    from mixed_requests import rich as requests_over_all
    from mixed_requests import write_moods

    folder = Path(tempfile.mkdtemp())
    engine, answer = opened(make_toy(folder, "llama"), kind, "1")
    engine.load_directions("moods", write_moods(folder))
    base = requests_over_all(256)
    rng = random.Random(3)

    async def one(counts: dict[str, int], gate: asyncio.Semaphore) -> None:
        async with gate:
            request = base[rng.randrange(len(base))]
            task = asyncio.ensure_future(engine._generate(request, *engine._plan(request)))
            if rng.random() < 0.1:
                await asyncio.sleep(rng.random() * 0.05)
                task.cancel()
            try:
                await task
                counts["replied"] += 1
            except asyncio.CancelledError:
                counts["aborted"] += 1

    async def many(m: int) -> dict[str, int]:
        counts = {"replied": 0, "aborted": 0}
        gate = asyncio.Semaphore(128)
        await asyncio.gather(*(one(counts, gate) for _ in range(m)))
        return counts

    engine._call(many(n // PARTS))
    start, along, counts = time.time(), [memory()], {"replied": 0, "aborted": 0}
    for _ in range(PARTS):
        part = engine._call(many(n // PARTS))
        counts = {key: counts[key] + part[key] for key in counts}
        time.sleep(0.5)
        along.append(memory())
    answer |= counts | {"seconds": time.time() - start, "memory_along": along, "stats": engine.stats()}
    engine.close()
    return answer


def memory() -> dict[str, int]:
    """Device bytes in use on the whole GPU, and resident KiB of this process and the engine's."""
    import psutil
    import torch

    free, total = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
    of = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {"device_used": total - free} | {f"{p.name()}_{i}": p.memory_info().rss >> 10 for i, p in enumerate(of)}


def noise() -> dict[str, Any]:
    """|Δ log-probability| of teacher-forced tokens, bfloat16 in vLLM against float32 in transformers."""
    import torch
    from vllm import LLM, SamplingParams, TokensPrompt

    from esr.engine.hf import HfEngine
    from esr.engine.options import sites_for
    from esr.engine.plugin import register
    from esr.engine.plugin.spec import KEY, Spec

    register()
    toy = make_toy(Path(tempfile.mkdtemp()), "llama")
    hf = HfEngine.open(toy.params, toy.name)
    llm = LLM(
        model=str(toy.folder), dtype="bfloat16", max_model_len=512, kv_cache_memory_bytes=1 << 30, max_num_seqs=64,
        compilation_config=GRAPHS, additional_config={KEY: sites_for(toy.params, toy.name).as_config()}, **SMALL,
    )  # fmt: skip
    differences: dict[str, list[float]] = {"plain": [], "steered": []}
    for request in mixed(64):
        prompt = hf._ids(request)
        ids = prompt + hf._generate(request).token_ids
        for name, spec in (("plain", Spec()), ("steered", Spec(ops=request.ops, scope=request.scope))):
            if name == "steered" and (not request.ops or request.scope in ("prompt", "generated")):
                continue  # forced tokens are all prompt
            extra = {"sae": spec.as_json()} if spec.ops else None
            params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, extra_args=extra)
            got = llm.generate([TokensPrompt(prompt_token_ids=list(ids))], params, use_tqdm=False)[0].prompt_logprobs
            hooked = hf._sites(request, len(ids), len(ids)) if spec.ops else {}
            with torch.inference_mode(), hf._hooked(hooked, 0, ids):
                want = hf.model(input_ids=torch.tensor([list(ids)])).logits[0].float().log_softmax(-1)
            differences[name] += [abs(float(want[t - 1, ids[t]]) - got[t][ids[t]].logprob) for t in range(1, len(ids))]
    return {
        name: {"n": len(d), "mean": statistics.mean(d), "p99": sorted(d)[int(len(d) * 0.99)], "max": max(d)}
        for name, d in differences.items()
    }


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "parity":
        say(parity(*rest))
    elif what == "rich":
        say(rich(*rest[:3], *map(int, rest[3:])))
    elif what == "soak":
        say(soak(rest[0], int(rest[1])))
    else:
        say(noise())
