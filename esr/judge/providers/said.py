"""What judges answered, word for word, by the key that a grade names; read alone, beside processes that write."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from esr.errors import StoreError

AT_ONCE = 500
"""Keys of one question; SQLite takes a limited number of them."""


def answers(folder: Path, keys: Sequence[str]) -> Mapping[str, str]:
    """Raw texts by key; empty where the answers are on another machine."""
    path = folder / "answers.sqlite"
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            for at in range(0, len(keys), AT_ONCE):
                some = list(keys[at : at + AT_ONCE])
                marks = ",".join("?" * len(some))
                found |= dict(db.execute(f"SELECT key, text FROM answers WHERE key IN ({marks})", some).fetchall())
    except sqlite3.Error as error:
        raise StoreError(f"the judges' answers in {str(path)!r} cannot be read: {error}") from None
    return found
