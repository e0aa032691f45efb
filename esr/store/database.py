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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from esr.errors import StoreError
from esr.store import migration, schema, shards
from esr.store.shards import Shard

log = logging.getLogger(__name__)

OURS = f"{schema.VERSION}:{hashlib.sha256((schema.sql('tables') + schema.sql('views')).encode()).hexdigest()[:16]}"
"""What the database says when it was made by these SQL files."""

MEMORY = "192.0 MiB"
"""What DuckDB may take to bring its file up to date, as it writes sizes itself; more only when that is not enough."""

SLICE, ROWS = 32 << 20, 50_000
"""Bytes of shards, unpacked, and rows that enter in one transaction."""

BOOKKEEPING = """
CREATE TABLE IF NOT EXISTS esr_schema (version VARCHAR);
CREATE TABLE IF NOT EXISTS esr_ingested (shard VARCHAR PRIMARY KEY);
"""

_turns: dict[str, threading.Lock] = {}


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
def held(root: Path, *, exclusive: bool, wait: float) -> Iterator[None]:
    """The file's lock among our own processes and threads; `Busy` when it is not to be had in `wait` seconds."""
    path = file(root).with_suffix(".duckdb.lock")
    turn = _turns.setdefault(str(path), threading.Lock())
    until = time.monotonic() + wait
    if not turn.acquire(timeout=wait):
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
        turn.release()


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
    if not (root / "shards").is_dir() and not file(root).exists():
        return Ingested(0, 0)
    try:
        with held(root, exclusive=True, wait=wait), _opened(root) as con:
            return _bring(con, root, anew)
    except Busy as busy:
        log.info("%s is not brought up to date now: %s; queries read the shards meanwhile", file(root), busy)
        return Ingested(0, 0, str(busy))


@contextmanager
def _opened(root: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    path = file(root)
    try:
        con = duckdb.connect(str(path))
    except duckdb.Error as error:
        if not _unreadable(str(error)):
            raise Busy(_first_line(error)) from None
        aside = path.with_name(f"{path.name}.unreadable-{time.strftime('%Y%m%d-%H%M%S')}")
        log.warning(
            "%s cannot be read as a DuckDB file (%s); it is moved to %s and made again from the shards",
            path,
            _first_line(error),
            aside.name,
        )
        with suppress(OSError):
            path.with_name(path.name + ".wal").rename(aside.with_name(aside.name + ".wal"))
        try:
            path.rename(aside)
            con = duckdb.connect(str(path))
        except (OSError, duckdb.Error) as worse:
            raise Busy(_first_line(worse)) from None
    try:
        yield con
    except duckdb.Error as error:
        raise Busy(_first_line(error)) from None
    finally:
        with suppress(duckdb.Error):
            con.close()


def _unreadable(message: str) -> bool:
    return any(
        sign in message for sign in ("not a valid DuckDB", "orrupt", "hecksum", "Could not read enough bytes", "Serialization")
    )


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split("\n")[0].split())[:300]


def _bring(con: duckdb.DuckDBPyConnection, root: Path, anew: bool) -> Ingested:
    con.execute(BOOKKEEPING)
    version = con.execute("SELECT version FROM esr_schema").fetchone()
    if version and int(version[0].split(":")[0]) > schema.VERSION:
        raise Busy(f"it was made by a newer version of this library (schema {version[0].split(':')[0]})")
    con.execute(
        f"SET memory_limit = '{MEMORY}'; SET threads = 1"
    )  # a second thread takes as much CPU again as it saves, and memory
    there = shards.listed(root)
    done = _ingested(con)
    if anew or not version or version[0] != OURS or not done <= set(there):
        con.begin()
        _begin_again(con)
        con.commit()
        done = set()
    rows = sum(_enter(con, some) for some in _slices(_found(there, done)))
    return Ingested(len(_ingested(con) - done), rows)


def _enter(con: duckdb.DuckDBPyConnection, some: Sequence[Shard]) -> int:
    """These shards in one transaction, without the damaged ones; how many rows came to be."""
    con.begin()
    try:
        rows = sum(_merge(con, table, of) for table, of in _by_table(some).items())
        con.execute("INSERT INTO esr_ingested SELECT unnest(?)", [[shard.name for shard in some]])
        con.commit()
        return rows
    except duckdb.Error as error:
        with suppress(duckdb.Error):
            con.rollback()
        if isinstance(error, duckdb.OutOfMemoryException) and _bounded(con):
            con.execute("SET memory_limit = '-1'")  # none; RESET changes nothing
            return _enter(con, some)
        sound = [shard for shard in some if shards.whole(shard)]
        if len(sound) == len(some):
            raise
        return _enter(con, sound) if sound else 0


