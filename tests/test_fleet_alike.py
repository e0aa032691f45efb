"""Workers of one fleet answer alike, or are given up: another engine, other weights, other directions under the same name."""

import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fleet_setup import Called, gone, opened, pids, requests, small, wait_until
from safetensors.numpy import save_file

from esr.engine import alike, worker
from esr.engine.directions import read_directions
from esr.engine.fake import FakeEngine
from esr.engine.fleet import Fleet
from esr.engine.share import Summons
from esr.errors import EngineError
from esr.params.weights import identity

OTHER = """
from esr.engine import worker

tell = worker.Worker.tell

def told(self, what, *rest):
    if what == "opened":
        fingerprint, weights = rest
        rest = {opened}
    tell(self, what, *rest)

worker.Worker.tell = told
worker.main()
"""
"""A worker whose engine is another one by what it says as it opens."""


@pytest.mark.parametrize(
    ("says", "differs"),
    [
        (
            '(fingerprint | {"sae": "5ae", "esr_version": "0.0.0"}, weights)',
            r"esr_version is 0\.0\.0 and not [\d.]+\S*, sae is 5ae and not \w+",
        ),
        ('(fingerprint | {"extra": "1"}, weights)', "extra is 1 and not missing"),
        ('(fingerprint, "models/tiny@other")', "weights is models/tiny@other and not "),
    ],
)
def test_a_worker_with_another_engine_gets_no_work_and_the_others_go_on(
    says: str, differs: str, caplog: pytest.LogCaptureFixture
) -> None:
    called, alone = Called(OTHER.replace("{opened}", says)), FakeEngine(small(), "tiny")
    fleet = Fleet(2, small(), "tiny", "fake", True, {}, Summons("p", "127.0.0.1", called))
    try:
        called.open.set()
        wait_until(lambda: [one.state for one in fleet.seen()] == ["open", "gone"])
        assert fleet.generate(requests(40)) == alone.generate(requests(40))
        assert [one.done for one in fleet.seen()] == [40, 0]
        assert fleet.fingerprint == alone.fingerprint
        assert called.processes[0].poll() is None
        assert called.processes[1].wait(20) == -signal.SIGKILL, "it ends itself"
        assert len(called.processes) == 2, "it would be refused again"
    finally:
        fleet.close()
    assert re.search(f"worker 2 is given up: worker 2 has another engine than the first that was open: {differs}", caplog.text)


def test_where_only_workers_with_another_engine_are_left_it_is_an_error_that_says_in_what_they_differ() -> None:
    called = Called(OTHER.replace("{opened}", '(fingerprint | {"sae": "5ae"}, weights)'))
    fleet = Fleet(1, small(), "tiny", "fake", True, {}, Summons("p", "127.0.0.1", called))
    try:
        called.open.set()
        called.processes[0].kill()
        wait_until(lambda: len(called.processes) == 2 and called.processes[1].poll() is not None)
        with pytest.raises(EngineError, match="another engine than the first that was open: sae is 5ae and not"):
            fleet.generate(requests(4))
        assert fleet.closed
    finally:
        fleet.close()


def test_sae_folders_may_lie_elsewhere_on_another_machine() -> None:
    plain = {"model": "m", "sites": "1234", "sae/a": "5ae"}
    assert not alike.other_engine(2, plain | {"sites": "5678"}, plain)
    assert alike.other_engine(2, plain | {"sae/a": "0"}, plain).endswith(": sae/a is 0 and not 5ae")


def test_a_worker_says_by_their_content_what_weights_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr(worker, "alone", lambda params, model, *_: FakeEngine(params, model))
    line: Any = SimpleNamespace(send=said.append)
    worker.Worker(line).open(small(), "tiny", "hf", True, {})
    assert said == [("opened", FakeEngine(small(), "tiny").fingerprint, identity(small(), "tiny"))]


def moods(file: Path, value: float = 1.0) -> Path:
    save_file({"layer.3": np.full((1, small().model("tiny").width), value, np.float32)}, file)
    return file


@pytest.mark.parametrize("how", ["overwritten", "removed"])
def test_a_worker_that_finds_other_directions_than_the_others_have_is_given_up(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = moods(tmp_path / "moods.safetensors")
    with opened() as fleet:
        sha256 = fleet.load_directions("moods", file)
        moods(file, 2.0) if how == "overwritten" else file.unlink()
        os.kill(pids(fleet)[0], signal.SIGKILL)
        wait_until(lambda: fleet.seen()[0].state == "gone" and "is given up" in caplog.text)
        assert fleet.generate(requests(40)) == FakeEngine(small(), "tiny").generate(requests(40))
        assert fleet.seen()[0].state == "gone"
        assert gone(pids(fleet)[0])
        assert fleet.load_directions("moods", moods(file)) == sha256
    told = {
        "overwritten": f"worker 1 read other directions 'moods' than the others have: [0-9a-f]{{16}} and not {sha256[:16]};",
        "removed": "worker 1 cannot load the directions 'moods' that the others have: directions 'moods': no file",
    }
    assert re.search(f"worker 1 is given up: {told[how]}", caplog.text)


ASTRAY = """
from esr.engine import worker
from esr.engine.fake import FakeEngine

plain = FakeEngine.load_directions
FakeEngine.load_directions = lambda engine, name, path, layer=None: plain(engine, name, path.with_name("{file}"), layer)
worker.main()
"""
"""A worker of a machine that has another file in this place."""


@pytest.mark.parametrize(
    ("has", "told"), [("other.safetensors", "read other directions 'moods'"), ("none.safetensors", "cannot load .* no file")]
)
def test_a_worker_of_a_machine_with_another_file_of_directions_is_given_up(
    has: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = moods(tmp_path / "moods.safetensors")
    moods(tmp_path / "other.safetensors", 2.0)
    called = Called(ASTRAY.replace("{file}", has))
    fleet = Fleet(2, small(), "tiny", "fake", True, {}, Summons("p", "127.0.0.1", called))
    try:
        called.open.set()
        wait_until(lambda: [one.state for one in fleet.seen()] == ["open", "open"])
        assert fleet.load_directions("moods", file) == read_directions("moods", file).shape.sha256
        assert fleet.generate(requests(40)) == FakeEngine(small(), "tiny").generate(requests(40))
        assert [one.done for one in fleet.seen()] == [40, 0]
        wait_until(lambda: [one.state for one in fleet.seen()] == ["open", "gone"])
    finally:
        fleet.close()
    assert re.search(f"worker 2 is given up: worker 2 {told}", caplog.text)


def test_a_worker_that_comes_later_and_finds_the_same_directions_goes_on_and_none_wait_for_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = moods(tmp_path / "moods.safetensors")
    with opened(1) as fleet:
        sha256 = fleet.load_directions("moods", file)
        with pytest.raises(EngineError, match="no file"):
            fleet.load_directions("mistaken", tmp_path / "nowhere.safetensors")
        first = pids(fleet)[0]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: fleet.seen()[0].state == "opens")
        assert fleet.load_directions("moods", file) == sha256
        assert fleet.generate(requests(9)) == FakeEngine(small(), "tiny").generate(requests(9))
        assert [(one.state, one.pid == first) for one in fleet.seen()] == [("open", False)]
        assert fleet.fingerprint == FakeEngine(small(), "tiny").fingerprint
    assert "given up" not in caplog.text
    with pytest.raises(EngineError, match="closed"):
        fleet.load_directions("moods", file)
