"""Parity, throughput and soak of the steering plugin on a GPU; raw numbers as JSON.

python scripts/gpu_engine.py all OUT [--budget 400]      every phase, engines side by side in processes of their own
python scripts/gpu_engine.py smoke OUT                   the same at tiny sizes
python scripts/gpu_engine.py soak OUT                    20,000 short requests with aborts, also on a CPU

Throughput engines share the GPU and are measured in turn, round by round, so that drift falls on all alike.
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
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent.parent / "tests")]
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
if sys.argv[1:2] == ["child-parity"]:
    os.environ["TRITON_F32_DEFAULT"] = "ieee"  # vLLM's attention in float32 would multiply in TensorFloat-32

START = time.time()
GRAPHS = {"cudagraph_mode": "FULL_AND_PIECEWISE"}
SHAPES = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
    "70b-quarter": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 20, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128},
    "smoke": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64},
}  # fmt: skip
LAYER = {"8b": 19, "70b-quarter": 12, "smoke": 2}
D_SAE = {"8b": 65536, "70b-quarter": 65536, "smoke": 4096}
CACHE_GIB = {"8b": 24, "70b-quarter": 12, "smoke": 2}
WEIGHTS_NOTE = "dummy weights, dummy SAE of 65,536 latents in float32"


def note(*words: object) -> None:
    print(f"[{time.time() - START:6.1f}]", *words, file=sys.stderr, flush=True)


def device_free() -> int:
    import torch

    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else 0


# children

SOAK_PARTS = 10
"""Looks at the memory along a soak: a leak grows with every part, a cache fills once."""


def specs(mode: str, n: int, sae: str, layer: int, d_sae: int, seed: int) -> list[str | None]:
    rng = random.Random(seed)
    out: list[str | None] = []
    for _ in range(n):
        add = {"op": "add", "sae": sae, "i": rng.randrange(d_sae), "v": rng.uniform(0.5, 4), "layer": layer}
        clamps = [{"op": "clamp", "sae": sae, "i": i, "v": 0.0, "layer": layer} for i in rng.sample(range(d_sae), 26)]
        block: dict[str, Any] = {"id": rng.randbytes(8).hex()}
        if mode == "none":
            out.append(None)
            continue
        if mode in ("add", "clamp"):
            block["ops"] = [add] if mode == "add" else clamps
        if mode == "capture":
            block["capture"] = {"sae": sae, "layer": layer, "mode": "topk", "k": 64, "positions": "prompt"}
        out.append(json.dumps(block))
    return out


def bench_child(shape: str, kind: str) -> None:
    """Answers one JSON command a line: a batch to generate, timed."""
    from transformers import LlamaConfig
    from vllm import LLM

    from esr.engine.plugin import register

    register()
    folder = Path(tempfile.mkdtemp())
    LlamaConfig(
        architectures=["LlamaForCausalLM"], vocab_size=128256, max_position_embeddings=4096, torch_dtype="bfloat16", **SHAPES[shape]
    ).save_pretrained(folder)
    sites = {
        "saes": {
            "s": {
                "loader": "folder",
                "repo": "none",
                "layer": LAYER[shape],
                "d_in": SHAPES[shape]["hidden_size"],
                "d_sae": D_SAE[shape],
            }
        }
    }
    started = time.time()
    llm = LLM(
        model=str(folder), load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16", max_model_len=2048, max_num_seqs=256,
        max_num_batched_tokens=8192, kv_cache_memory_bytes=CACHE_GIB[shape] << 30, enforce_eager=kind == "eager",
        compilation_config=None if kind == "eager" else GRAPHS, disable_log_stats=False,
        additional_config={} if kind == "plain" else {"sae_steering": sites},
    )  # fmt: skip
    print("@@" + json.dumps({"ready": time.time() - started, "vllm": __import__("vllm").__version__, "v2": bool(getattr(llm.llm_engine.vllm_config, "use_v2_model_runner", False)),
                             "graphs": str(llm.llm_engine.vllm_config.compilation_config.cudagraph_mode)}), flush=True)  # fmt: skip
    for line in sys.stdin:
        c = json.loads(line)
        try:
            answer = run(llm, shape, **c)
        except Exception:
            answer = {"error": traceback.format_exc()[-1500:]}
        print("@@" + json.dumps(answer), flush=True)


def run(llm: Any, shape: str, *, mode: str, n: int, prompt: int, gen: int, seed: int, repeat: bool = False) -> dict[str, Any]:
    from vllm import SamplingParams, TokensPrompt

    rng = random.Random(seed)
    shared = [rng.randrange(1000, 100000) for _ in range(prompt)]
    prompts = [
        TokensPrompt(prompt_token_ids=shared if repeat else [rng.randrange(1000, 100000) for _ in range(prompt)]) for _ in range(n)
    ]
    texts = specs(mode, n, "s", LAYER[shape], D_SAE[shape], seed)
    if repeat:
        texts = [texts[0] and json.dumps(json.loads(texts[0]) | {"id": ""})] * n
    params = [
        SamplingParams(temperature=0, max_tokens=gen, ignore_eos=True, detokenize=False, extra_args={"sae": text} if text else None)
        for text in texts
    ]
    before = hits(llm)
    start = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - start
    made = sum(len(o.outputs[0].token_ids) for o in outputs)
    answer: dict[str, Any] = {
        "seconds": seconds,
        "generated": made,
        "prompt_tokens": n * prompt,
        "hits": [b - a for a, b in zip(before, hits(llm), strict=True)],
    }
    if mode != "none" and not repeat:
        ids = [json.loads(text or "{}")["id"] for text in texts]
        start = time.perf_counter()
        taken = llm.collective_rpc("esr_take", args=(ids, [prompt + gen - 1] * n))[0]
        answer["take_seconds"] = time.perf_counter() - start
        answer["taken_wrong"] = sum(t is None or bool(t["error"]) or t["executed"] != t["expected"] for t in taken)
        answer["executed"] = sum(t["executed"] for t in taken if t)
        if mode == "capture":
            answer["rows"] = sum(len(t["capture"]["positions"]) // 4 for t in taken if t and t["capture"])
            answer["error"] = next((t["error"] for t in taken if t and t["error"]), None)
    return answer


def hits(llm: Any) -> list[float]:
    found = {m.name: m.value for m in llm.get_metrics() if hasattr(m, "value")}
    return [float(found.get(f"vllm:prefix_cache_{what}", 0)) for what in ("queries", "hits")]


def mixed(n: int) -> list[Any]:
    """`n` requests with `n` distinct specs over both blocks, kinds, scopes."""
    from esr.engine import Capture, Request
    from esr.types import Op, Sampling

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
        capture = (
            Capture(layer=2, sae="late", mode=mode, latents=(1, 5, 9) if mode == "latents" else (), k=4 if mode == "topk" else 0)
            if mode
            else None
        )  # type: ignore[arg-type]  # drawn from the literals
        out.append(Request(
            prompt=f"Question {i}: " + "how does it work? " * rng.randrange(1, 8), ops=ops, scope=rng.choice(["all", "all", "prompt", "generated", "[3,20)"]),
            sampling=Sampling(temperature=0, top_p=1, repetition_penalty=1, max_tokens=32), capture=capture,
        ))  # fmt: skip
    return out


def parity_child(arch: str, kind: str, out: str, soak: int, tp: int = 1) -> None:
    import numpy as np
    from tiny_models import make_toy

    from esr.engine.hf import HfEngine
    from esr.engine.vllm import VllmEngine

    toy = make_toy(Path(tempfile.mkdtemp()), arch)  # type: ignore[arg-type]  # drawn from the literals
    options: dict[str, Any] = {
        "max_num_seqs": 64,
        "max_num_batched_tokens": 512,
        "kv_cache_memory_bytes": 1 << 30,
        "tensor_parallel_size": tp,
    }
    options |= {"enforce_eager": True} if kind == "eager" else {"compilation_config": GRAPHS}
    if tp > 1:  # NVLink multicast stays off
        os.environ["VLLM_ALLREDUCE_USE_SYMM_MEM"] = "0"
        options |= {
            "disable_custom_all_reduce": True,
            "compilation_config": GRAPHS | {"pass_config": {"fuse_allreduce_rms": False}},
        }
    started = time.time()
    engine = VllmEngine(toy.params, toy.name, **options)
    config = engine._engine.vllm_config
    answer: dict[str, Any] = {
        "arch": arch,
        "kind": kind,
        "tp": tp,
        "ready": time.time() - started,
        "v2": bool(getattr(config, "use_v2_model_runner", False)),
        "graphs": str(config.compilation_config.cudagraph_mode),
    }
    requests = mixed(64)
    found = engine.generate(requests)
    again = engine.generate(list(reversed(requests)))[::-1]
    wanted = HfEngine.open(toy.params, toy.name).generate(requests)
    answer["identical"] = sum(a.token_ids == b.token_ids for a, b in zip(found, wanted, strict=True))
    answer["identical_again"] = sum(a.token_ids == b.token_ids for a, b in zip(again, wanted, strict=True))
    answer["applied_right"] = sum(a.applied == b.applied for a, b in zip(found, wanted, strict=True))
    answer["of"] = len(requests)
    worst, rows = 0.0, 0
    for a, b in zip(found, wanted, strict=True):
        if a.reading is not None and b.reading is not None and a.token_ids == b.token_ids:
            rows += int(len(a.reading.positions) == b.reading.expected)
            worst = max(worst, float(np.abs(a.reading.values - b.reading.values).max()))
    answer |= {
        "captures_complete": rows,
        "captures": sum(r.capture is not None for r in requests),
        "worst_latent_difference": worst,
    }
    answer["tokens"] = [list(a.token_ids) for a in found]
    if soak:
        answer["soak"] = soaking(engine, soak)
    answer["stats"] = engine.stats()
    answer["device_memory"] = device_free()
    engine.close()
    Path(out).write_text(json.dumps(answer))


def soaking(engine: Any, n: int) -> dict[str, Any]:
    import asyncio

    import psutil

    base = mixed(256)
    rng = random.Random(3)

    async def one(i: int, counts: dict[str, int], gate: asyncio.Semaphore) -> None:
        async with gate:
            request = base[rng.randrange(len(base))]
            ids, spec = engine._plan(request)
            task = asyncio.ensure_future(engine._generate(request, ids, spec))
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
        await asyncio.gather(*(one(i, counts, gate) for i in range(m)))
        return counts

    def memory() -> dict[str, int]:
        procs = [psutil.Process(), *psutil.Process().children(recursive=True)]
        return {"device_free": device_free()} | {f"rss_{i}_{p.name()}": p.memory_info().rss >> 10 for i, p in enumerate(procs)}

    engine._call(many(n // 10))
    start, along, counts = time.time(), [memory()], {"replied": 0, "aborted": 0}
    for _ in range(SOAK_PARTS):
        part = engine._call(many(n // SOAK_PARTS))
        counts = {key: counts[key] + part[key] for key in counts}
        time.sleep(0.5)
        along.append(memory())
    return counts | {"seconds": time.time() - start, "memory_along_kib": along, "stats": engine.stats()}


def noise_child(out: str) -> None:
    """bfloat16 against float32: |Δ log-probability| of teacher-forced tokens, steered and not."""
    import torch
    from tiny_models import make_toy
    from vllm import LLM, SamplingParams, TokensPrompt

    from esr.engine.hf import HfEngine
    from esr.engine.plugin import register
    from esr.engine.plugin.spec import KEY, Spec
    from esr.engine.vllm import sites_for

    register()
    toy = make_toy(Path(tempfile.mkdtemp()), "llama")
    hf = HfEngine.open(toy.params, toy.name)
    sites = sites_for(toy.params, toy.name)
    llm = LLM(
        model=str(toy.folder),
        dtype="bfloat16",
        max_model_len=512,
        kv_cache_memory_bytes=1 << 30,
        max_num_seqs=64,
        compilation_config=GRAPHS,
        additional_config={KEY: sites.as_config()},
    )
    differences: dict[str, list[float]] = {"plain": [], "steered": []}
    for request in mixed(64):
        ids = hf._ids(request) + hf._generate(request).token_ids
        for name, spec in (("plain", Spec()), ("steered", Spec(ops=request.ops, scope=request.scope))):
            if name == "steered" and not request.ops:
                continue
            params = SamplingParams(
                temperature=0, max_tokens=1, prompt_logprobs=0, extra_args={"sae": spec.as_json()} if spec.ops else None
            )
            got = llm.generate([TokensPrompt(prompt_token_ids=list(ids))], params, use_tqdm=False)[0].prompt_logprobs
            hooked = (
                hf._sites(request, len(hf._ids(request)) if request.scope in ("prompt", "generated") else len(ids), len(ids))
                if spec.ops
                else {}
            )
            if request.scope in ("prompt", "generated") and spec.ops:
                continue
            with torch.inference_mode(), hf._hooked(hooked, 0):
                want = hf.model(input_ids=torch.tensor([list(ids)])).logits[0].float().log_softmax(-1)
            for t in range(1, len(ids)):
                differences[name].append(abs(float(want[t - 1, ids[t]]) - got[t][ids[t]].logprob))
    Path(out).write_text(
        json.dumps(
            {
                name: {"n": len(d), "mean": statistics.mean(d), "p99": sorted(d)[int(len(d) * 0.99)], "max": max(d)}
                for name, d in differences.items()
            }
        )
    )


# the parent


class Child:
    def __init__(self, *args: str, wait: bool = False) -> None:
        self.args = args
        self.log = open(Path(tempfile.gettempdir()) / f"gpu-{'-'.join(a.strip('/').replace('/', '_') for a in args)}.log", "w+")  # noqa: SIM115  # lives as long as the child
        self.process = subprocess.Popen(
            [sys.executable, __file__, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("@@"):
                found: dict[str, Any] = json.loads(line[2:])
                return found
        return {"error": "the child ended: " + self.tail()}

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"error": "the child is gone: " + self.tail()}
        return self.answer()

    def tail(self) -> str:
        self.log.flush()
        self.log.seek(0)
        return self.log.read()[-3000:]

    def end(self) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.terminate()


def rounds(
    kids: dict[str, Child], plan: list[tuple[str, str, str]], sizes: dict[str, Any], times: int, deadline: float
) -> dict[str, Any]:
    """`plan`: (label, child, mode), asked in turn `times` times after one warm-up each."""
    out: dict[str, Any] = {label: [] for label, _, _ in plan}
    for i in range(times + 1):
        for label, kid, mode in plan:
            if time.time() > deadline and i > 1:
                continue
            answer = kids[kid].ask(mode=mode, seed=1000 * i + 17, **(sizes if i else sizes | {"gen": min(sizes["gen"], 16)}))
            if i or answer.get("error"):
                out[label].append(answer)
    for label in list(out):
        good = [a for a in out[label] if a.get("seconds")]
        if good:
            tokens = good[0]["generated"] if sizes["gen"] > 1 else good[0]["prompt_tokens"]
            out[label + "/tokens_per_second"] = tokens / statistics.median(a["seconds"] for a in good)
    reference = out.get("plain/tokens_per_second")
    if reference:
        out["relative"] = {
            label: out[label + "/tokens_per_second"] / reference for label, _, _ in plan if label + "/tokens_per_second" in out
        }
        out["paired"] = {
            label: statistics.median(
                p["seconds"] / a["seconds"]
                for p, a in zip(out["plain"], out[label], strict=False)
                if p.get("seconds") and a.get("seconds")
            )
            for label, _, _ in plan
            if out[label] and out[label][0].get("seconds")
        }
    note(
        json.dumps(out.get("relative")),
        json.dumps(out.get("paired")),
        [a["error"][-300:] for label, _, _ in plan for a in out[label] if a.get("error")][:1],
    )
    return out


def bench(shape: str, kinds: list[str], result: dict[str, Any], deadline: float, *, small: bool = False) -> None:
    kids = {kind: Child("child-bench", shape, kind) for kind in kinds}
    for kind, kid in kids.items():
        result[f"{shape}/{kind}"] = kid.answer()
        note(shape, kind, json.dumps(result[f"{shape}/{kind}"])[-1500:])
    measure(shape, kids, result, deadline, small=small)


def measure(shape: str, kids: dict[str, Child], result: dict[str, Any], deadline: float, *, small: bool = False) -> None:
    plan = [("plain", "plain", "none"), ("idle", "plugin", "none"), ("steered", "plugin", "add"), ("clamp", "plugin", "clamp")]
    long = 512 if shape == "8b" else 128
    for batch, gen, times in ((256, long, 4), (16, long, 3), (1, long, 5)):
        sizes = {"n": batch, "prompt": 64, "gen": 16 if small else gen}
        result[f"{shape}/batch{batch}"] = rounds(kids, plan, sizes, 1 if small else times, deadline)
    prefill = [("plain", "plain", "none"), ("idle", "plugin", "none"), ("capture", "plugin", "capture")]
    result[f"{shape}/prefill"] = rounds(
        kids, prefill, {"n": 8 if small else 64, "prompt": 1024, "gen": 1}, 1 if small else 3, deadline
    )
    for label, kid, mode in (("plain", "plain", "none"), ("steered", "plugin", "add")):
        result[f"{shape}/hits/{label}"] = [
            kids[kid].ask(mode=mode, n=32, prompt=1024, gen=2, seed=5, repeat=True)["hits"] for _ in range(2)
        ]
    note(result[f"{shape}/hits/plain"], result[f"{shape}/hits/steered"])
    if "eager" in kids:
        for batch in (256, 16, 1):
            result[f"{shape}/eager/batch{batch}"] = rounds(
                kids,
                [("eager steered", "eager", "add")],
                {"n": batch, "prompt": 64, "gen": 16 if small else 64},
                1 if small else 2,
                deadline,
            )
    for kid in kids.values():
        kid.end()


def write_down(path: Path, result: dict[str, Any]) -> None:
    path.write_text(json.dumps(result, indent=1))


def again(path: Path, budget: float) -> None:
    """The figures nearest their bars, with more rounds: the 8B shape, then the 70B shape with a quarter of its blocks."""
    result: dict[str, Any] = {"what": WEIGHTS_NOTE}
    save = partial(write_down, path / "engine-gpu.json", result)
    for shape, n, gen in (("8b", 256, 512), ("70b-quarter", 256, 128)):
        if time.time() - START > budget - 60:
            break
        kids = {kind: Child("child-bench", shape, kind) for kind in ("plain", "plugin")}
        for kind, kid in kids.items():
            result[f"{shape}/{kind}"] = kid.answer()
            note(shape, kind, json.dumps(result[f"{shape}/{kind}"])[-500:])
        plan = [("plain", "plain", "none"), ("capture", "plugin", "capture")]
        result[f"{shape}/prefill"] = rounds(
            kids, plan, {"n": 64, "prompt": 1024, "gen": 1}, 5 if shape == "8b" else 3, START + budget
        )
        save()
        plan = [("plain", "plain", "none"), ("idle", "plugin", "none"), ("steered", "plugin", "add"), ("clamp", "plugin", "clamp")]
        result[f"{shape}/batch{n}"] = rounds(kids, plan, {"n": n, "prompt": 64, "gen": gen}, 3, START + budget)
        save()
        for kid in kids.values():
            kid.end()


def soak_alone(path: Path, n: int) -> None:
    """The soak alone, on whatever device there is: a random Llama, run eagerly."""
    parity_child("llama", "eager", str(path / "engine-soak.json"), n)
    found = json.loads((path / "engine-soak.json").read_text())
    del found["tokens"]
    write_down(path / "engine-soak.json", found)
    note(json.dumps(found["soak"])[-1500:])


def main(what: str, out: str, budget: float) -> None:
    path = Path(out)
    path.mkdir(parents=True, exist_ok=True)
    if what == "soak":
        soak_alone(path, 20_000)
        return
    if what == "again":
        again(path, budget)
        return
    small = what == "smoke"
    result: dict[str, Any] = {"what": WEIGHTS_NOTE}
    save = partial(write_down, path / "engine-gpu.json", result)
    parity = {}
    if what in ("all", "smoke", "parity", "tp"):
        grid = (
            [("llama", "graphs", 1), ("llama", "eager", 1), ("gemma2", "graphs", 1)]
            if what != "tp"
            else [("llama", "graphs", 2), ("gemma2", "graphs", 2)]
        )
        for arch, kind, tp in grid:
            soak = (
                (200 if small else 20000)
                if (arch, kind, what) != ("llama", "graphs", "tp") and (arch, kind) == ("llama", "graphs")
                else 0
            )
            parity[f"{arch}/{kind}/tp{tp}"] = (
                Child("child-parity", arch, kind, str(path / f"{arch}-{kind}-{tp}.json"), str(soak), str(tp)),
                path / f"{arch}-{kind}-{tp}.json",
            )
        if what != "tp":
            parity["noise"] = (Child("child-noise", str(path / "noise.json")), path / "noise.json")
    kids: dict[str, Child] = {}
    shape = "smoke" if small else "8b"
    if what in ("all", "smoke", "bench"):
        kids = {kind: Child("child-bench", shape, kind) for kind in ("plain", "plugin", "eager")}
    for name, (child, file) in parity.items():
        try:
            child.process.wait(max(10, budget - (time.time() - START)))
        except subprocess.TimeoutExpired:
            child.process.terminate()
        result[name] = json.loads(file.read_text()) if file.exists() else {"error": child.tail()}
        file.unlink(missing_ok=True)
        note(name, json.dumps({k: v for k, v in result[name].items() if k != "tokens"})[-2500:])
        save()
    if kids:
        for kind, kid in kids.items():
            result[f"{shape}/{kind}"] = kid.answer()
            note(shape, kind, json.dumps(result[f"{shape}/{kind}"])[-2500:])
        measure(shape, kids, result, START + budget, small=small)
        save()
    if what in ("all", "70b") and time.time() - START < budget - 60:
        bench("70b-quarter", ["plain", "plugin"], result, START + budget)
    save()


if __name__ == "__main__":
    if sys.argv[1] == "child-bench":
        bench_child(sys.argv[2], sys.argv[3])
    elif sys.argv[1] == "child-parity":
        parity_child(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))
    elif sys.argv[1] == "child-noise":
        noise_child(sys.argv[2])
    else:
        main(sys.argv[1], sys.argv[2], float(sys.argv[4]) if len(sys.argv) > 4 else 400.0)
