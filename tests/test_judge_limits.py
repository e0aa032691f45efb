"""Limits hold and are reached, in one process and over two."""

import errno
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from judge_server import Provider, Schedule
from judge_setup import KEY, child, opened, params_at, questions

from esr.errors import JudgeError
from esr.judge.providers.limits import Limits


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Provider]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ESR_LIMITS", str(tmp_path / "limits"))
    server = Provider(schedule=Schedule(latency=0.3)).start()
    yield server
    server.stop()


def rate(provider: Provider, low: float = 0.0, high: float = float("inf")) -> float:
    """Starts a second, as the provider saw them, without the first and the last half second."""
    every = [entry["at"] for entry in provider.requests]
    low, high = max(low, min(every)) + 0.5, min(high, max(every)) - 0.5
    starts = [at for at in every if low < at < high]
    return (len(starts) - 1) / (max(starts) - min(starts))


@pytest.mark.quiet
def test_a_hundred_parallel_calls_keep_the_limit_and_reach_it(provider: Provider, tmp_path: Path) -> None:
    judge = opened(params_at(provider.url, concurrency=100, per_minute=1800), "haiku-4.5", store=tmp_path)
    judge.grades(questions(270))
    judge.close()
    assert 0.95 * 30 <= rate(provider) <= 1.05 * 30


@pytest.mark.quiet
def test_two_processes_together_keep_the_limit_and_reach_it(provider: Provider, tmp_path: Path) -> None:
    params = params_at(provider.url, concurrency=100, per_minute=1800)
    outs = [tmp_path / "a.json", tmp_path / "b.json"]
    processes = [
        child(params, "haiku-4.5", tmp_path / name, 180, out, first)
        for name, out, first in zip("ab", outs, (0, 10_000), strict=True)
    ]
    for process in processes:
        process.join(60)
    ran = [json.loads(out.read_text()) for out in outs]
    together = rate(provider, max(one["began"] for one in ran), min(one["ended"] for one in ran))
    assert 0.95 * 30 <= together <= 1.05 * 30
    assert {grade["missing"] for one in ran for grade in one["grades"]} == {None}


@pytest.mark.quiet
def test_no_more_calls_fly_than_allowed(provider: Provider, tmp_path: Path) -> None:
    judge = opened(params_at(provider.url, concurrency=5), "haiku-4.5", store=tmp_path)
    began = time.monotonic()
    judge.grades(questions(20))
    judge.close()
    assert provider.most_flying == 5
    assert 1.2 <= time.monotonic() - began < 5  # one after the other: 6


def test_a_storm_of_refusals_ends_with_every_grade(provider: Provider, tmp_path: Path) -> None:
    provider.schedule = Schedule(latency=0.02, faults=0.3, kinds=("429", "429-after"), retry_after=0.2)
    judge = opened(params_at(provider.url, judging={"attempts": 10}), "haiku-4.5", store=tmp_path)
    assert {grade.missing for grade in judge.grades(questions(200))} == {None}
    judge.close()
    assert len(provider.requests) <= 1.6 * 200


def test_a_provider_whose_limit_is_lower_than_ours_is_not_given_up(provider: Provider, tmp_path: Path) -> None:
    provider.schedule = Schedule(latency=0.05, limit=25)
    judge = opened(params_at(provider.url, judging={"attempts": 4}), "haiku-4.5", store=tmp_path)
    assert {grade.missing for grade in judge.grades(questions(150))} == {None}
    judge.close()
    assert len(provider.requests) < 2 * 150  # found out, not told: some calls are refused on the way there


def test_too_many_refusals_alone_end_it(provider: Provider, tmp_path: Path) -> None:
    provider.schedule = Schedule(faults=1.0, kinds=("429",))
    judge = opened(params_at(provider.url, judging={"attempts": 2}), "haiku-4.5", store=tmp_path)
    assert judge.grades(questions(1))[0].missing == "unreachable"
    assert len(provider.requests) == 2
    judge.close()


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of everybody's, as /tmp is; the folder that the limits would be kept in."""
    monkeypatch.delenv("ESR_LIMITS", raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    return tmp_path / f"esr-limits-{os.getuid()}"


def test_limits_are_kept_in_a_folder_of_ones_own(shared: Path) -> None:
    Limits("p", 2, 60).close()
    assert stat.S_IMODE(shared.stat().st_mode) == 0o700
    Limits("p", 2, 60).close()


@pytest.mark.parametrize("trap", ["link", "file", "open to others", "of another"])
def test_a_folder_of_somebody_elses_is_refused(trap: str, shared: Path) -> None:
    if trap == "link":
        (shared.parent / "victim").mkdir()
        shared.symlink_to(shared.parent / "victim")
    elif trap == "file":
        shared.write_text("")
    else:
        shared.mkdir()
        if trap == "of another":
            if os.getuid() != 0:
                pytest.skip("only root gives a folder away")
            os.chown(shared, 12345, 12345)
        else:
            shared.chmod(0o777)
    with pytest.raises(JudgeError, match=r"is not a folder that only you can write.*set ESR_LIMITS"):
        Limits("p", 2, 60)
    assert not [file for file in shared.parent.rglob("*") if file.name.endswith("clock")]


@pytest.mark.parametrize("named", ["a file", "below a file", "no such place", "too long"])
def test_a_folder_that_cannot_be_had_is_one_sentence(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("precious words")
    where = {"a file": file, "below a file": file / "x", "no such place": Path("/proc/nope"), "too long": tmp_path / ("x" * 300)}
    monkeypatch.setenv("ESR_LIMITS", str(where[named]))
    with pytest.raises(JudgeError, match=r"cannot be kept in .*set ESR_LIMITS"):
        Limits("p", 2, 60)
    assert file.read_text() == "precious words"


def test_more_places_than_files_can_be_open_is_one_sentence(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.EMFILE, "Too many open files")))
    with pytest.raises(JudgeError, match="lower the judge's `concurrency`"):
        Limits("p", 2, 60)


@pytest.mark.parametrize("link", ["symbolic", "hard", "pipe"])
@pytest.mark.parametrize("named", [True, False])
def test_a_link_among_the_limits_overwrites_nothing(link: str, named: bool, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if named:
        monkeypatch.setenv("ESR_LIMITS", str(shared))
    Limits("p", 1, 60).close()
    victim, clock = shared.parent / "victim", next(shared.glob("*.clock"))
    victim.write_text("precious words")
    clock.unlink()
    {"symbolic": clock.symlink_to, "hard": clock.hardlink_to}.get(link, lambda _: os.mkfifo(clock))(victim)
    with pytest.raises(JudgeError, match="remove it"):
        Limits("p", 1, 60)
    assert victim.read_text() == "precious words"
