"""Shards: one durable Parquet file per batch, named by its content. They are the truth of the store.

A shard appears whole or not at all: it is written beside its place, fsynced and renamed. Any number of processes write at
once and none waits. A file that is torn or not ours is named once in a warning and left alone.
"""

import hashlib
import io
import logging
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from esr.errors import StoreError
from esr.remote import mirror
from esr.store import schema
from esr.whole import place

log = logging.getLogger(__name__)

_left: dict[str, tuple[int, str]] = {}
"""Files that are left alone and named already, with the time of their last change and the reason."""

DIGEST = b"esr_digest"
"""In a shard's footer: a hash of all its bytes, taken while NO_DIGEST stands in its place."""
NO_DIGEST = b"esr".ljust(64, b"-")


@dataclass(frozen=True, slots=True)
class Shard:
    table: str
    name: str
    """`<table>/<key>.parquet`."""
    path: Path
    version: int
    """Schema version that wrote it."""
    written: str
    """ISO time, UTC."""
    rows: int
    size: int
    """Bytes, unpacked."""


def content_key(data: pa.Table) -> str:
    """Hash of the rows as Arrow lays them out."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, data.schema) as writer:
        writer.write_table(data)
    return hashlib.sha256(memoryview(sink.getvalue())).hexdigest()[:32]


def write(root: Path, table: str, data: pa.Table, key: str, at: datetime) -> Path:
    """The durable shard `key`; when it is there already, nothing is written."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}", key):
        raise StoreError(f"a shard cannot be named {key[:200]!r}; use letters, digits, '.', '_' and '-'")
    folder = root / "shards" / table
    mirror.refresh(root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path, n = folder / f"{key}.parquet", 0
        while path.exists():
            if inspect(table, path) is not None:
                return path
            n += 1  # a torn file bears the name: it is left alone and these rows go beside it
            path = folder / f"{key}.{n}.parquet"
        place(path, _encoded(table, data, at))
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"{len(data)} rows for table {table!r} cannot be written to {str(folder)!r}: {reason}; nothing of them was kept"
        ) from None
    mirror.send(root, path)
    return path


def _encoded(table: str, data: pa.Table, at: datetime) -> bytearray:
    """Without statistics of columns, which readers believe unseen."""
    facts = {"esr_table": table, "esr_schema": str(schema.VERSION), "esr_written": at.isoformat(), DIGEST: NO_DIGEST}
    sink = io.BytesIO()
    options = {"compression": "zstd", "write_page_checksum": True, "write_statistics": False, **_encoding(data.schema)}
    pq.write_table(data.replace_schema_metadata(facts), sink, **options)
    content = bytearray(sink.getbuffer())
    place = content.index(NO_DIGEST, content.rindex(DIGEST))
    content[place : place + len(NO_DIGEST)] = hashlib.sha256(content).hexdigest().encode()
    return content


def as_written(path: Path, digest: bytes) -> bool:
    """Whether a shard's bytes give the hash that stands in its footer."""
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        footer = 8 + int.from_bytes(file.read(4), "little")
        body = file.seek(-footer, os.SEEK_END)
        file.seek(0)
        while body > 0 and (part := file.read(min(body, 1 << 20))):
            hashed.update(part)
            body -= len(part)
        tail = file.read()
    hashed.update(tail.replace(digest, NO_DIGEST, 1))
    return len(digest) == len(NO_DIGEST) and hashed.hexdigest().encode() == digest


def _encoding(columns: pa.Schema) -> dict[str, Any]:
    """Lists of single-precision numbers byte by byte, in which they compress by a third more. Everything else as usual."""
    lists = [f.name for f in columns if pa.types.is_list(f.type) and pa.types.is_float32(f.type.value_type)]
    if not lists:
        return {}
    return {
        "use_dictionary": [name for name in columns.names if name not in lists],
        "column_encoding": {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in lists},
    }


def inspect(table: str, path: Path) -> Shard | None:
    """The shard at `path`; None when the file is torn, foreign or of a newer schema."""
    problem = ""
    try:
        if str(path) in _left and _left[str(path)][0] == path.stat().st_mtime_ns:
            return None
        footer = pq.read_metadata(path)
        facts = footer.metadata or {}
        if facts.get(b"esr_table", b"").decode() == table:
            version = int(facts[b"esr_schema"])
            if 1 <= version <= schema.VERSION:
                size = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
                return Shard(
                    table, f"{table}/{path.name}", path, version, facts.get(b"esr_written", b"").decode(), footer.num_rows, size
                )
            problem = f"was written with schema version {version} and this is version {schema.VERSION}"
        else:
            problem = "is Parquet but not a shard of this table"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, pa.ArrowException):
        problem = "is torn or not Parquet"
    leave(path, problem)
    return None


def leave(path: Path, problem: str) -> None:
    """Name a file that is left alone; once a process while it stays as it is."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        changed = 0
    if str(path) not in _left or _left[str(path)][0] != changed:
        log.warning("%s %s; it is left alone and nothing of it is read", path, problem)
    _left[str(path)] = changed, problem


def left_alone(root: Path) -> dict[str, str]:
    """Files below the folder of shards that were found not to count so far, and why."""
    top = root / "shards"
    return {
        str(Path(p).relative_to(top)): why
        for p, (_, why) in sorted(_left.items())
        if Path(p).is_relative_to(top) and Path(p).exists()
    }


def listed(root: Path) -> dict[str, Path]:
    """Every file that should be a shard, by `<table>/<file>`, sorted; what else lies there is named."""
    mirror.refresh(root)
    out: dict[str, Path] = {}
    top = root / "shards"
    known = schema.tables()
    try:
        entries = sorted(os.scandir(top), key=lambda entry: entry.name)
    except FileNotFoundError:
        return out
    for entry in entries:
        if entry.name not in known or not entry.is_dir():
            if not entry.name.startswith("."):
                leave(Path(entry.path), "is no table's folder of shards")
            continue
        for file in sorted(os.scandir(entry.path), key=lambda entry: entry.name):
            if file.name.startswith("."):
                continue
            if file.name.endswith(".parquet") and file.is_file():
                out[f"{entry.name}/{file.name}"] = Path(file.path)
            else:
                leave(Path(file.path), "is not a shard")
    return out


def files(root: Path, table: str) -> dict[str, Path]:
    """The files of one table, by `<table>/<file>`."""
    mirror.refresh(root)
    try:
        entries = list(os.scandir(root / "shards" / table))
    except FileNotFoundError:
        return {}
    return {f"{table}/{e.name}": Path(e.path) for e in entries if e.name.endswith(".parquet") and not e.name.startswith(".")}
