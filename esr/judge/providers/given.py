"""Answers that judges gave, read back for people to see; nothing is written, and nothing is made where there are none."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from esr.errors import StoreError

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
