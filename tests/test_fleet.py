"""Several processes as one engine: the same answers as one, and none lost when a process dies, hangs or is slow."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import pytest
from fleet_setup import SAMPLING, Called, gone, opened, pids, requests, small, wait_until
from flow_runs import place, summary

from esr.engine import Capture, Request, hand
from esr.engine import fleet as fleets
from esr.engine.fake import FakeEngine
from esr.engine.fleet import Fleet
from esr.engine.share import Summons, shares, workers
from esr.errors import EngineError, Halted, ParamsError, SaeError, SpecError
from esr.params import HOME
from esr.types import Op


@pytest.fixture
def delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every piece, so that each worker has some at work when something happens to it."""
    monkeypatch.setenv("ESR_FAKE_DELAY", "0.5")


def test_a_fleet_answers_as_one_engine_does_and_shares_the_work() -> None:
    alone, asked = FakeEngine(small(), "tiny"), requests(50)
    reading = Request(prompt="How?", sampling=SAMPLING, capture=Capture(layer=3, sae="tiny-l3", mode="max"))
    with opened(3) as fleet:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(fleet.generate, [asked[:8], asked[8:16], asked[16:48], asked[48:], []]))
        assert [output for some in found for output in some] == alone.generate(asked)
        assert (fleet.read([reading] * 3)[2].values == alone.read([reading])[0].values).all()
        assert fleet.render("How?") == alone.render("How?")
        assert fleet.offsets(fleet.render("How?")) == alone.offsets(alone.render("How?"))
        assert fleet.fingerprint == alone.fingerprint
        assert sum(one.done for one in fleet.seen()) == 53
        assert all(one.done > 5 for one in fleet.seen())
        ended = pids(fleet)
    assert all(map(gone, ended))
    with pytest.raises(EngineError, match="closed"):
        fleet.generate(asked)


def test_what_a_request_does_wrong_is_said_as_one_engine_says_it() -> None:
    wrong = Request(prompt="How?", sampling=SAMPLING, ops=(Op("add", 3, 1.0, 77, "tiny-l3"),))
    with opened() as fleet:
        with pytest.raises(SpecError) as told:
            fleet.generate([*requests(20), wrong])
        with pytest.raises(SpecError) as alone:
            FakeEngine(small(), "tiny").generate([wrong])
        assert str(told.value) == str(alone.value)
        assert len(fleet.generate(requests(9))) == 9


@pytest.mark.usefixtures("delay")
def test_the_work_of_a_worker_that_is_killed_goes_to_the_others_and_it_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    asked = requests(60)
    with opened() as fleet, ThreadPoolExecutor(1) as pool:
        found = pool.submit(fleet.generate, asked)
        wait_until(lambda: all(one.at_work for one in fleet.seen()))
        first = pids(fleet)[0]
        os.kill(first, signal.SIGKILL)
        assert found.result(30) == FakeEngine(small(), "tiny").generate(asked)
        assert sum(one.done for one in fleet.seen()) == 60
        wait_until(lambda: all(one.state == "open" for one in fleet.seen()))
        assert first not in pids(fleet)
    assert "worker 1 ended (signal 9); its work goes to the others" in caplog.text


@pytest.mark.usefixtures("delay")
def test_a_worker_that_hangs_holds_nobody_up_and_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "PATIENCE", 1.0)
    monkeypatch.setattr(fleets, "TIMES", 0.0)
    monkeypatch.setattr(hand, "SILENCE", 12.0)
    with opened() as fleet, ThreadPoolExecutor(1) as pool:
        found = pool.submit(fleet.generate, requests(40))
        wait_until(lambda: all(one.at_work for one in fleet.seen()))
        first, started = pids(fleet)[0], time.monotonic()
        os.kill(first, signal.SIGSTOP)
        assert len(found.result(30)) == 40
        assert time.monotonic() < started + 11
        assert first in pids(fleet)
        wait_until(lambda: first not in pids(fleet))
        assert gone(first)


@pytest.mark.usefixtures("delay")
def test_requests_that_end_every_worker_are_an_error_and_not_asked_for_ever() -> None:
    with opened() as fleet, ThreadPoolExecutor(1) as pool:
        found = pool.submit(fleet.generate, requests(2))
        for _ in range(fleets.DEATHS):
            wait_until(lambda: any(one.at_work for one in fleet.seen()) or found.done())
            killed = next(one.pid for one in fleet.seen() if one.at_work)
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda killed=killed: killed not in pids(fleet))
        with pytest.raises(EngineError, match="2 others before it with the same requests at work"):
            found.result(30)


@pytest.mark.usefixtures("delay")
def test_what_had_finished_comes_along_when_a_fleet_is_halted() -> None:
    with opened() as fleet, ThreadPoolExecutor(1) as pool:
        found = pool.submit(fleet.generate, requests(200))
        wait_until(lambda: sum(one.done for one in fleet.seen()) > 20)
        fleet.halt()
        with pytest.raises(Halted) as halted:
            found.result(20)
        assert 20 < len(halted.value.finished) < 200
        assert halted.value.finished[0] == FakeEngine(small(), "tiny").generate(requests(1))[0]
        with pytest.raises(Halted):
            fleet.generate(requests(3))


def test_an_engine_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    params, labels = small(), tmp_path / "labels.csv"
    labels.write_text("index_in_sae,label\nnone,bread\n")
    bad = params.saes["tiny-l3"].model_copy(update={"labels": str(labels)})
    params = params.model_copy(update={"saes": {**params.saes, "tiny-l3": bad}})
    with pytest.raises(SaeError) as alone:
        FakeEngine(params, "tiny")
    with pytest.raises(EngineError) as told:
        Fleet(2, params, "tiny", "fake", True, {})
    assert str(told.value) == str(alone.value)


