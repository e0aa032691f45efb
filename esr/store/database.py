"""store/esr.duckdb: what people query. An ingested copy of the shards with the views on top, deletable at any time.

Every open, also for reading, is inside our own flock on a side file, and short: open, ingest, close. When somebody holds the
file, a shell or a slower process, ingesting waits for another day and queries read the newest shards themselves.
"""

import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from esr.remote import mirror
from esr.store import check, merge, schema, shards
from esr.store.shards import Shard

log = logging.getLogger(__name__)

OURS = f"{schema.VERSION}:{hashlib.sha256((schema.sql('tables') + schema.sql('views')).encode()).hexdigest()[:16]}"
"""What the database says when it was made by these SQL files."""

MEMORY = "192.0 MiB"
"""What DuckDB may take to bring its file up to date, as it writes sizes itself; more only when that is not enough."""

ALONE: dict[str, str | bool | int | float | list[str]] = {"threads": 1}
"""To bring it up to date: a second thread takes as much CPU again as it saves, and memory."""

SLICE, ROWS = 32 << 20, 50_000
"""Bytes of shards, unpacked, and rows that enter in one transaction."""

BOOKKEEPING = """
CREATE TABLE IF NOT EXISTS esr_schema (version VARCHAR);
CREATE TABLE IF NOT EXISTS esr_ingested (shard VARCHAR PRIMARY KEY);
"""

_threads: dict[str, threading.Lock] = {}


class Busy(Exception):
    """Somebody holds the file; never seen outside this package."""


@dataclass(frozen=True, slots=True)
class Ingested:
    shards: int
    rows: int
    deferred: str | None = None
    """Why nothing was ingested; the shards are kept and a later ingest reads them."""


def file(root: Path) -> Path:
    return root / "esr.duckdb"


@contextmanager
def locked(root: Path, *, exclusive: bool, wait: float) -> Iterator[None]:
    """The file's lock among our own processes and threads; `Busy` when it is not to be had in `wait` seconds."""
    path = file(root).with_suffix(".duckdb.lock")
    thread = _threads.setdefault(str(path), threading.Lock())
    until = time.monotonic() + wait
    if not thread.acquire(timeout=wait):
        raise Busy("another thread is at it")
    try:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise Busy(f"its lock file cannot be opened: {error.strerror}") from None
        try:
            _flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, until)
            yield
        finally:
            os.close(fd)
    finally:
        thread.release()


def _flock(fd: int, kind: int, until: float) -> None:
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() > until:
                raise Busy("another run is at it") from None
            time.sleep(0.005)


def ingest(root: Path, *, wait: float = 10.0, anew: bool = False) -> Ingested:
    """Brings the file up to date with the shards in one transaction; `anew`: from nothing."""
    mirror.refresh(root)
    if not (root / "shards").is_dir() and not file(root).exists():
        return Ingested(0, 0)
    try:
        with locked(root, exclusive=True, wait=wait), _opened(root) as con:
            return _bring_up_to_date(con, root, anew)
    except Busy as busy:
        log.info("%s is not brought up to date now: %s; queries read the shards meanwhile", file(root), busy)
        return Ingested(0, 0, str(busy))


