"""The one thread that writes a SQLite file: what is waiting becomes one transaction, committed before any caller hears of it.

While another program holds the file locked, the writer says so, waits for a minute, and then tells everybody.
"""

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from esr.errors import StoreError

log = logging.getLogger(__name__)
T = TypeVar("T")
Work = Callable[[sqlite3.Connection], object]

TRY = 1.0
"""Seconds of one try to get at a locked file."""
SAY_EVERY = 10.0
"""Seconds between two words about a file that stays locked; the first comes after the first try."""
PATIENCE = 60.0
"""Seconds until a file that stays locked ends the run."""
MOST = 500
"""Writes in one transaction."""


class Locked(StoreError):
    """Another program keeps the file locked."""


def connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=TRY, isolation_level=None, check_same_thread=False)
    if unlocked(lambda: db.execute("PRAGMA journal_mode").fetchone()[0], path) != "wal":
        unlocked(lambda: db.execute("PRAGMA journal_mode = WAL"), path)
    db.execute("PRAGMA synchronous = FULL")
    return db


def unlocked(work: Callable[[], T], path: Path) -> T:
    """`work` once the file can be written."""
    began, said = time.monotonic(), 0.0
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) and "busy" not in str(error):
                raise
        now = time.monotonic()
        if now - began > PATIENCE:
            raise Locked(
                f"{str(path)!r} has been locked by another program for {now - began:.0f} s and no answer can be kept; end that program "
                "(`fuser` names it) and run the same line again, what was answered is kept"
            )
        if now - said > SAY_EVERY:
            said = now
            log.warning("%s is locked by another program since %.0f s; waiting up to %.0f s", path, now - began, PATIENCE)


class Writer:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: queue.SimpleQueue[tuple[Work, Future[object]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="judge-answers", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> "Future[T]":
        """Done once it is on disk."""
        future: Future[T] = Future()
        self._waiting.put((work, future))  # type: ignore[arg-type]  # a queue of futures of every kind
        return future

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _write(self) -> None:
        db = connect(self._path)
        while (item := self._waiting.get()) is not None:
            items = [item]
            while not self._waiting.empty() and len(items) < MOST:
                more = self._waiting.get()
                if more is None:
                    self._waiting.put(None)
                    break
                items.append(more)
            commit(db, items, self._path)
        db.close()


def commit(db: sqlite3.Connection, items: list[tuple[Work, "Future[object]"]], path: Path) -> None:
    """All of them in one transaction; nobody is told before it is on disk. If that fails, each on its own, and each told."""
    try:
        unlocked(lambda: db.execute("BEGIN IMMEDIATE"), path)
        results = [work(db) for work, _ in items]
        db.execute("COMMIT")
    except Locked as error:  # trying each on its own would take a minute each
        for _, future in items:
            tell(future, error)
    except Exception as error:  # the thread must outlive it: others wait for their answers
        if db.in_transaction:
            db.execute("ROLLBACK")
        if len(items) > 1:
            for item in items:
                commit(db, [item], path)
        else:
            tell(items[0][1], StoreError(f"the judges' answers cannot be written to {str(path)!r}: {error}"))
    else:
        for (_, future), result in zip(items, results, strict=True):
            tell(future, result)


def tell(future: "Future[object]", result: object) -> None:
    """Whoever waits; nobody, if they have left. From the first line on nobody can leave any more."""
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(result, StoreError):
        future.set_exception(result)
    else:
        future.set_result(result)


def void(_: object) -> None:
    return None
