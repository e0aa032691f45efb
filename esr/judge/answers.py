"""Answers on disk before anybody uses them: one SQLite file in WAL mode that the processes of a machine share.

    answers   what arrived, once per key; a malformed or refused answer stays as evidence and is never a grade
    claims    who is asking what right now, so that nobody asks it twice; a dead owner's claims are free at once
    batches   what was handed to a provider in bulk, so that a killed run collects it later
    garbled   bodies that were not the provider's JSON at all

All writing goes through one thread that gathers what is waiting into one transaction, committed with an fsync before any
caller hears of it.
"""

import fcntl
import itertools
import json
import logging
import os
import queue
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from esr.errors import StoreError
from esr.judge.request import Answer, Kind, Request, Target, Turn, clean

log = logging.getLogger(__name__)
T = TypeVar("T")

LEASE = 900.0
"""Seconds after which a claim from another host, whose processes cannot be seen, is free; every try claims anew."""
TABLES = """
CREATE TABLE IF NOT EXISTS answers (
  key TEXT PRIMARY KEY, judge TEXT NOT NULL, parameters TEXT NOT NULL, prompt TEXT NOT NULL, round INTEGER NOT NULL,
  kind TEXT NOT NULL, turns TEXT NOT NULL, text TEXT NOT NULL, stop TEXT NOT NULL, model TEXT NOT NULL, raw TEXT NOT NULL,
  input_tokens INTEGER, output_tokens INTEGER, cost REAL, batch INTEGER NOT NULL, seconds REAL NOT NULL,
  run TEXT NOT NULL, answered_at REAL NOT NULL, verdict TEXT, owner TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
  key TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL, batch TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (
  id TEXT PRIMARY KEY, provider_id TEXT, judge TEXT NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL,
  owner TEXT NOT NULL, submitted_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS garbled (key TEXT NOT NULL, judge TEXT NOT NULL, body TEXT NOT NULL, at REAL NOT NULL);
"""
INDEXES = """
CREATE INDEX IF NOT EXISTS answers_paid ON answers (run, owner, cost);
DROP INDEX IF EXISTS answers_by_run;
CREATE INDEX IF NOT EXISTS claims_by_batch ON claims (batch) WHERE batch IS NOT NULL;
"""
COLUMNS = "text, stop, model, raw, input_tokens, output_tokens, cost, batch, seconds"
_serial = itertools.count()


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to `may I ask this?`: yes, or who else is at it."""

    mine: bool
    answered: bool = False
    batch: str | None = None
    """The open batch that it is part of."""


@dataclass(frozen=True, slots=True)
class Batch:
    id: str
    provider_id: str | None
    """None: handed over, and the provider's receipt never seen."""
    n: int
    submitted_at: float


