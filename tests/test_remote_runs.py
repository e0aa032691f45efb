"""Flows over a store in a bucket: a machine that is lost with its disk is replaced by another one, and two share the work."""

import gzip
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flow_runs import Place, summary
from s3_server import Server

from esr.params import HOME
from esr.remote import mirror
from esr.remote.bucket import Bucket

sys.path.insert(0, str(HOME / "scripts"))
import kill_matrix

IN_FLIGHT = kill_matrix.WORK["batch"] * kill_matrix.WORK["in_flight"] * 2
EXPERIMENT = "exp01"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> list[dict[str, Any]]:
    """What a run on one machine with a folder says."""
    return kill_matrix.uninterrupted(tmp_path_factory.mktemp("whole") / "p", EXPERIMENT, "tiny", prefect_api)[0]


@pytest.fixture
def study(tmp_path: Path, prefect_api: str, served: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[kill_matrix.Round]:
    """In a bucket, with a judge; this process sees the bucket too."""
    one = kill_matrix.Round(tmp_path / "p", EXPERIMENT, "tiny", prefect_api, bucket=served)
    for name, value in {**served.env, "ESR_STORE": one.url}.items():
        monkeypatch.setenv(name, value)
    yield one
    one.close()


def read_anew(study: kill_matrix.Round, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The summary, on a machine that has read nothing yet."""
    where = Place(study.where.root / "reader")
    monkeypatch.setenv("ESR_MIRROR", str(where.store))
    mirror._open.clear()
    return summary(where)


@pytest.mark.slow
def test_a_machine_that_is_lost_with_its_disk_is_replaced_by_another(
    study: kill_matrix.Round, whole: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(study.url)
    process = study.where.command(*study.words(), **study.env)
    until = time.monotonic() + 400
    while not bucket.objects("answers/"):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)
    process.kill()
    process.communicate()
    paid = sum(study.judge.paid().values())
    shutil.rmtree(study.where.store)
    kept = [gzip.decompress(bucket.read(name)).decode().splitlines() for name in bucket.objects("answers/")]
    shared = len({json.loads(line)["key"] for lines in kept for line in lines})

    code, said = study.finish()
    assert code == 0, said
    assert read_anew(study, monkeypatch) == whole
    assert sum(n - 1 for n in study.where.generated().values()) <= IN_FLIGHT
    assert shared > 0
    assert sum(n - 1 for n in study.judge.paid().values()) <= paid - shared + kill_matrix.CONCURRENCY


@pytest.mark.slow
def test_two_machines_share_the_work_and_pay_once(
    study: kill_matrix.Round, whole: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [
        study.where.command(*study.words(), **{**study.env, "ESR_MIRROR": str(study.where.root / machine)})
        for machine in ("one", "two")
    ]
    said = [process.communicate(timeout=800)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert set(study.where.generated().values()) == {1}
    assert set(study.judge.paid().values()) == {1}
    assert read_anew(study, monkeypatch) == whole
