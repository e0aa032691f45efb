"""Answers on disk before anybody uses them: one SQLite file in WAL mode that the processes of a machine share.

    answers   what arrived, once per key; a malformed or refused answer stays as evidence and is never a grade
    claims    who is asking what right now, so that nobody asks it twice; a dead owner's claims are free at once
    batches   what was handed to a provider in bulk, so that a killed run collects it later
    garbled   bodies that were not the provider's JSON at all
    unsent, taken   of a store that is shared through a bucket: answers still to be sent, files that were taken in

All writing goes through one thread (writer.py): committed with an fsync before anybody hears of it.
"""

import fcntl
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esr.errors import StoreError
from esr.judge.providers import shared
from esr.judge.providers.call import Answer, Call, Kind, Message, Target, clean
from esr.judge.providers.writer import Writer, connect, unlocked, void
from esr.remote.owner import gone, named

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


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to `may I ask this?`: yes, or who else is at it."""

    mine: bool
    answered: bool = False
    batch: str | None = None
    """The open batch that it is part of."""


@dataclass(frozen=True, slots=True)
class StoredBatch:
    id: str
    provider_id: str | None
    """None: handed over, and the provider's receipt never seen."""
    n: int
    submitted_at: float
    left: bool
    """Whoever handed it over is gone, or does not know what became of it: anybody may find out."""