class Answers:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "answers.sqlite"
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{started(os.getpid())}:{next(_serial)}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "answers.lock").open(
                "w"
            ) as lock:  # two processes that make the file at once find it locked, and do not wait
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._reader = self._connect()
                self._reader.executescript(TABLES)
                if not self._reader.execute("SELECT 1 FROM pragma_table_info('answers') WHERE name = 'owner'").fetchone():
                    self._reader.execute("ALTER TABLE answers ADD COLUMN owner TEXT")  # in a file from before owners were kept
                self._reader.executescript(INDEXES)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"the judges' answers cannot be kept in {str(self.path)!r}: {error}") from None
        self._reading = threading.Lock()
        self._waiting: queue.SimpleQueue[tuple[Callable[[sqlite3.Connection], object], Future[object]] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="judge-answers", daemon=True)
        self._writer.start()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        return db

    # reading

    def get(self, keys: Sequence[str]) -> dict[str, Answer]:
        found: dict[str, Answer] = {}
        with self._reading:
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                for row in self._reader.execute(f"SELECT key, {COLUMNS} FROM answers WHERE key IN ({marks})", part):
                    found[row[0]] = _answer(row[1:])
        return found

    def of_kind(self, kind: Kind, target: Target) -> list[tuple[list[Turn], Answer]]:
        """Everything that one judge with one set of parameters ever said to one kind of question, with the question."""
        query = f"SELECT turns, {COLUMNS} FROM answers WHERE kind = ? AND judge = ? AND parameters = ? ORDER BY answered_at"
        with self._reading:
            rows = self._reader.execute(query, [kind, target.id, target.parameters]).fetchall()
        return [([Turn(role, text) for role, text in json.loads(row[0])], _answer(row[1:])) for row in rows]

    def spent_by_others(self, run: str) -> float:
        """US dollars of one run's answers that were not put here and whose price is known: other judges, other processes, earlier
        ones."""
        query = "SELECT coalesce(sum(cost), 0) FROM answers WHERE run = ? AND owner IS NOT ?"
        with self._reading:
            return float(self._reader.execute(query, [run, self.owner]).fetchone()[0])

    def batches(self, judge: str) -> list[Batch]:
        """Batches that were handed over and not yet collected."""
        with self._reading:
            rows = self._reader.execute(
                "SELECT id, provider_id, n, submitted_at FROM batches WHERE judge = ? AND state = 'open' ORDER BY submitted_at",
                [judge],
            ).fetchall()
        return [Batch(*row) for row in rows]

    def in_batch(self, batch: str) -> set[str]:
        with self._reading:
            return {row[0] for row in self._reader.execute("SELECT key FROM claims WHERE batch = ?", [batch])}

    # writing: each of these returns once it is on disk

    def put(self, request: Request, key: str, answer: Answer, *, run: str) -> "Future[None]":
        """The first answer to a key stays; a second one changes nothing."""
        row = (
            key, request.target.id, request.target.parameters, request.prompt_hash, request.round, request.kind,
            json.dumps([[turn.role, turn.text] for turn in request.turns], ensure_ascii=False), clean(answer.text), answer.stop,
            answer.model, answer.raw, answer.input_tokens, answer.output_tokens, answer.cost, int(answer.batch), answer.seconds,
            run, time.time(), None, self.owner,
        )  # fmt: skip

        def work(db: sqlite3.Connection) -> None:
            db.execute(f"INSERT OR IGNORE INTO answers VALUES ({','.join('?' * len(row))})", row)
            db.execute("DELETE FROM claims WHERE key = ?", [key])

        return self._submit(work)

    def verdict(self, key: str, verdict: str) -> None:
        """What was made of an answer, for whoever looks at the evidence; nothing waits for it."""
        self._submit(
            lambda db: db.execute("UPDATE answers SET verdict = ? WHERE key = ? AND verdict IS NOT ?", [verdict, key, verdict])
        )

    def garbled(self, key: str, judge: str, body: str) -> "Future[None]":
        return self._submit(lambda db: void(db.execute("INSERT INTO garbled VALUES (?, ?, ?, ?)", [key, judge, body, time.time()])))

    def claim(self, key: str, *, lease: float = LEASE) -> "Future[Claim]":
        return self._submit(lambda db: self._claim(db, key, lease))

    def _claim(self, db: sqlite3.Connection, key: str, lease: float) -> Claim:
        if db.execute("SELECT 1 FROM answers WHERE key = ?", [key]).fetchone():
            return Claim(mine=False, answered=True)
        row = db.execute("SELECT owner, until, batch FROM claims WHERE key = ?", [key]).fetchone()
        if row is not None and row[2] is not None:
            return Claim(mine=False, batch=row[2])
        if row is not None and row[0] != self.owner and not free(row[0], row[1]):
            return Claim(mine=False)
        db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, NULL)", [key, self.owner, time.time() + lease])
        return Claim(mine=True)

    def release(self, keys: Iterable[str]) -> "Future[None]":
        mine = [(key, self.owner) for key in keys]
        return self._submit(lambda db: void(db.executemany("DELETE FROM claims WHERE key = ? AND owner = ?", mine)))

    def free(self, keys: Iterable[str]) -> "Future[None]":
        """Whoever held them, anybody may ask now."""
        rows = [(key,) for key in keys]
        return self._submit(lambda db: void(db.executemany("DELETE FROM claims WHERE key = ?", rows)))

    def open_batch(self, batch: str, judge: str, keys: Sequence[str]) -> "Future[None]":
        """Written before the provider is called: from now on the keys belong to the batch, not to a process."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO batches VALUES (?, NULL, ?, 'open', ?, ?, ?)", [batch, judge, len(keys), self.owner, time.time()]
            )
            rows = [(key, self.owner, time.time() + LEASE, batch) for key in keys]
            db.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)", rows)

        return self._submit(work)

    def receipt(self, batch: str, provider_id: str) -> "Future[None]":
        return self._submit(lambda db: void(db.execute("UPDATE batches SET provider_id = ? WHERE id = ?", [provider_id, batch])))

    def close_batch(self, batch: str) -> "Future[None]":
        """Collected, or given up: what it did not answer may be asked again."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE batches SET state = 'closed' WHERE id = ?", [batch])
            db.execute("DELETE FROM claims WHERE batch = ?", [batch])

        return self._submit(work)

    def submitter_is_gone(self, batch: str) -> bool:
        with self._reading:
            row = self._reader.execute("SELECT owner, submitted_at FROM batches WHERE id = ?", [batch]).fetchone()
        return row is None or (row[0] != self.owner and free(row[0], row[1] + LEASE))

    def close(self) -> None:
        owner = self.owner
        self._submit(lambda db: void(db.execute("DELETE FROM claims WHERE owner = ? AND batch IS NULL", [owner])))
        self._waiting.put(None)
        self._writer.join()
        self._reader.close()

    def _submit(self, work: Callable[[sqlite3.Connection], T]) -> "Future[T]":
        future: Future[T] = Future()
        self._waiting.put((work, future))  # type: ignore[arg-type]  # a queue of futures of every kind
        return future

    def _write(self) -> None:
        db = self._connect()
        while (item := self._waiting.get()) is not None:
            items = [item]
            while not self._waiting.empty() and len(items) < 500:
                more = self._waiting.get()
                if more is None:
                    self._waiting.put(None)
                    break
                items.append(more)
            commit(db, items, self.path)
        db.close()


