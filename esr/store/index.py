"""Which shards hold which ids, as far as this process has read: what a run asks at every step, without opening DuckDB.

A store that many processes write to is asked through the file's lock, one question at a time; a search of thresholds asks at each of
its steps for what it has just written. The index reads every shard's ids once.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from esr.store import check, schema, shards

FEW = 16
"""Shards that are read for one answer at most."""
AT_ONCE = 4
"""Shards read side by side."""


class Index:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: dict[str, set[str]] = {}
        """By table, names of shards."""
        self._held: dict[str, dict[str, Path | None]] = {}
        """By table and id, the shard; None where several hold rows of it."""
        self._lock = threading.Lock()

    def known(self, table: str, ids: Sequence[str]) -> set[str]:
        """Which of these ids are durable in the table, its newest shards included."""
        with self._lock:
            held = self._fresh(table)
            return {one for one in ids if one in held}

    def column(self, table: str, name: str, ids: Sequence[str]) -> dict[str, Any] | None:
        """Of these ids, as far as they are durable, a column's value. None: they lie in many shards, or one in several, of which the
        table alone says which counts."""
        with self._lock:
            held = self._fresh(table)
            where = {one: held[one] for one in ids if one in held}
        paths = {path for path in where.values() if path is not None}
        if None in where.values() or len(paths) > FEW:
            return None
        key = schema.table(table).id
        found: dict[str, Any] = {}
        for path in paths:
            try:
                rows = pq.ParquetFile(path).read(columns=[key, name])
            except (OSError, pa.ArrowInvalid):  # gone or torn since
                return None
            if name not in rows.column_names:
                return None
            found |= {one: value for one, value in zip(rows[key].to_pylist(), rows[name].to_pylist(), strict=True) if one in where}
        return found

    def _fresh(self, table: str) -> dict[str, Path | None]:
        read, held = self._read.setdefault(table, set()), self._held.setdefault(table, {})
        new = {name: path for name, path in shards.files(self._root, table).items() if name not in read}
        with ThreadPoolExecutor(min(AT_ONCE, max(len(new), 1))) as pool:
            for (name, path), some in zip(new.items(), pool.map(lambda path: _ids(table, path), new.values()), strict=True):
                read.add(name)
                for one in some:
                    held[one] = None if one in held else path
        return held


def _ids(table: str, path: Path) -> set[str]:
    shard = shards.inspect(table, path)
    if shard is None or not check.sound(shard):
        return set()
    column = schema.table(table).id
    return set(pq.ParquetFile(path).read(columns=[column])[column].to_pylist())
