"""Killed at any moment: what was answered is never asked again, and every reply ends graded or missing with its reason."""

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from judge_server import Provider, Schedule, named
from judge_setup import KEY, asked_after, child, forked, grade_on_a_full_disk, killed_among_batches, on_disk, paid_twice, params_at

from esr.errors import StoreError
from esr.judge.providers.answers import Answers
from esr.judge.providers.writer import commit, connect

REASONS = {None, "refused", "malformed", "truncated", "unreachable"}


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Provider]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ESR_LIMITS", str(tmp_path / "limits"))
    server = Provider(schedule=Schedule(latency=0.08, jitter=0.05)).start()
    yield server
    server.stop()


def killed(process: Any, provider: Provider, answers: int, limit: float = 60.0) -> float:
    """SIGKILL once that many further requests came in; the moment of it."""
    before, deadline = len(provider.requests), time.time() + limit
    while len(provider.requests) < before + answers and time.time() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    return time.time()


@pytest.mark.parametrize("mode", ["live", "batch"])
def test_a_killed_run_asks_nothing_that_was_answered(mode: str, provider: Provider, tmp_path: Path) -> None:
    n = 400
    provider.schedule.faults = 0.2
    provider.schedule.batch_seconds = 0.6
    provider.schedule.retry_after = 0.1
    params = params_at(provider.url, judging={"mode": mode}, concurrency=32)
    rng = random.Random(mode)
    for _ in range(6 if mode == "live" else 2):
        process = child(params, "haiku-4.5", tmp_path, n)
        moment = killed(process, provider, rng.randint(1, 60) if mode == "live" else 1)
        time.sleep(0.15)  # what the server still sends to the dead is logged
        kept = on_disk(tmp_path)
        process = child(params, "haiku-4.5", tmp_path, n)
        again = killed(process, provider, rng.randint(1, 60) if mode == "live" else 1)
        assert not kept & (asked_after(provider, moment) - asked_after(provider, again))
    out = tmp_path / "out.json"
    process = child(params, "haiku-4.5", tmp_path, n, out)
    process.join(120)
    grades = json.loads(out.read_text())["grades"]
    assert len(grades) == n
    assert {grade["missing"] for grade in grades} <= REASONS
    assert sum(grade["missing"] is None for grade in grades) > 0.9 * n
    assert all((grade["attempts"] > 0) == (grade["missing"] is None) for grade in grades)
    if mode == "live":  # only what was on the wire at one of the kills
        assert sum(times - 1 for times in provider.answered().values()) <= 32 * 12
    else:
        handed = [named(item["params"]["messages"]) for batch in provider.batches.values() for item in batch["requests"]]
        assert len(handed) == len(set(handed)), "no question is part of two batches"
        assert not [entry for entry in provider.requests if entry["path"] == "/v1/messages"]


def test_a_batch_whose_receipt_was_never_seen_is_found_again(provider: Provider, tmp_path: Path) -> None:
    import sqlite3

    provider.schedule.batch_seconds = 1.0
    params = params_at(provider.url, judging={"mode": "batch"})
    killed(child(params, "haiku-4.5", tmp_path, 20), provider, 1)
    db = sqlite3.connect(tmp_path / "answers.sqlite")
    db.execute("UPDATE batches SET provider_id = NULL")
    db.commit()
    db.close()
    out = tmp_path / "out.json"
    child(params, "haiku-4.5", tmp_path, 20, out).join(120)
    assert {grade["missing"] for grade in json.loads(out.read_text())["grades"]} == {None}
    assert len(provider.batches) == 1


@pytest.mark.slow
def test_killed_among_equal_batches_whose_receipts_are_lost_nothing_is_paid_twice(provider: Provider, tmp_path: Path) -> None:
    provider.schedule.receipts = 0.5
    provider.schedule.batch_seconds = 1.5
    params, out = params_at(provider.url, judging={"mode": "batch"}), tmp_path / "out.json"
    n = killed_among_batches(provider, params, tmp_path / "store", out, kills=5, size=30, rng=random.Random(5))
    grades = json.loads(out.read_text())["grades"]
    assert len(grades) == n
    assert {grade["missing"] for grade in grades} == {None}
    assert paid_twice(provider) == []


def test_two_processes_share_the_work_and_ask_everything_once(provider: Provider, tmp_path: Path) -> None:
    params = params_at(provider.url, concurrency=8)
    outs = [tmp_path / "a.json", tmp_path / "b.json"]
    for process in [child(params, "haiku-4.5", tmp_path, 200, out) for out in outs]:
        process.join(120)
    graded = [json.loads(out.read_text()) for out in outs]
    assert graded[0]["grades"] == graded[1]["grades"]
    assert sum(one["calls"] for one in graded) == 200 == len(provider.requests)
    assert min(one["calls"] for one in graded) > 20
    assert provider.most_flying <= 8


def test_a_dead_process_holds_nothing(provider: Provider, tmp_path: Path) -> None:
    provider.schedule.latency = 3.0
    params = params_at(provider.url, concurrency=4)
    killed(child(params, "haiku-4.5", tmp_path, 4), provider, 0, limit=0)
    process = child(params, "haiku-4.5", tmp_path, 4)
    time.sleep(1.5)
    process.kill()
    process.join()
    provider.schedule.latency = 0.0
    began, out = time.time(), tmp_path / "out.json"
    child(params, "haiku-4.5", tmp_path, 4, out).join(120)
    assert {grade["missing"] for grade in json.loads(out.read_text())["grades"]} == {None}
    assert time.time() - began < 60.0, "nobody waits for the end of a lease"


def test_a_failed_write_for_somebody_who_has_left_is_told_to_the_others(tmp_path: Path) -> None:
    answers = Answers(tmp_path)
    gone: Future[object] = Future()
    gone.cancel()
    stays: Future[object] = Future()
    db = connect(answers.path)
    commit(db, [(lambda db: db.execute("nonsense"), gone), (lambda db: db.execute("nonsense"), stays)], answers.path)
    assert isinstance(stays.exception(timeout=1), StoreError)
    commit(db, [(lambda db: db.execute("SELECT 1").fetchone(), left := Future())], answers.path)
    assert left.result(timeout=1) == (1,)
    db.close()
    answers.close()


def test_a_full_disk_stops_the_paying_and_loses_nothing(provider: Provider, tmp_path: Path) -> None:
    store, said = tmp_path / "store", tmp_path / "said.txt"
    params = params_at(provider.url, concurrency=4)
    full = forked(grade_on_a_full_disk, params, "haiku-4.5", store, 400, said, 200_000)
    full.start()
    full.join(120)
    assert said.read_text().startswith("StoreError: the judges' answers cannot be written")
    kept = on_disk(store)
    assert 0 < len(kept) < 300
    assert len(provider.requests) <= len(kept) + 2 * 4
    out, moment = tmp_path / "out.json", time.time()
    child(params_at(provider.url), "haiku-4.5", store, 400, out).join(120)
    assert {grade["missing"] for grade in json.loads(out.read_text())["grades"]} == {None}
    assert not kept & asked_after(provider, moment)
