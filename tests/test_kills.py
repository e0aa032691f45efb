"""Runs that are killed and resumed end as if nobody had; scripts/kill_matrix.py does the same at many more moments."""

import random
import sys
from pathlib import Path
from typing import Any

import pytest
from flow_runs import place, summary

from esr.params import HOME

sys.path.insert(0, str(HOME / "scripts"))
import kill_matrix

SEED = 7
IN_FLIGHT = kill_matrix.WORK["batch"] * kill_matrix.WORK["in_flight"] * 2
"""Trials in flight at most: two shards or searches, each with so many batches."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> tuple[list[dict[str, Any]], float]:
    return kill_matrix.uninterrupted(tmp_path_factory.mktemp("whole") / "p", "exp10", "tiny", prefect_api)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flow", "worker", "judge"])
def test_a_killed_run_resumes_to_the_same_summary(
    kind: str, whole: tuple[list[dict[str, Any]], float], tmp_path: Path, prefect_api: str
) -> None:
    expected, seconds = whole
    after = random.Random(f"{SEED}/{kind}").uniform(0.4, 0.9) * seconds
    found = kill_matrix.one(tmp_path / "p", "exp10", "tiny", prefect_api, kind, after, expected)
    assert found["resumed_exit"] == 0, found["said"]
    assert found["summary_equal"]
    assert found["generated_twice"] <= IN_FLIGHT
    assert found["paid_twice"] <= kill_matrix.CONCURRENCY


@pytest.mark.slow
def test_two_runs_on_one_store_share_the_work(tmp_path: Path, prefect_api: str) -> None:
    where = place(tmp_path / "two")
    env = {"PREFECT_API_URL": prefect_api, "ESR_FAKE_DELAY": "0.1"}
    both = [where.command(name, "tiny", "--scale", "smoke", **env) for name in ("exp03", "exp08")]
    said = [process.communicate(timeout=800)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert set(where.generated().values()) == {1}
    apart = place(tmp_path / "apart")
    for name in ("exp03", "exp08"):
        assert apart.run(name, "tiny", "--scale", "smoke", PREFECT_API_URL=prefect_api)[0] == 0
    assert summary(where) == summary(apart)
