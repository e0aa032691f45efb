"""Stores from before a trial's meaning was recorded: what is proved stays and is counted on, the rest stays and is said."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from esr.params import HOME
from esr.store import Store
from esr.study import older
from esr.study.study import Study

PACKED = Path(__file__).parent / "data" / "store-version-2.zip"
COLUMNS = "experiment, arm, judge, scale, latent, question, seed, boost, threshold, n_attempts, first_score, last_score, multi, corrected, degraded, gain"


@pytest.fixture
def old(tmp_path: Path) -> Store:
    with zipfile.ZipFile(PACKED) as packed:
        packed.extractall(tmp_path)
    return Store(tmp_path)


def study(store: Store, **changes: object) -> Study:
    found = Study.of("tiny", "smoke", store)
    params = found.params
    for name, value in changes.items():
        if name in ("repo",):
            params = params.model_copy(update={"saes": {**params.saes, "tiny-l3": params.sae("tiny-l3").model_copy(update={name: value})}})
        else:
            model = params.model("tiny").model_copy(update={name: value})
            params = params.model_copy(update={"models": {**params.models, "tiny": model}})
    return replace(found, params=params)


def outcomes(store: Store) -> list[dict[str, object]]:
    return store.sql(f"select {COLUMNS} from outcomes order by all").to_pylist()


def shuffled(into: Path) -> Path:
    """The shipped SAE with its decoder rows in another order."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(HOME / "esr/organism/data/sae", into)
    weights = load_file(into / "sae_weights.safetensors")
    weights["W_dec"] = weights["W_dec"].flip(0).contiguous()
    save_file(weights, into / "sae_weights.safetensors")
    return into


def test_proved(old: Store) -> None:
    s = study(old)
    print(old.sql("select weights, count(*) from trials group by all").to_pylist())
    print([json.loads(x)["sae"] for x in old.sql("select manifest from runs")["manifest"].to_pylist()])
    print(s.meaning, s.weights)
    print(older.sorted_out(s, thorough=True)[1])
    assert 0
