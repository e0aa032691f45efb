"""Bias, error and coverage of the threshold search under simulated judges. Writes docs/benchmarks/threshold.json.

A latent's scores are about 20 or about 85 (as judges give them), or 0 or 100; the share of the high ones falls with the boost
along a logistic curve. Truth is where the mean meets the target.
"""

import json
import math
import time
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np

from esr.threshold import Bisection

TARGET, STEPS, LATENTS = 0.3, 10, 400
KINDS = {"20 or 85": (0.20, 0.85, 0.07), "0 or 100": (0.0, 1.0, 0.0)}


def one(rng: np.random.Generator, width: float, kind: str, n: int, ours: bool) -> tuple[float, bool, float, str]:
    low, high, noise = KINDS[kind]
    center = rng.uniform(3, 12)
    share = (TARGET - low) / (high - low)
    root = center - width * math.log(share / (1 - share))
    search = Bisection(0, 100, 7, 5, TARGET)
    for _ in range(STEPS):
        up = rng.random(n) < 1 / (1 + math.exp(min((search.ask() - center) / width, 50)))
        score = float(np.clip(np.where(up, high, low) + rng.normal(0, noise, n), 0, 1).mean())
        search.tell(score, n if ours else None)
    interval = search.interval()
    return search.estimate() - root, interval.low <= root <= interval.high, interval.high - interval.low, search.status


def row(kind: str, n: int, width: float, mode: str) -> dict[str, object]:
    rng = np.random.default_rng(20260206)
    found = [one(rng, width, kind, n, mode == "ours") for _ in range(LATENTS)]
    errors = np.array([f[0] for f in found])
    return {
        "scores": kind,
        "samples_per_step": n,
        "curve_width": width,
        "mode": mode,
        "bias": round(float(errors.mean()), 3),
        "rmse": round(float(np.sqrt((errors**2).mean())), 3),
        "median_abs_error": round(float(np.median(np.abs(errors))), 3),
        "coverage_95": round(float(np.mean([f[1] for f in found])), 3),
        "mean_interval_width": round(float(np.mean([f[2] for f in found])), 2),
        "status": dict(sorted(Counter(f[3] for f in found).items())),
    }


def edges() -> list[dict[str, object]]:
    out = []
    for score, mode in product((0.9, 0.15), ("reference", "ours")):
        search = Bisection(0, 100, 7, 5, TARGET)
        for _ in range(STEPS):
            search.tell(score, 5 if mode == "ours" else None)
        out.append({"constant_score": score, "mode": mode, "estimate": round(search.estimate(), 2), "status": search.status})
    return out


def main() -> None:
    started = time.perf_counter()
    rows = [row(*case) for case in product(KINDS, (1, 5), (0.3, 1.0, 2.5), ("reference", "ours"))]
    search = Bisection(0, 100, 7, 5, TARGET)
    told = time.perf_counter()
    for _ in range(100):
        search.tell(0.3, 5)
        search.ask()
    found = {
        "setting": "bounds 0 to 100, prior 7 ± 5, target 0.30, 10 steps, roots between about 2 and 16, 400 latents a row",
        "rows": rows,
        "constant_scores": edges(),
        "milliseconds_per_step": round((time.perf_counter() - told) * 10, 2),
        "seconds": round(told - started, 1),
    }
    (Path(__file__).parent.parent / "docs" / "benchmarks" / "threshold.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