def _bounded(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether this connection still keeps to MEMORY."""
    row = con.execute(f"SELECT current_setting('memory_limit') = '{MEMORY}'").fetchone()
    return bool(row and row[0])


def _found(there: Mapping[str, Path], done: set[str]) -> list[Shard]:
    """The readable shards that are not yet in."""
    return [shard for name, path in there.items() if name not in done and (shard := shards.inspect(name.split("/")[0], path))]


def _slices(found: Sequence[Shard]) -> Iterator[list[Shard]]:
    """Shards in the order they were written, as many as fit into memory easily."""
    some, size, rows = list[Shard](), 0, 0
    for shard in sorted(found, key=_age):
        if some and (size + shard.size > SLICE or rows + shard.rows > ROWS):
            yield some
            some, size, rows = [], 0, 0
        some, size, rows = [*some, shard], size + shard.size, rows + shard.rows
    if some:
        yield some


def _age(shard: Shard) -> tuple[str, str, str]:
    return shard.table, shard.written, shard.name


def _begin_again(con: duckdb.DuckDBPyConnection) -> None:
    """Our tables and views anew; what a person made beside them stays."""
    for kind, catalog in (("VIEW", "duckdb_views()"), ("TABLE", "duckdb_tables()")):
        names = {item.name for item in schema.described() if item.kind == kind.lower()}
        have = {row[0] for row in con.execute(f"SELECT {kind.lower()}_name FROM {catalog} WHERE NOT internal").fetchall()}
        for name in sorted(names & have):
            con.execute(f'DROP {kind} "{name}"')
    con.execute("DELETE FROM esr_ingested; DELETE FROM esr_schema;")
    con.execute(schema.sql("tables"))
    con.execute(schema.sql("views"))
    con.execute("INSERT INTO esr_schema VALUES (?)", [OURS])


def _ingested(con: duckdb.DuckDBPyConnection, catalog: str = "") -> set[str]:
    return {row[0] for row in con.execute(f"SELECT shard FROM {catalog}esr_ingested").fetchall()}


def _by_table(found: Sequence[Shard]) -> dict[str, list[Shard]]:
    """Oldest first, so that of equal rows the first written stands."""
    out: dict[str, list[Shard]] = {}
    for shard in sorted(found, key=_age):
        out.setdefault(shard.table, []).append(shard)
    return out


def _merge(con: duckdb.DuckDBPyConnection, table: str, some: Sequence[Shard]) -> int:
    """Rows of these shards into the table of the open database; how many came to be."""
    before = _count(con, table)
    if table in schema.BETTER:
        _select(con, table, some, existing=f'"{table}"')
        key = ", ".join(schema.table(table).key)
        con.execute(f'DELETE FROM "{table}" WHERE ({key}) IN (SELECT ({key}) FROM winners)')
        con.execute(f'INSERT INTO "{table}" FROM winners; DROP TABLE winners')
    else:
        con.execute(f'INSERT OR IGNORE INTO "{table}" {_oldest(con, table, some)}')
    return _count(con, table) - before


def _oldest(con: duckdb.DuckDBPyConnection, table: str, some: Sequence[Shard]) -> str:
    """A query for the rows of these shards, of equal keys the one from the oldest shard.

    Files are scanned in parallel, so which of two equal keys comes first is chance; only where keys repeat is the order worth a sort.
    """
    columns, key, fresh = _columns(table), ", ".join(schema.table(table).key), _fresh(con, table, some)
    repeated = con.execute(f"SELECT 1 FROM ({fresh}) GROUP BY {key} HAVING count(*) > 1 LIMIT 1").fetchone()
    first = f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY nth) = 1" if repeated else ""
    return f"SELECT {columns} FROM ({fresh}) {first}"


def _count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    row = con.execute(f'SELECT count(*) FROM "{table}"').fetchone()
    return int(row[0]) if row else 0


def _columns(table: str) -> str:
    return ", ".join(f'"{name}"' for name in schema.table(table).schema.names)


def _fresh(con: duckdb.DuckDBPyConnection, table: str, some: Sequence[Shard]) -> str:
    """A query for the rows of these shards with the `nth` of each one's shard, 0 the oldest; in no order."""
    columns, sources = _columns(table), list[str]()
    old = [
        migration.read(shard).append_column("nth", pa.array([i] * shard.rows))
        for i, shard in enumerate(some)
        if shard.version < schema.VERSION
    ]
    if old:
        con.register("migrated", pa.concat_tables(old))
        sources.append(f"SELECT {columns}, nth FROM migrated")
    now = [(i, str(shard.path)) for i, shard in enumerate(some) if shard.version == schema.VERSION]
    if now:
        con.register("places", pa.table({"nth": [i for i, _ in now], "path": [path for _, path in now]}))
        paths = ", ".join("'" + path.replace("'", "''") + "'" for _, path in now)
        sources.append(f"SELECT {columns}, nth FROM read_parquet([{paths}], filename = true) JOIN places ON path = filename")
    return " UNION ALL ".join(sources)


def _select(con: duckdb.DuckDBPyConnection, table: str, some: Sequence[Shard], existing: str | None) -> None:
    """Temporary table `winners`: rows of these shards that are new or stand before the existing ones."""
    columns, key = _columns(table), ", ".join(schema.table(table).key)
    order = f"{schema.BETTER[table]}, nth" if table in schema.BETTER else "nth"
    have = f" UNION ALL SELECT {columns}, -1 FROM {existing} SEMI JOIN fresh USING ({key})" if existing else ""
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE winners AS WITH fresh AS MATERIALIZED ({_fresh(con, table, some)}) "
        f"SELECT {columns} FROM (SELECT * FROM fresh{have}) "
        f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {order}) = 1 AND nth >= 0"
    )


