"""Flows over a store in a bucket: a machine that is lost with its disk is replaced by another one, and two share the work."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flow_runs import Place, summary
from s3_server import BUCKET, Server, client, running

from esr.params import HOME
from esr.remote import mirror
from esr.remote.bucket import Bucket

sys.path.insert(0, str(HOME / "scripts"))
import kill_matrix

IN_FLIGHT = kill_matrix.WORK["batch"] * kill_matrix.WORK["in_flight"] * 2
EXPERIMENT = "exp01"


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    with running() as server:
        client(server).create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> list[dict[str, Any]]:
    """What a run on one machine with a folder says."""
    return kill_matrix.uninterrupted(tmp_path_factory.mktemp("whole") / "p", EXPERIMENT, prefect_api)[0]


class Shared:
    """A study in the bucket, with a judge; each machine has a folder of its own."""

    def __init__(self, folder: Path, api: str, served: Server) -> None:
        self.round = kill_matrix.Round(folder / "p", EXPERIMENT, api)
        self.where, self.url = self.round.where, f"s3://{BUCKET}/{folder.name}"
        self.env = {**self.round.env, **served.env, "ESR_STORE": self.url}

    def mirror(self, machine: str) -> Path:
        return self.where.root / machine

    def begin(self, machine: str) -> "subprocess.Popen[str]":
        return self.where.command(*self.round.words(), **self.env, ESR_MIRROR=str(self.mirror(machine)))

    def summary(self, machine: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        """As a machine sees it that has read nothing yet."""
        for name, value in {**self.env, "ESR_MIRROR": str(self.mirror(machine))}.items():
            monkeypatch.setenv(name, value)
        mirror._open.clear()
        return summary(_At(self.where.root, self.mirror(machine)))

    def paid_twice(self) -> int:
        return sum(n - 1 for n in self.round.judge.paid().values() if n > 1)


class _At(Place):
    def __init__(self, root: Path, store: Path) -> None:
        super().__init__(root)
        object.__setattr__(self, "_store", store)

    @property
    def store(self) -> Path:
        return self._store  # type: ignore[attr-defined,no-any-return]


@pytest.fixture
def study(tmp_path: Path, prefect_api: str, served: Server) -> Iterator[Shared]:
    shared = Shared(tmp_path, prefect_api, served)
    yield shared
    shared.round.close()


@pytest.mark.slow
def test_a_machine_that_is_lost_with_its_disk_is_replaced_by_another(
    study: Shared, whole: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in study.env.items():
        monkeypatch.setenv(name, value)
    bucket = Bucket(study.url)
    process = study.begin("lost")
    until = time.monotonic() + 400
    while not bucket.objects("answers/"):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)
    process.kill()
    process.communicate()
    paid = sum(study.round.judge.paid().values())
    shutil.rmtree(study.mirror("lost"))
    kept = [gzip.decompress(bucket.read(name)).decode().splitlines() for name in bucket.objects("answers/")]
    shared = len({json.loads(line)["key"] for lines in kept for line in lines})

    said, _ = (another := study.begin("another")).communicate(timeout=800)
    assert another.returncode == 0, said
    assert study.summary("reader", monkeypatch) == whole
    assert sum(n - 1 for n in study.where.generated().values()) <= IN_FLIGHT
    assert shared > 0
    assert study.paid_twice() <= paid - shared + kill_matrix.CONCURRENCY

    asked = [sys.executable, "-m", "esr", "sql", "select count(*) as n from grades"]
    told = subprocess.run(asked, env={**os.environ, **study.where.env, **study.env}, cwd=HOME, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr


@pytest.mark.slow
def test_two_machines_share_the_work_and_pay_once(
    study: Shared, whole: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [study.begin(machine) for machine in ("one", "two")]
    said = [process.communicate(timeout=800)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert set(study.where.generated().values()) == {1}
    assert study.paid_twice() == 0
    assert study.summary("reader", monkeypatch) == whole
