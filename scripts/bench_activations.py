"""Measures the table `activations` on 64 latents' series over 150 episodes and the 32 largest per token of 1,000 replies, 600 tokens each.

python scripts/bench_activations.py     # docs/benchmarks/activations.json
Numbers are drawn at random, so no value compresses better than real ones would.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from esr.params import HOME
from esr.store import Store

TOKENS, WIDTH, LARGEST, REPLIES, LISTED, EPISODES, BATCH = 600, 65_536, 32, 1_000, 64, 150, 20
QUESTIONS = {
    "series_of_one_latent_of_one_trial": 'select "position", "value" from token_activations where trial_id = \'episode 7\' and latent = 5',
    "mean_over_episodes_by_position": 'select latent, "position", avg("value") from token_activations where selection = \'detectors\' group by all',
    "largest_latents_over_all_replies": "select latent, count(*) as n from token_activations where selection = 'top-32' group by all order by n desc limit 20",
}


def about(trial: str, selection: str, stage: str) -> dict[str, Any]:
    return {"trial_id": trial, "model": "70b", "sae": "s", "layer": 33, "steering": "on", "stage": stage, "pooling": "token",
            "selection": selection, "n_positions": TOKENS}  # fmt: skip


def largest(rng: np.random.Generator, shares: np.ndarray, i: int) -> dict[str, Any]:
    values = -np.sort(-rng.lognormal(0, 1, (TOKENS, LARGEST)).astype(np.float32), axis=1)
    positions = np.repeat(np.arange(TOKENS, dtype=np.int32), LARGEST)
    latents = rng.choice(WIDTH, size=TOKENS * LARGEST, p=shares).astype(np.int32)
    return about(f"reply {i}", "top-32", "before") | {"latents": latents, "positions": positions, "values": values.ravel()}


def series(rng: np.random.Generator, i: int, stage: str) -> dict[str, Any]:
    """Every latent at every token: nothing is zero, which no real series reaches."""
    latents, positions = np.divmod(np.arange(LISTED * TOKENS, dtype=np.int32), TOKENS)
    values = rng.lognormal(0, 1, LISTED * TOKENS).astype(np.float32)
    lists = {"latents": latents, "positions": positions, "values": values, "listed": np.arange(LISTED, dtype=np.int32)}
    return about(f"episode {i}", "detectors", stage) | lists


def fill(store: Store) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, WIDTH + 1) ** 0.9
    shares /= shares.sum()
    found: dict[str, Any] = {}
    for name, make, n in (
        ("series_mb", lambda i: [series(rng, i, stage) for stage in ("before", "after")], EPISODES),
        ("largest_mb", lambda i: [largest(rng, shares, i)], REPLIES),
    ):
        before = size(store.root / "shards")
        for at in range(0, n, BATCH):
            store.put_activations([row for i in range(at, min(at + BATCH, n)) for row in make(i)])
        found[name] = round((size(store.root / "shards") - before) / 1e6, 1)
    return found | {"shards": sum(1 for _ in (store.root / "shards").rglob("*.parquet"))}


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def alone(root: Path, work: str) -> dict[str, float]:
    """Wall seconds and largest memory of a process that does this and nothing else."""
    done = subprocess.run([sys.executable, __file__, str(root), work], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def child(root: Path, work: str) -> None:
    store, start, cpu = Store(root), perf_counter(), process_time()
    rows = store.sql(QUESTIONS[work]).num_rows if work in QUESTIONS else store.ingest().rows if work == "ingest" else 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(
        json.dumps(
            {
                "seconds": round(perf_counter() - start, 2),
                "cpu_seconds": round(process_time() - cpu, 2),
                "peak_mib": round(peak),
                "rows": rows,
            }
        )
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found: dict[str, Any] = {
            "tokens": TOKENS,
            "replies": REPLIES,
            "largest_per_token": LARGEST,
            "episodes": EPISODES,
            "listed": LISTED,
        }
        found |= fill(Store(root))
        found["import_alone"] = alone(root, "nothing")
        found["ingest"] = alone(root, "ingest")
        found["database_mb"] = round((root / "esr.duckdb").stat().st_size / 1e6, 1)
        found |= {name: alone(root, name) for name in QUESTIONS}
        found["machine"] = {"cpus": os.cpu_count(), "system": platform.system(), "load": os.getloadavg()}
    (HOME / "docs" / "benchmarks" / "activations.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    child(Path(sys.argv[1]), sys.argv[2]) if len(sys.argv) > 1 else main()
