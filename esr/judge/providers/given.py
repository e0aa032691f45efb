"""Answers that judges gave, read back for people to see; nothing is written but what other machines have shared through a bucket."""

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from esr.errors import StoreError
from esr.judge.providers import shared
from esr.judge.providers.answers import prepare
from esr.judge.providers.writer import connect
from esr.remote.bucket import Unreachable

log = logging.getLogger(__name__)

AT_ONCE = 500
"""Keys of one question; SQLite takes a limited number of them."""


@dataclass(frozen=True, slots=True)
class Given:
    text: str
    """As the provider sent it."""
    model: str
    """As the provider named it."""
    stop: str


def given(store: Path, keys: Sequence[str]) -> Mapping[str, Given]:
    """By the key that a grade holds; what is not kept here is not in it. Raises StoreError where the file cannot be read."""
    file = store / "answers.sqlite"
    if keys:
        _fetch(store, file)
    if not keys or not file.is_file():
        return {}
    found: dict[str, Given] = {}
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as con:
            for start in range(0, len(keys), AT_ONCE):
                part = keys[start : start + AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = con.execute(f"SELECT key, text, model, stop FROM answers WHERE key IN ({marks})", part)
                found |= {row[0]: Given(row[1], row[2], row[3]) for row in rows}
    except sqlite3.Error as error:
        raise StoreError(f"the judges' answers in {str(file)!r} cannot be read: {error}") from None
    return found


def _fetch(store: Path, file: Path) -> None:
    if (bucket := shared.bucket_of(store)) is None:
        return
    try:
        with closing(connect(file)) as db:
            prepare(db)
        shared.take_in(bucket, file, shared.directly(file))
    except Unreachable as error:
        log.warning("%s; answers of other machines may be missing", error)
