"""The file of answers: locked by somebody else, it is said and waited for, and whoever waits is told in the end."""

import logging
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from esr.errors import StoreError
from esr.judge.providers import writer
from esr.judge.providers.answers import Answers


def lock(path: Path, how: str = "IMMEDIATE") -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute(f"BEGIN {how}")
    return db


def test_a_lock_is_said_and_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    answers = Answers(tmp_path)
    held = lock(answers.path)
    waiting = [answers.claim(f"k{i}") for i in range(20)]
    until = time.monotonic() + 60
    while "is locked by another program" not in caplog.text and time.monotonic() < until:
        time.sleep(0.05)
    assert "is locked by another program" in caplog.text
    assert not waiting[0].done()
    held.execute("ROLLBACK")
    assert all(claim.result(timeout=60).mine for claim in waiting)
    answers.close()


def test_a_lock_that_stays_ends_in_one_sentence_for_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PATIENCE", 1.5)
    answers = Answers(tmp_path)
    held = lock(answers.path)
    began = time.monotonic()
    waiting = [answers.claim(f"k{i}") for i in range(20)]
    for claim in waiting:
        with pytest.raises(StoreError, match=r"has been locked by another program for \d+ s.*run the same line again"):
            claim.result(timeout=60)
    assert time.monotonic() - began < 30
    held.execute("ROLLBACK")
    assert answers.claim("k").result(timeout=60).mine, "and the writer lives on"
    answers.close()


def test_a_locked_file_is_opened_once_it_is_free(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Answers(tmp_path).close()
    held = lock(tmp_path / "answers.sqlite", "EXCLUSIVE")
    threading.Timer(2.5, lambda: held.execute("ROLLBACK")).start()
    answers = Answers(tmp_path)
    assert answers.claim("k").result(timeout=60).mine
    answers.close()


def test_what_a_batch_leaves_open_is_not_taken_from_another_batch(tmp_path: Path) -> None:
    answers = Answers(tmp_path)
    answers.write_batch("one", "j", ["a", "b"]).result()
    answers.close_batch("one").result()
    answers.write_batch("two", "j", ["a"]).result()
    answers.free("one", ["a", "b"]).result()
    assert answers.claim("a").result().batch == "two"
    assert answers.claim("b").result().mine
    answers.close()
