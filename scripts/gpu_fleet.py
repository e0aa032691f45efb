"""Two engines of the 8B shape on two GPUs against one: replies a second of the same plan, asked as a study asks.

    python scripts/gpu_fleet.py --out docs/benchmarks/fleet_gpu.json
    python scripts/gpu_fleet.py --shape smoke --replies 64 --tokens 32     also on a CPU with two cores
    python scripts/gpu_fleet.py --order 1 --rounds 3 --options '{"max_num_seqs": 512}'     one worker, and vLLM told otherwise

Random weights that vLLM makes itself; each reply steered by a latent and a boost of its own, no end token, so that every reply is as long as it
may be. One worker and two take turns, each opened anew (esr/engine/fleet.py), and a first, shorter round is not counted.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_throughput import SHAPES, Shape

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME / "tests"))
D_SAE = 1024


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


def rounds_of(n: int, params: Any, shape: Shape, given: argparse.Namespace, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    from esr.engine.fleet import Fleet

    began = time.monotonic()
    fleet = Fleet(n, params, "shape", "vllm", True, {"load_format": "dummy"} | options)
    try:
        while any(one.state != "open" for one in fleet.seen()):
            time.sleep(0.1)
        opened = time.monotonic()
        fleet.generate(asked(shape, max(given.replies // 4, n), given.tokens))
        for _ in range(given.rounds):
            start = time.monotonic()
            found = fleet.generate(asked(shape, given.replies, given.tokens))
            seconds = time.monotonic() - start
            made = sum(len(one.token_ids) for one in found)
            yield {
                "workers": n, "options": options, "opened_s": round(opened - began, 1), "seconds": round(seconds, 2),
                "replies": len(found), "tokens": made, "replies_per_s": round(len(found) / seconds, 2),
                "tokens_per_s": round(made / seconds), "load": round(os.getloadavg()[0], 1),
            }  # fmt: skip
    finally:
        fleet.close()


def ratio(rounds: list[dict[str, Any]], options: dict[str, Any]) -> float | None:
    """Tokens a second of two workers over one's."""
    of = {n: [r["tokens_per_s"] for r in rounds if r["workers"] == n and r["options"] == options] for n in (1, 2)}
    return round(statistics.mean(of[2]) / statistics.mean(of[1]), 3) if all(of.values()) else None


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--shape", choices=list(SHAPES), default="8b")
    words.add_argument("--replies", type=int, default=2048)
    words.add_argument("--tokens", type=int, default=256)
    words.add_argument("--order", type=int, nargs="+", default=[1, 2, 2, 1], help="workers of each opening")
    words.add_argument("--rounds", type=int, default=1, help="of each opening")
    words.add_argument(
        "--options", type=json.loads, action="append", help="AsyncEngineArgs of vLLM as JSON; several are tried in turn"
    )
    words.add_argument("--out", type=Path)
    given = words.parse_args()
    shape, rounds, variants = SHAPES[given.shape], list[dict[str, Any]](), given.options or [{}]
    with tempfile.TemporaryDirectory() as name:
        params = place(Path(name), shape)
        for options, n in [(options, n) for options in variants for n in given.order]:
            for done in rounds_of(n, params, shape, given, options):
                rounds.append(done)
                print(json.dumps(done), flush=True)
                told = {
                    "what": " ".join(["python", "scripts/gpu_fleet.py", *sys.argv[1:]]), "shape": given.shape,
                    "two_over_one": [{"options": one, "ratio": ratio(rounds, one)} for one in variants], "each": rounds,
                    "gpus": os.popen("nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null").read().splitlines(),
                    "cores": os.cpu_count(), "python": platform.python_version(),
                }  # fmt: skip
                if given.out:
                    given.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
