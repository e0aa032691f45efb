"""Runs of flows for tests: the fake engine, small params, a store of their own."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from esr.params import HOME
from esr.params.places import experiments

LATENTS = 6
EXPERIMENTS = tuple(experiments())
SMOKE: dict[str, Any] = {
    "protocol": {"search_steps": 3, "samples_per_step": 2, "verify_samples": 1},
    "work": {"shard": 12, "judge_shard": 12, "calibrate_shard": 3, "batch": 4, "in_flight": 2},
    "exp01": {"latents": LATENTS, "trials_per_latent": 6},
    "exp02": {"latents": 3, "trials_per_latent": 3, "levels": 3, "relative": [0.5, 1.0]},
    "exp03": {"derangements": 2, "active": 1e-8, "mismatched_share": 0.8, "matched_share": 0.0},
    "exp04": {"ratios": [10, 50], "seeds": [1], "steered": [50], "told": [50], "latents": 2, "trials_per_latent": 3},
    "exp05": {"variants": ["self_monitor", "stay_on_topic"]},
    "exp07": {"size": 30},
    "exp06": {"examples": 2},
    "exp09": {"max_episodes": 20, "contrast_active": 1e-8, "window": 20, "soon": 4, "hold": 2, "lead": 12},
    "exp10": {"sets": 1, "matchings": ["matched", "uniform"]},
    "exp11": {"characters": 30, "multiples": [1, 2], "first_score_below": 50.0, "per_latent": 3},
    "exp12": {"tokens": 6, "draws": 1, "per_latent": 3},
    "exp13": {"directions": 4, "trials_per_direction": 3, "relative": [0.5, 1.5]},
    "exp14": {"per_latent": 2},
}


@dataclass(frozen=True)
class Place:
    """A folder with params, a store and a log of what the engine generated."""

    root: Path

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def log(self) -> Path:
        return self.root / "generated.jsonl"

    @property
    def env(self) -> dict[str, str]:
        return {
            "ESR_STORE": str(self.store),
            "ESR_PARAMS": str(self.root / "params.yaml"),
            "ESR_ENGINE": "fake",
            "ESR_FAKE_LOG": str(self.log),
        }

    def generated(self) -> Counter[str]:
        """How often each request was generated."""
        return Counter(self.log.read_text().splitlines()) if self.log.exists() else Counter()

    def command(self, *words: str, **env: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "flows", *words],
            cwd=HOME,
            env={**os.environ, **self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextmanager
    def prefect(self, api: str) -> Iterator[None]:
        """This process runs flows here, on the Prefect server at `api`; afterwards its environment is what it was."""
        before = dict(os.environ)
        os.environ.update(self.env, PREFECT_LOGGING_LEVEL="ERROR")
        try:
            from prefect.settings import PREFECT_API_URL, temporary_settings

            with temporary_settings({PREFECT_API_URL: api}):
                yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def run(self, *words: str, **env: str) -> tuple[int, str]:
        process = self.command(*words, **env)
        said, _ = process.communicate(timeout=800)
        return process.returncode, said


def place(root: Path, judges: dict[str, dict[str, Any]] | None = None, *, once: bool = False, fake: bool = True) -> Place:
    """Params as shipped but for small smoke counts and, with `fake`, labels of the fake latents' subjects.

    `once`: as they were the first time.
    """
    if once and (root / "params.yaml").is_file():
        return Place(root)
    root.mkdir(parents=True, exist_ok=True)
    tree = yaml.safe_load((HOME / "params.yaml").read_text())
    subjects = [line.split("\t")[0] for line in (HOME / "esr/organism/data/subjects.tsv").read_text().splitlines()[1:]]
    with (root / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["index_in_sae", "label"])
        rows.writerows((5 * i + 3, subjects[i % len(subjects)]) for i in range(400))
    if fake:
        tree["saes"]["tiny-l3"]["labels"] = str(root / "labels.csv")
    tree["scales"]["smoke"] = SMOKE | {
        "exp03": SMOKE["exp03"] | {"matched_share": 0.05}
    }  # of `tiny-plain`'s eighty pairs one is noise
    for name, change in (judges or {}).items():
        tree["judges"][name].update(change)
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return Place(root)


def kept(store: Path) -> int:
    """Replies in a store's shards."""
    from pyarrow import parquet

    return sum(parquet.read_metadata(file).num_rows for file in store.glob("shards/replies/*.parquet"))


def summary(where: Place) -> list[dict[str, Any]]:
    """The view, without what is allowed to differ between two runs."""
    from esr.store import Store

    rows = Store(where.store).sql("select * from summary order by experiment, model, arm, judge, scale").to_pylist()
    told: list[dict[str, Any]] = json.loads(json.dumps(rows, default=str))
    return [
        {k: round(v, 9) if isinstance(v, float) else v for k, v in row.items()} for row in told
    ]  # a sum's last digit is its order's