def commit(
    db: sqlite3.Connection, items: list[tuple[Callable[[sqlite3.Connection], object], "Future[object]"]], path: Path
) -> None:
    """All of them in one transaction; nobody is told before it is on disk. If that fails, each on its own, and each told."""
    try:
        db.execute("BEGIN IMMEDIATE")
        results = [work(db) for work, _ in items]
        db.execute("COMMIT")
    except Exception as error:  # the thread must outlive it: others wait for their answers
        if db.in_transaction:
            db.execute("ROLLBACK")
        if len(items) > 1:
            for item in items:
                commit(db, [item], path)
        else:
            tell(items[0][1], StoreError(f"the judges' answers cannot be written to {str(path)!r}: {error}"))
        return
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


def _answer(row: tuple[Any, ...]) -> Answer:
    text, stop, model, raw, n_in, n_out, cost, batch, seconds = row
    return Answer(
        text=text, stop=stop, model=model, raw=raw, input_tokens=n_in, output_tokens=n_out, cost=cost, batch=bool(batch),
        seconds=seconds,
    )  # fmt: skip


def started(pid: int) -> str:
    """When a process began, in clock ticks since boot: a reused process number is another process. Empty where it is not told."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def free(owner: str, until: float) -> bool:
    """Whether nobody holds a claim any more: its process is gone, or is on another host and its lease is over."""
    host, pid, start, _ = owner.rsplit(":", 3)
    if host != socket.gethostname():
        return time.time() > until
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return started(int(pid)) != start
