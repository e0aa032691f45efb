"""Measures how many tokens a second are read with captures, against plain prefill of the same sequences.

python scripts/bench_readings.py tiny     # docs/benchmarks/readings.json; the engine that $ESR_ENGINE names
Each way reads the same random sequences three times, in turns; the prefix cache has seen none of them.
"""

import argparse
import json
import os
import platform
import random
import sys
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any

from esr.engine import Capture, Request
from esr.params import HOME, load
from esr.store import Store
from esr.study.needs import gpu_memory
from esr.study.readings import READ
from esr.study.study import Study

LATENTS, LARGEST = 64, 32


def main() -> None:
    ask = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ask.add_argument("model")
    ask.add_argument("--replies", type=int, default=128)
    ask.add_argument("--tokens", type=int, default=128)
    given = ask.parse_args()
    study = Study(load(given.model), given.model, Store())
    spec = study.spec
    ordinary = study.engine.render(" ".join(["How do you make a good cup of coffee and wash the dishes by hand"] * 20))[2:]
    about: dict[str, Any] = {"layer": spec.read_layer, "sae": spec.sae, "stage": "before"}
    captures: dict[str, Capture | None] = {
        "plain": None, f"latents-{LATENTS}": Capture(mode="latents", latents=tuple(range(LATENTS)), **about),
        f"top-{LARGEST}": Capture(mode="topk", k=LARGEST, **about),
    }  # fmt: skip
    rng = random.Random(1)
    found: dict[str, list[float]] = {name: [] for name in captures}
    for turn in range(4):
        for name, capture in captures.items():
            asked = [
                Request(token_ids=tuple(rng.choices(ordinary, k=given.tokens)), sampling=READ, capture=capture)
                for _ in range(given.replies)
            ]
            ways: Callable[[Sequence[Request]], object] = study.engine.generate if capture is None else study.engine.read
            began = perf_counter()
            ways(asked)
            if turn:  # the first warms up
                found[name].append(given.replies * given.tokens / (perf_counter() - began))
    speed = {name: round(median(of)) for name, of in found.items()}
    out: dict[str, Any] = {
        "model": given.model, "engine": study.backend, "replies": given.replies, "tokens": given.tokens, "tokens_per_second": speed,
        "share_of_plain": {name: round(of / speed["plain"], 3) for name, of in speed.items()},
        "machine": {"cpus": os.cpu_count(), "system": platform.system(), "load": os.getloadavg()},
    }  # fmt: skip
    out["machine"]["gpus"] = gpu_memory()
    study.close()
    (HOME / "docs" / "benchmarks" / "readings.json").write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