class Answers:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "answers.sqlite"
        self.owner = named()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "answers.lock").open("w") as lock:  # two processes that make the file at once do not find it locked
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._reader = connect(self.path)
                unlocked(lambda: prepare(self._reader), self.path)
        except StoreError:
            raise
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"the judges' answers cannot be kept in {str(self.path)!r}: {error}") from None
        self._reading = threading.Lock()
        self._writer = Writer(self.path)
        self.bucket = shared.bucket_of(folder)
        """Where answers are shared with other machines."""
        self._shared = (
            None if self.bucket is None else shared.Shared(self.bucket, self.path, lambda work: self._writer.submit(work).result())
        )

    # reading

    def get(self, keys: Sequence[str]) -> dict[str, Answer]:
        found: dict[str, Answer] = {}
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            marks = ",".join("?" * len(part))
            rows = self._rows(f"SELECT key, {COLUMNS} FROM answers WHERE key IN ({marks})", part)
            found |= {row[0]: _answer(row[1:]) for row in rows}
        return found

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._reading:
            return unlocked(lambda: self._reader.execute(query, values).fetchall(), self.path)

    def of_kind(self, kind: Kind, target: Target) -> list[tuple[list[Message], Answer]]:
        """Everything that one judge with one set of parameters ever said to one kind of question, with the question."""
        query = f"SELECT turns, {COLUMNS} FROM answers WHERE kind = ? AND judge = ? AND parameters = ? ORDER BY answered_at"
        rows = self._rows(query, [kind, target.id, target.parameters])
        return [([Message(role, text) for role, text in json.loads(row[0])], _answer(row[1:])) for row in rows]

    def spent_by_others(self, run: str) -> float:
        """US dollars of one run's answers that were not put here and whose price is known: other judges, other processes, earlier
        ones."""
        query = "SELECT coalesce(sum(cost), 0) FROM answers WHERE run = ? AND owner IS NOT ?"
        return float(self._rows(query, [run, self.owner])[0][0])

    def open_batch(self, batch: str) -> StoredBatch | None:
        """One that was written down and is not yet collected."""
        rows = self._rows("SELECT id, provider_id, n, submitted_at, owner FROM batches WHERE id = ? AND state = 'open'", [batch])
        if not rows:
            return None
        name, provider_id, n, submitted_at, owner = rows[0]
        left = not owner or (owner != self.owner and gone(owner, submitted_at + LEASE))
        return StoredBatch(name, provider_id, n, submitted_at, left)

    def receipts(self) -> set[str]:
        """The provider's names of every batch whose receipt was seen, collected or not."""
        return {row[0] for row in self._rows("SELECT provider_id FROM batches WHERE provider_id IS NOT NULL")}

    def in_batch(self, batch: str) -> set[str]:
        return {row[0] for row in self._rows("SELECT key FROM claims WHERE batch = ?", [batch])}

    # writing: each of these returns once it is on disk

    def put(self, call: Call, key: str, answer: Answer, *, run: str) -> "Future[None]":
        """The first answer to a key stays; a second one changes nothing."""
        row = (
            key, call.target.id, call.target.parameters, call.prompt_hash, call.round, call.kind,
            json.dumps([[message.role, message.text] for message in call.messages], ensure_ascii=False), clean(answer.text), answer.stop,
            answer.model, answer.raw, answer.input_tokens, answer.output_tokens, answer.cost, int(answer.batch), answer.seconds,
            run, time.time(), None, self.owner,
        )  # fmt: skip

        def work(db: sqlite3.Connection) -> None:
            db.execute(f"INSERT OR IGNORE INTO answers VALUES ({','.join('?' * len(row))})", row)
            db.execute("DELETE FROM claims WHERE key = ?", [key])
            if self._shared is not None:
                shared.note(db, key)

        return self._writer.submit(work)

    def verdict(self, key: str, verdict: str) -> None:
        """What was made of an answer, for whoever looks at the evidence; nothing waits for it."""
        self._writer.submit(
            lambda db: db.execute("UPDATE answers SET verdict = ? WHERE key = ? AND verdict IS NOT ?", [verdict, key, verdict])
        )

    def garbled(self, key: str, judge: str, body: str) -> "Future[None]":
        return self._writer.submit(
            lambda db: void(db.execute("INSERT INTO garbled VALUES (?, ?, ?, ?)", [key, judge, body, time.time()]))
        )

    def claim(self, key: str, *, lease: float = LEASE) -> "Future[Claim]":
        return self._writer.submit(lambda db: self._claim(db, key, lease))

    def _claim(self, db: sqlite3.Connection, key: str, lease: float) -> Claim:
        if db.execute("SELECT 1 FROM answers WHERE key = ?", [key]).fetchone():
            return Claim(mine=False, answered=True)
        row = db.execute("SELECT owner, until, batch FROM claims WHERE key = ?", [key]).fetchone()
        if row is not None and row[2] is not None:
            return Claim(mine=False, batch=row[2])
        if row is not None and row[0] != self.owner and not gone(row[0], row[1]):
            return Claim(mine=False)
        db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, NULL)", [key, self.owner, time.time() + lease])
        return Claim(mine=True)

    def release(self, keys: Iterable[str]) -> "Future[None]":
        mine = [(key, self.owner) for key in keys]
        return self._writer.submit(
            lambda db: void(db.executemany("DELETE FROM claims WHERE key = ? AND owner = ? AND batch IS NULL", mine))
        )

    def free(self, batch: str, keys: Iterable[str]) -> "Future[None]":
        """What a batch left open anybody may ask now; not what is part of another batch by now."""
        rows = [(key, batch) for key in keys]
        return self._writer.submit(lambda db: void(db.executemany("DELETE FROM claims WHERE key = ? AND batch = ?", rows)))

    def write_batch(self, batch: str, judge: str, keys: Sequence[str]) -> "Future[None]":
        """Written before the provider is called: from now on the keys belong to the batch, not to a process."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO batches VALUES (?, NULL, ?, 'open', ?, ?, ?)", [batch, judge, len(keys), self.owner, time.time()]
            )
            rows = [(key, self.owner, time.time() + LEASE, batch) for key in keys]
            db.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)", rows)

        return self._writer.submit(work)

    def receipt(self, batch: str, provider_id: str) -> "Future[None]":
        return self._writer.submit(
            lambda db: void(db.execute("UPDATE batches SET provider_id = ? WHERE id = ?", [provider_id, batch]))
        )

    def close_batch(self, batch: str) -> "Future[None]":
        """Collected, or given up: what it did not answer may be asked again."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE batches SET state = 'closed' WHERE id = ?", [batch])
            db.execute("DELETE FROM claims WHERE batch = ?", [batch])

        return self._writer.submit(work)

    def again(self, batch: str) -> "Future[None]":
        """It is about to be handed over once more, the provider not having taken it before."""
        return self._writer.submit(
            lambda db: void(db.execute("UPDATE batches SET submitted_at = ? WHERE id = ?", [time.time(), batch]))
        )

    def leave_batch(self, batch: str) -> "Future[None]":
        """What became of it is not known here; whoever comes next finds out before its questions are asked again."""
        return self._writer.submit(lambda db: void(db.execute("UPDATE batches SET owner = '' WHERE id = ?", [batch])))

    def close(self) -> None:
        owner = self.owner

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM claims WHERE owner = ? AND batch IS NULL", [owner])
            db.execute("UPDATE batches SET owner = '' WHERE owner = ? AND provider_id IS NULL", [owner])

        self._writer.submit(work)
        if self._shared is not None:
            self._shared.close()
        self._writer.close()
        self._reader.close()


def prepare(db: sqlite3.Connection) -> None:
    db.executescript(TABLES + shared.TABLES)
    if not db.execute("SELECT 1 FROM pragma_table_info('answers') WHERE name = 'owner'").fetchone():
        db.execute("ALTER TABLE answers ADD COLUMN owner TEXT")  # in a file from before owners were kept
    db.executescript(INDEXES)


def _answer(row: tuple[Any, ...]) -> Answer:
    text, stop, model, raw, n_in, n_out, cost, batch, seconds = row
    return Answer(
        text=text, stop=stop, model=model, raw=raw, input_tokens=n_in, output_tokens=n_out, cost=cost, batch=bool(batch),
        seconds=seconds,
    )  # fmt: skip