@contextmanager
def _opened(root: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    path = file(root)
    try:
        con = duckdb.connect(str(path), config=ALONE)
    except duckdb.Error as error:
        if not _unreadable(str(error)):
            raise Busy(first_line(error)) from None
        aside = path.with_name(f"{path.name}.unreadable-{time.strftime('%Y%m%d-%H%M%S')}")
        log.warning(
            "%s cannot be read as a DuckDB file (%s); it is moved to %s and made again from the shards",
            path,
            first_line(error),
            aside.name,
        )
        with suppress(OSError):
            path.with_name(path.name + ".wal").rename(aside.with_name(aside.name + ".wal"))
        try:
            path.rename(aside)
            con = duckdb.connect(str(path), config=ALONE)
        except (OSError, duckdb.Error) as worse:
            raise Busy(first_line(worse)) from None
    try:
        yield con
    except duckdb.Error as error:
        raise Busy(first_line(error)) from None
    finally:
        with suppress(duckdb.Error):
            con.close()


def _unreadable(message: str) -> bool:
    return any(
        sign in message for sign in ("not a valid DuckDB", "orrupt", "hecksum", "Could not read enough bytes", "Serialization")
    )


def first_line(error: BaseException) -> str:
    return " ".join(str(error).split("\n")[0].split())[:300]


def _bring_up_to_date(con: duckdb.DuckDBPyConnection, root: Path, anew: bool) -> Ingested:
    made_by, done = _bookkeeping(con)
    if (newer := _version(made_by)) > schema.VERSION:
        raise Busy(f"it was made by a newer version of this library (schema {newer})")
    con.execute(f"SET memory_limit = '{MEMORY}'")
    there = shards.listed(root)
    if anew or made_by != OURS or not done <= set(there) or not schema.shape() <= schema.shape_of(con):
        con.begin()
        _begin_again(con)
        con.commit()
        done = set()
    rows = sum(_take_in(con, some) for some in slices(not_in(there, done)))
    return Ingested(len(ingested(con) - done), rows)


def _bookkeeping(con: duckdb.DuckDBPyConnection) -> tuple[str, set[str]]:
    """What the file says of who made it, and the shards in it; where somebody tampered with that, nothing."""
    try:
        con.execute(BOOKKEEPING)
        row = con.execute("SELECT version FROM esr_schema").fetchone()
        return str(row[0]) if row else "", ingested(con)
    except (duckdb.BinderException, duckdb.CatalogException) as error:
        log.warning("the file's own notes cannot be read (%s); it is made again from the shards", first_line(error))
        _drop(con, {"esr_schema", "esr_ingested"})
        con.execute(BOOKKEEPING)
        return "", set()


def _version(made_by: str) -> int:
    number = made_by.split(":")[0]
    return int(number) if number.isascii() and number.isdecimal() else 0


def _drop(con: duckdb.DuckDBPyConnection, names: Set[str]) -> None:
    """Whatever bears one of these names, table or view."""
    for kind, catalog in (("VIEW", "duckdb_views()"), ("TABLE", "duckdb_tables()")):
        have = {row[0] for row in con.execute(f"SELECT {kind.lower()}_name FROM {catalog} WHERE NOT internal").fetchall()}
        for name in sorted(names & have):
            con.execute(f'DROP {kind} "{name}"')


def _take_in(con: duckdb.DuckDBPyConnection, some: Sequence[Shard]) -> int:
    """These shards in one transaction, without those that DuckDB refuses; how many rows came to be."""
    con.begin()
    try:
        rows = sum(merge.merge(con, table, of) for table, of in merge.by_table(some).items())
        con.execute("INSERT INTO esr_ingested SELECT unnest(?)", [[shard.name for shard in some]])
        con.commit()
        return rows
    except duckdb.Error as error:
        with suppress(duckdb.Error):
            con.rollback()
        if isinstance(error, duckdb.OutOfMemoryException) and _bounded(con):
            con.execute("SET memory_limit = '-1'")  # none; RESET changes nothing
            return _take_in(con, some)
        bad = merge.refused(con, some, first_line(error))
        if not bad:
            raise
        return _take_in(con, [shard for shard in some if shard not in bad])


def _bounded(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether this connection still keeps to MEMORY."""
    row = con.execute(f"SELECT current_setting('memory_limit') = '{MEMORY}'").fetchone()
    return bool(row and row[0])


def not_in(there: Mapping[str, Path], done: set[str]) -> list[Shard]:
    """The shards that count and are not yet in."""
    new = (shards.inspect(name.split("/")[0], path) for name, path in there.items() if name not in done)
    return [shard for shard in new if shard is not None and check.sound(shard)]


def slices(found: Sequence[Shard]) -> Iterator[list[Shard]]:
    """Shards in the order they were written, as many as fit into memory easily."""
    some, size, rows = list[Shard](), 0, 0
    for shard in sorted(found, key=merge.age):
        if some and (size + shard.size > SLICE or rows + shard.rows > ROWS):
            yield some
            some, size, rows = [], 0, 0
        some, size, rows = [*some, shard], size + shard.size, rows + shard.rows
    if some:
        yield some


def _begin_again(con: duckdb.DuckDBPyConnection) -> None:
    """Our tables and views anew; what a person made beside them stays."""
    _drop(con, {item.name for item in schema.described()})
    con.execute("DELETE FROM esr_ingested; DELETE FROM esr_schema;")
    con.execute(schema.sql("tables"))
    con.execute(schema.sql("views"))
    con.execute("INSERT INTO esr_schema VALUES (?)", [OURS])


def ingested(con: duckdb.DuckDBPyConnection, catalog: str = "") -> set[str]:
    return {row[0] for row in con.execute(f"SELECT shard FROM {catalog}esr_ingested").fetchall()}