@contextmanager
def reading(root: Path, *, wait: float = 5.0) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own that sees tables and views with every shard that is durable now."""
    if _behind(root, wait):
        ingest(root, wait=wait)
    with duckdb.connect() as con:
        try:
            lock = held(root, exclusive=False, wait=wait)
            lock.__enter__()
        except Busy as busy:
            log.info("%s is not read: %s; the shards are", file(root), busy)
            _lay(con, root, None)
            yield con
            return
        try:
            _lay(con, root, _attach(con, root))
            yield con
        finally:
            with suppress(duckdb.Error):
                con.execute("USE memory; DETACH DATABASE IF EXISTS ingested")
            lock.__exit__(None, None, None)


def _behind(root: Path, wait: float) -> bool:
    """Whether the file lacks shards, as far as can be seen."""
    try:
        with held(root, exclusive=False, wait=wait), duckdb.connect() as con:
            return _attach(con, root) != set(shards.listed(root))
    except Busy:
        return False


def _attach(con: duckdb.DuckDBPyConnection, root: Path) -> set[str] | None:
    """The shards in the file, attached for reading; None when it is not there, not ours or held."""
    if not file(root).is_file():
        return None
    try:
        con.execute(f"ATTACH '{str(file(root)).replace(chr(39), chr(39) * 2)}' AS ingested (READ_ONLY)")
        version = con.execute("SELECT version FROM ingested.esr_schema").fetchone()
        if version and version[0] == OURS:
            return _ingested(con, "ingested.")
    except duckdb.Error as error:
        log.info("%s is not read: %s; the shards are", file(root), _first_line(error))
    return None


def _lay(con: duckdb.DuckDBPyConnection, root: Path, attached: set[str] | None) -> None:
    """Tables, from the attached file where there is one and from newer shards, and the views over them."""
    there = shards.listed(root)
    if attached is not None and not attached <= set(there):
        attached = None
    fresh = _found(there, attached or set())
    con.begin()
    try:
        _tables(con, _by_table(fresh), attached is not None)
        con.commit()
    except duckdb.Error:
        con.rollback()
        if all(shards.whole(shard) for shard in fresh):
            raise
        _lay(con, root, attached)


def _tables(con: duckdb.DuckDBPyConnection, newer: Mapping[str, Sequence[Shard]], attached: bool) -> None:
    if not attached:
        con.execute(schema.sql("tables"))
    for table, spec in schema.tables().items():
        source = f'ingested.main."{table}"'
        if not attached and table in newer:
            _merge(con, table, newer[table])
        elif attached and table in newer:
            _select(con, table, newer[table], source)
            con.execute(f'CREATE TABLE "fresh_{table}" AS FROM winners')
            key = ", ".join(spec.key)
            rest = f'FROM {source} ANTI JOIN "fresh_{table}" USING ({key})'
            con.execute(f'CREATE VIEW "{table}" AS {rest} UNION ALL FROM "fresh_{table}"')
        elif attached:
            con.execute(f'CREATE VIEW "{table}" AS FROM {source}')
    con.execute(schema.sql("views"))


def query(root: Path, text: str, params: Sequence[object]) -> pa.Table:
    try:
        with reading(root) as con:
            found = con.sql(text, params=list(params)) if params else con.sql(text)
            return pa.table({}) if found is None else found.to_arrow_table()
    except duckdb.Error as error:
        raise StoreError(
            f"the store cannot answer {' '.join(text.split())[:200]!r}: {' '.join(str(error).split())[:300]}"
        ) from None
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"the store {str(root)!r} cannot be read: {error.strerror or error}") from None
