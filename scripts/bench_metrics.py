"""How long the counting takes: 25,000 trials of 5 arms, every metric and every paired difference. Writes docs/benchmarks/metrics.json."""

import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd

from esr.count.metrics import KEYS, by_arm, differences


def trials(n: int, arms: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    each = n // arms
    latent = np.tile(np.repeat(np.arange(each // 5), 5), arms)
    multi = rng.random(n) < 0.074
    first, last = rng.uniform(0, 60, n), rng.uniform(0, 100, n)
    frame = pd.DataFrame(
        {
            "arm": np.repeat([f"arm-{i}" for i in range(arms)], each),
            "latent": latent,
            "question": [f"q{i % 38}" for i in range(each)] * arms,
            "seed": np.tile(np.arange(each), arms),
            "first_score": first,
            "multi": multi,
            "corrected": multi & (last > first),
            "gain": np.where(multi, last - first, 0.0),
            "degraded": rng.random(n) < 0.1,
            "n_attempts": 1 + multi,
        }
    )
    return frame.assign(**{key: "x" for key in KEYS if key != "arm"})


def main() -> None:
    rows = trials(25_000, 5)
    started, busy = time.perf_counter(), time.process_time()
    by_arm(rows)
    counted = time.perf_counter()
    baseline = rows[rows["arm"] == "arm-0"]
    for arm in range(1, 5):
        differences(rows[rows["arm"] == f"arm-{arm}"], baseline)
    ended = time.perf_counter()
    found = {
        "trials": len(rows),
        "arms": 5,
        "latents_per_arm": 1_000,
        "estimates_seconds": round(counted - started, 3),
        "four_paired_differences_seconds": round(ended - counted, 3),
        "cpu_seconds": round(time.process_time() - busy, 3),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    (Path(__file__).parent.parent / "docs" / "benchmarks" / "metrics.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
