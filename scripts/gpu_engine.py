"""Parity, soak and throughput of the steering plugin on GPUs; raw numbers as JSON.

python scripts/gpu_engine.py OUT                                    parity, soak and the 8B shape on one GPU
python scripts/gpu_engine.py OUT --phases tp,70b-tp2 --budget 500   named phases; these two want two GPUs
python scripts/gpu_engine.py OUT --phases smoke                     everything at tiny sizes
python scripts/gpu_engine.py OUT --phases soak                      also on a CPU

parity   64 mixed requests, token by token against transformers; with graphs, eagerly, Gemma-2; bfloat16 against float32
rich     208 requests over every op, scope, schedule and condition, and conversations that share prefixes, token by token
tp       parity and rich under tensor parallel 2
pp       parity and rich over two pipeline stages, which also want two GPUs
soak     20,000 short requests over every op with aborts: counts, tables and memory along the way
8b, 70b-quarter, 70b-tp2   throughput with and without the plugin: gpu_throughput.py

Correctness runs on the last GPU, throughput on the first. OUT/engine-gpu.json is written after every phase.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from engine_table import COLUMNS
from gpu_throughput import SHAPES, WEIGHTS_NOTE, Child, throughput

ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
}
IEEE = {"TRITON_F32_DEFAULT": "ieee"}
"""Otherwise vLLM's attention in float32 multiplies in TensorFloat-32."""
HERE = Path(__file__).resolve().parent
START = time.time()


def note(*words: object) -> None:
    print(f"[{time.time() - START:6.1f}]", *words, file=sys.stderr, flush=True)


def listed() -> list[str]:
    return os.popen("nvidia-smi -L 2>/dev/null").read().splitlines()


def correctness(phases: list[str], out: Path, gpus: int) -> dict[str, Child]:
    """The children of the phases named, all at once; each prints one answer."""
    small = "smoke" in phases
    grid: list[tuple[str, list[str]]] = []
    if small or "parity" in phases:
        grid += [
            (f"parity/{a}/{k}/tp1", ["parity", a, k, "1"])
            for a, k in (("llama", "graphs"), ("llama", "eager"), ("gemma2", "graphs"))
        ]
        grid += [("parity/bf16_noise", ["noise"])]
    if small or "rich" in phases:
        kinds = (("llama", "graphs"), ("gemma2", "graphs"), ("gemma3", "graphs"), ("olmo2", "graphs"), ("llama", "eager"))
        grid += [(f"rich/{a}/{k}", ["rich", a, k, "1"]) for a, k in kinds]
    if small or "soak" in phases:
        grid += [("soak", ["soak", "graphs" if gpus else "eager", "400" if small else "20000"])]
    if "tp" in phases:
        grid += [(f"{what}/{a}/graphs/tp2", [what, a, "graphs", "2"]) for what in ("parity", "rich") for a in ("llama", "gemma2")]
    if "pp" in phases:
        grid += [(f"{what}/{a}/graphs/pp2", [what, a, "graphs", "pp2"]) for what in ("parity", "rich") for a in ("llama", "gemma2")]
    last = {"CUDA_VISIBLE_DEVICES": str(gpus - 1)} if gpus > 1 else {}
    both = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0,1")}
    return {
        name: Child("gpu_parity.py", *args, env=ENVIRONMENT | IEEE | (both if name.endswith(("tp2", "pp2")) else last))
        for name, args in grid
    }


def main(out: Path, phases: list[str], only: list[str], without: set[str], budget: float, gpus: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"what": WEIGHTS_NOTE, "gpus": [line.partition(" (")[0] for line in listed()[:gpus]]}

    def save() -> None:
        (out / "engine-gpu.json").write_text(json.dumps(result, indent=1))

    def collect(children: dict[str, Child]) -> None:
        for name, child in children.items():
            result[name] = child.answer()
            child.end()
            note(name, json.dumps(result[name])[-1500:])
            save()

    beside = correctness(phases, out, gpus)
    collect({name: beside.pop(name) for name in list(beside) if gpus < 2 or name.endswith(("tp2", "pp2"))})
    for shape in [shape for shape in SHAPES if shape in phases]:
        if time.time() - START > budget - 90:
            note(shape, "is left out: the budget is spent")
            break
        env = ENVIRONMENT | ({"CUDA_VISIBLE_DEVICES": "0"} if gpus > 1 and SHAPES[shape].tp == 1 else {})
        for key, block in throughput(shape, only, without, env, START + budget, note):
            result[key] = block
            save()
    collect(beside)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--phases", default="parity,soak,8b")
    parser.add_argument(
        "--only",
        default="",
        help="of a shape's measurements these, such as 'batch16,batch256 of 128 x 9', nine rounds (default: all)",
    )
    parser.add_argument("--without", default="", help="what is not asked of the engines, such as 'zero,directions'")
    parser.add_argument("--budget", type=float, default=560, help="seconds after which no further round begins")
    parser.add_argument("--gpus", type=int, default=-1, help="GPUs to use (default: those that nvidia-smi lists)")
    asked = parser.parse_args()
    without = {what.strip() for what in asked.without.split(",")} - {""}
    if unknown := without - set(COLUMNS):
        parser.error(f"nothing is called {', '.join(sorted(unknown))}; there are {', '.join(COLUMNS)}")
    main(
        asked.out,
        asked.phases.split(","),
        [what for what in asked.only.split(",") if what],
        without,
        asked.budget,
        asked.gpus if asked.gpus >= 0 else len(listed()),
    )