@pytest.mark.usefixtures("delay")
def test_workers_of_a_pool_join_and_one_that_dies_is_called_anew() -> None:
    called, asked = Called(), requests(60)
    fleet = Fleet(2, small(), "tiny", "fake", True, {}, Summons("p", "127.0.0.1", called))
    try:
        wait_until(lambda: [one.state for one in fleet.seen()] == ["open", "open"])
        host, _, port = called.address.rpartition(":")
        with pytest.raises(AuthenticationError):
            Client((host, int(port)), authkey=b"guessed")
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(fleet.generate, asked)
            wait_until(lambda: all(one.at_work for one in fleet.seen()))
            called.processes[0].kill()
            assert found.result(30) == FakeEngine(small(), "tiny").generate(asked)
        wait_until(lambda: len(called.processes) == 3 and [one.state for one in fleet.seen()] == ["open", "open"])
    finally:
        fleet.close()
    assert [process.wait(20) for process in called.processes] == [-signal.SIGKILL, 0, 0]


PARENT = """
import time
from esr.engine.fleet import Fleet
from esr.params import load
fleet = Fleet(2, load("tiny"), "tiny", "fake", True, {})
while any(one.state != "open" for one in fleet.seen()):
    time.sleep(0.05)
print(*[one.pid for one in fleet.seen()], flush=True)
time.sleep(60)
"""


def test_workers_end_with_the_process_that_asks_them_and_load_no_more_than_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)  # what vLLM leaves where another file's test has built its configuration
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=HOME)
    assert parent.stdout
    found = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(found) == 2
    maps = Path(f"/proc/{found[0]}/maps").read_text()
    assert "numpy" in maps
    assert not [name for name in ("torch", "duckdb", "pyarrow", "scipy") if f"/{name}/" in maps]
    parent.kill()
    parent.communicate()
    wait_until(lambda: all(map(gone, found)))


def test_each_worker_has_gpus_of_its_own_or_a_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert [one.env["CUDA_VISIBLE_DEVICES"] for one in shares(2, 2, "vllm")] == ["4,5", "6,7"]
    with pytest.raises(EngineError, match="3 workers of 2 GPUs each were asked for and this machine has 4; --workers 2 would do"):
        shares(3, 2, "vllm")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3, 8})
    assert [(one.cores, one.env) for one in shares(2, 1, "vllm")] == [
        ("0,1", {"OMP_NUM_THREADS": "2"}),
        ("2,3", {"OMP_NUM_THREADS": "2"}),
    ]
    with pytest.raises(EngineError, match="--workers 5 would do"):
        shares(6, 1, "vllm")
    monkeypatch.setenv("ESR_WORKERS", "two")
    with pytest.raises(ParamsError, match="'two' workers were asked for"):
        workers()


@pytest.mark.slow
def test_a_run_with_workers_of_which_one_is_killed_ends_as_one_without(tmp_path: Path, prefect_api: str) -> None:
    plain, spread = place(tmp_path / "plain"), place(tmp_path / "spread")
    code, said = plain.run("exp01", "tiny", "--scale", "smoke", PREFECT_API_URL=prefect_api)
    assert code == 0, said
    process = spread.command(
        "exp01", "tiny", "--scale", "smoke", "--workers", "2", ESR_FAKE_DELAY="0.2", PREFECT_API_URL=prefect_api
    )
    wait_until(spread.log.exists, 300)
    listed = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "esr.engine.worker"], capture_output=True, text=True)
    killed = int(listed.stdout.split()[0])
    os.kill(killed, signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "note: worker" in said
    assert summary(spread) == summary(plain)
    assert set(spread.generated()) == set(plain.generated())


@pytest.mark.slow
def test_a_run_takes_its_engines_from_the_workers_of_a_pool(tmp_path: Path, prefect_api: str) -> None:
    where, prefect, pool = place(tmp_path), str(Path(sys.executable).parent / "prefect"), "engines-of-test"
    env = {**os.environ, **where.env, "PREFECT_API_URL": prefect_api, "PREFECT_WORKER_QUERY_SECONDS": "2"}
    code, said = where.run("exp01", "tiny", "--scale", "smoke", "--pool", pool, PREFECT_API_URL=prefect_api)
    assert code == 2
    assert f"no worker of the pool '{pool}' takes runs" in said.splitlines()[-1]
    with (tmp_path / "worker.log").open("w") as log:
        quiet: dict[str, Any] = {"env": env, "cwd": HOME, "stdout": log, "stderr": log}
        subprocess.run([prefect, "work-pool", "create", pool, "--type", "process"], check=True, **quiet)
        subprocess.run(
            [prefect, "--no-prompt", "deploy", "flows/engine.py:engine", "--name", pool, "--pool", pool], check=True, **quiet
        )
        worker = subprocess.Popen([prefect, "worker", "start", "--pool", pool, "--limit", "2"], start_new_session=True, **quiet)
        try:
            wait_until(lambda: "started" in (tmp_path / "worker.log").read_text(), 120)
            words = ("exp01", "tiny", "--scale", "smoke", "--workers", "2", "--pool", pool)
            code, said = where.run(*words, PREFECT_API_URL=prefect_api)
        finally:
            os.killpg(worker.pid, signal.SIGKILL)  # told to end, Prefect's worker sometimes waits for ever
            worker.wait()
    assert code == 0, said + (tmp_path / "worker.log").read_text()
    assert "exp01/baseline" in said
    assert set(where.generated().values()) == {1}
