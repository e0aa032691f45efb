"""Answers that other machines paid for, and ours for them, where results are shared through a bucket.

Every few seconds what was answered goes into the bucket as one file named by its content, and what others have put there is taken in.
Claims and open batches stay with their machine: a batch is collected where it was handed over.
"""

import gzip
import hashlib
import json
import logging
import sqlite3
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from esr.judge.providers.writer import connect, unlocked
from esr.remote import mirror
from esr.remote.bucket import Bucket, Unreachable

log = logging.getLogger(__name__)

FOLDER = "answers/"
EVERY = 2.0
"""Seconds between two looks; what a machine that is lost for good was answered since its last one is paid for again."""
MOST = 1000
"""Answers in a file."""
TABLES = """
CREATE TABLE IF NOT EXISTS unsent (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS taken (file TEXT PRIMARY KEY) WITHOUT ROWID;
"""
Write: TypeAlias = Callable[[Callable[[sqlite3.Connection], object]], object]
"""Does the work in one transaction and returns once it is on disk."""


def bucket_of(store: Path) -> Bucket | None:
    """Where the answers of this store are shared."""
    copy = mirror.of(store)
    return None if copy is None else copy.bucket


def note(db: sqlite3.Connection, key: str) -> None:
    """This answer is to be sent."""
    db.execute("INSERT OR IGNORE INTO unsent VALUES (?)", [key])


class Shared:
    """An open file of answers, kept in step with the bucket's until it is closed."""

    def __init__(self, bucket: Bucket, path: Path, write: Write) -> None:
        self._bucket, self._path, self._write = bucket, path, write
        take_in(bucket, path, write)
        self._ended, self._silent = threading.Event(), False
        self._thread = threading.Thread(target=self._keep_in_step, name="judge-answers-shared", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _keep_in_step(self) -> None:
        """Once more after the end."""
        ended = False
        while not ended:
            ended = self._ended.wait(EVERY)
            try:
                send(self._bucket, self._path, self._write)
                take_in(self._bucket, self._path, self._write)
                self._silent = False
            except Unreachable as error:
                if not self._silent:
                    log.warning("%s; answers are kept in %s and sent when it answers", error, self._path)
                self._silent = True


def send(bucket: Bucket, path: Path, write: Write) -> None:
    """What was answered here and is not there."""
    while rows := _asked(path, f"SELECT a.* FROM answers a JOIN unsent USING (key) LIMIT {MOST}"):
        content = gzip.compress("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(), mtime=0)
        name = f"{FOLDER}{hashlib.sha256(content).hexdigest()[:32]}.jsonl.gz"
        bucket.new(name, content)
        keys = [(row["key"],) for row in rows]

        def sent(db: sqlite3.Connection, keys: list[tuple[str]] = keys, name: str = name) -> None:
            db.executemany("DELETE FROM unsent WHERE key = ?", keys)
            db.execute("INSERT OR IGNORE INTO taken VALUES (?)", [name])

        write(sent)


def take_in(bucket: Bucket, path: Path, write: Write) -> None:
    """What others have put there; of two answers to one question the first that came here stays."""
    there = bucket.objects(FOLDER)
    for name in sorted(set(there) - {row["file"] for row in _asked(path, "SELECT file FROM taken")}):
        rows = _rows(bucket, name)

        def taken(db: sqlite3.Connection, rows: list[dict[str, Any]] = rows, name: str = name) -> None:
            for row in rows:
                marks = ", ".join(f":{column}" for column in row)
                db.execute(f"INSERT OR IGNORE INTO answers ({', '.join(row)}) VALUES ({marks})", row)
            db.execute("INSERT OR IGNORE INTO taken VALUES (?)", [name])

        write(taken)


def directly(path: Path) -> Write:
    """Without a thread that writes: for whoever only reads."""

    def write(work: Callable[[sqlite3.Connection], object]) -> None:
        db = connect(path)
        try:
            unlocked(lambda: db.execute("BEGIN IMMEDIATE"), path)
            work(db)
            db.execute("COMMIT")
        finally:
            db.close()

    return write


def _asked(path: Path, query: str) -> list[dict[str, Any]]:
    db = connect(path)
    try:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in unlocked(lambda: db.execute(query).fetchall(), path)]
    finally:
        db.close()


def _rows(bucket: Bucket, name: str) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in gzip.decompress(bucket.read(name)).decode().splitlines()]
    except (FileNotFoundError, gzip.BadGzipFile, EOFError, zlib.error, ValueError):
        log.warning("%s/%s is no file of answers; it is left alone and nothing of it is read", bucket.url, name)
        return []
