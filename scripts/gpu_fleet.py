"""Two engines of the 8B shape on two GPUs against one: replies a second of the same plan, asked as a study asks.

    python scripts/gpu_fleet.py --out docs/benchmarks/fleet_gpu.json
    python scripts/gpu_fleet.py --shape smoke --replies 64 --tokens 32     also on a CPU with two cores

Random weights that vLLM makes itself; each reply steered by a latent and a boost of its own, no end token, so that every reply is as long as it
may be. One worker and two take turns, each opened anew (esr/engine/fleet.py), and a first, shorter round is not counted.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_throughput import SHAPES, Shape

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME / "tests"))
D_SAE = 1024
ORDER = (1, 2, 2, 1)


def place(folder: Path, shape: Shape) -> Any:
    """Params with a model of this shape and its SAE."""
    from tiny_models import byte_tokenizer, write_sae
    from transformers import LlamaConfig

    from esr.params import ModelParams, SaeParams, Search, load

    vocabulary = 128256 if shape.hidden > 1024 else 512
    LlamaConfig(
        architectures=["LlamaForCausalLM"], vocab_size=vocabulary, max_position_embeddings=4096, torch_dtype="bfloat16",
        bos_token_id=1, eos_token_id=2, **shape.config(),
    ).save_pretrained(folder / "model")  # fmt: skip
    byte_tokenizer().save_pretrained(folder / "model")
    write_sae(folder / "sae", shape.layer, width=shape.hidden, d_sae=D_SAE)
    base = load("tiny")
    sae = SaeParams(name="shape", loader="folder", repo=str(folder / "sae"), layer=shape.layer, d_in=shape.hidden, d_sae=D_SAE)
    model = ModelParams(
        name="shape", hub=str(folder / "model"), revision="local", family="tiny", layers=shape.layers, width=shape.hidden,
        dtype="bfloat16", quantization=None, max_model_len=1024, sae="shape", steer_layer=shape.layer, read_layer=shape.layer,
        ablate_layer=shape.layer, allow_layer_mismatch=False, repetition_penalty=1.0,
        search=Search(lower=0, upper=40, prior_mean=8, prior_std=8), judge="lexical", reference_names=(),
    )  # fmt: skip
    work = base.work.model_copy(update={"batch": 256})
    return base.model_copy(update={"models": {**base.models, "shape": model}, "saes": {**base.saes, "shape": sae}, "work": work})


def asked(shape: Shape, replies: int, tokens: int) -> list[Any]:
    from esr.engine import Request
    from esr.types import Op, Sampling

    sampling = Sampling(temperature=1.0, top_p=1.0, repetition_penalty=1.0, max_tokens=tokens)
    return [
        Request(
            prompt=f"Question {i}: how do I bake bread that keeps for a week?", sampling=sampling, seed=i,
            ops=(Op("add", i % D_SAE, 0.1 + 0.001 * (i % 500), shape.layer, "shape"),),
        )
        for i in range(replies)
    ]  # fmt: skip


def round_of(n: int, params: Any, shape: Shape, replies: int, tokens: int) -> dict[str, Any]:
    from esr.engine.fleet import Fleet

    began = time.monotonic()
    fleet = Fleet(n, params, "shape", "vllm", True, {"load_format": "dummy"})
    try:
        while any(one.state != "open" for one in fleet.seen()):
            time.sleep(0.1)
        opened = time.monotonic()
        fleet.generate(asked(shape, max(replies // 4, n), tokens))
        start = time.monotonic()
        found = fleet.generate(asked(shape, replies, tokens))
        seconds = time.monotonic() - start
    finally:
        fleet.close()
    made = sum(len(one.token_ids) for one in found)
    return {
        "workers": n, "opened_s": round(opened - began, 1), "seconds": round(seconds, 2), "replies": len(found), "tokens": made,
        "replies_per_s": round(len(found) / seconds, 2), "tokens_per_s": round(made / seconds),
    }  # fmt: skip


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--shape", choices=list(SHAPES), default="8b")
    words.add_argument("--replies", type=int, default=2048)
    words.add_argument("--tokens", type=int, default=256)
    words.add_argument("--out", type=Path)
    given = words.parse_args()
    shape, rounds = SHAPES[given.shape], list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as name:
        params = place(Path(name), shape)
        for n in ORDER:
            rounds.append(round_of(n, params, shape, given.replies, given.tokens))
            print(json.dumps(rounds[-1]), flush=True)
            of = {n: [r["tokens_per_s"] for r in rounds if r["workers"] == n] for n in sorted(set(ORDER))}
            ratio = None if not all(of.values()) else round(sum(of[2]) / len(of[2]) / (sum(of[1]) / len(of[1])), 3)
            told = {
                "what": "python scripts/gpu_fleet.py", "shape": given.shape, "two_over_one": ratio, "each": rounds,
                "gpus": os.popen("nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null").read().splitlines(),
                "cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0],
            }  # fmt: skip
            if given.out:
                given.out.write_text(json.dumps(told, indent=1) + "\n")
    print(f"two over one: {ratio}")


if __name__ == "__main__":
    main()
