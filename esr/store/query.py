"""Questions to the store: tables and views that hold every shard durable now, whoever else writes or holds the file."""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TypeAlias

import duckdb
import pyarrow as pa

from esr.errors import StoreError
from esr.store import merge, schema, shards
from esr.store.database import OURS, Busy, file, first_line, ingest, ingested, locked, not_in
from esr.store.shards import Shard

log = logging.getLogger(__name__)


THREADS = min(4, os.cpu_count() or 1)
"""Of DuckDB. It begins as many as the machine has cores for every question, which on a large machine takes longer than the question."""


@contextmanager
def reading(root: Path, *, wait: float = 5.0, views: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own that sees tables, and unless told otherwise views, with every shard that is durable now."""
    with duckdb.connect(config={"threads": THREADS}) as con, ExitStack() as held:
        try:
            attached = _held(held, con, root, wait)
            if _behind(root, attached):
                held.close()
                ingest(root, wait=wait)
                attached = _held(held, con, root, wait)
        except Busy as busy:
            log.info("%s is not read: %s; the shards are", file(root), busy)
            attached = None
        _build(con, root, attached, views)
        yield con


def _held(held: ExitStack, con: duckdb.DuckDBPyConnection, root: Path, wait: float) -> set[str] | None:
    """The shards in the file, attached and locked for reading until `held` closes."""
    held.enter_context(locked(root, exclusive=False, wait=wait))
    held.callback(_detach, con)
    return _attach(con, root)


def _detach(con: duckdb.DuckDBPyConnection) -> None:
    with suppress(duckdb.Error):
        con.execute("USE memory; DETACH DATABASE IF EXISTS ingested")


def _behind(root: Path, attached: set[str] | None) -> bool:
    """Whether the file lacks shards that count, or holds some that are gone, as far as can be seen."""
    there = shards.listed(root)
    return attached is None or not attached <= set(there) or bool(not_in(there, attached))


def _attach(con: duckdb.DuckDBPyConnection, root: Path) -> set[str] | None:
    """The shards in the file, attached for reading; None when it is not there, not ours or held."""
    if not file(root).is_file():
        return None
    try:
        con.execute(f"ATTACH '{str(file(root)).replace(chr(39), chr(39) * 2)}' AS ingested (READ_ONLY)")
        version = con.execute("SELECT version FROM ingested.esr_schema").fetchone()
        if version and version[0] == OURS and schema.shape() <= schema.shape_of(con, "ingested"):
            return ingested(con, "ingested.")
    except duckdb.Error as error:
        log.info("%s is not read: %s; the shards are", file(root), first_line(error))
    return None


def _build(con: duckdb.DuckDBPyConnection, root: Path, attached: set[str] | None, views: bool) -> None:
    """Tables, from the attached file where there is one and from newer shards, and the views over them."""
    there = shards.listed(root)
    if attached is not None and not attached <= set(there):
        attached = None
    fresh = not_in(there, attached or set())
    con.begin()
    try:
        _tables(con, merge.by_table(fresh), attached is not None)
        if views:
            con.execute(schema.sql("views"))
        con.commit()
    except duckdb.Error as error:
        con.rollback()
        if not merge.refused(con, fresh, first_line(error)):
            raise
        _build(con, root, attached, views)


def _tables(con: duckdb.DuckDBPyConnection, newer: Mapping[str, Sequence[Shard]], attached: bool) -> None:
    if not attached:
        con.execute(schema.sql("tables"))
    for table, spec in schema.tables().items():
        source = f'ingested.main."{table}"'
        if not attached and table in newer:
            merge.merge(con, table, newer[table])
        elif attached and table in newer:
            merge.winners(con, table, newer[table], source)
            con.execute(f'CREATE TABLE "fresh_{table}" AS FROM winners')
            key = ", ".join(spec.key)
            rest = f'FROM {source} ANTI JOIN "fresh_{table}" USING ({key})'
            con.execute(f'CREATE VIEW "{table}" AS {rest} UNION ALL FROM "fresh_{table}"')
        elif attached:
            con.execute(f'CREATE VIEW "{table}" AS FROM {source}')


Ask: TypeAlias = Callable[..., pa.Table]
"""`ask(query, parameters)`."""
MEMORY = "192MB"
"""Of DuckDB while several questions are asked; it spills to disk beyond."""


@contextmanager
def asking(root: Path, known: Mapping[str, pa.Table] | None = None) -> Iterator[Ask]:
    """Several questions to the same shards, whoever writes meanwhile, in little memory. `known`: answers that stand for views."""
    try:
        with reading(root) as con:
            con.execute(f"SET memory_limit = '{MEMORY}'; SET threads = 2")
            for view, table in (known or {}).items():
                con.register(f"known_{view}", table)
                con.execute(f'CREATE OR REPLACE VIEW "{view}" AS FROM "known_{view}"')

            def ask(text: str, params: Sequence[object] = ()) -> pa.Table:
                return con.execute(text, list(params)).to_arrow_table()

            yield ask
    except duckdb.Error as error:
        raise StoreError(f"the store {str(root)!r} cannot be asked: {' '.join(str(error).split())[:300]}") from None


LISTS = r"show|desc|describe|summarize|pragma\w*|query\w*|information_schema|(?:duckdb|pg|sqlite)_\w+"
"""Words of a question about what there is to ask."""


@cache
def _seeing_views() -> re.Pattern[str]:
    names = re.findall(r"^CREATE OR REPLACE VIEW (\w+)", schema.sql("views"), re.MULTILINE)
    return re.compile(rf"\b(?:{LISTS}|{'|'.join(names)})\b", re.IGNORECASE)


def query(root: Path, text: str, params: Sequence[object], as_of: datetime | None = None) -> pa.Table:
    """The answer. To make the views takes as long as all else together, and most questions of a run are to tables alone."""
    try:
        if not _seeing_views().search(text):
            with suppress(duckdb.CatalogException):  # with the views, what is not found has its nearest name
                return _answered(root, text, params, as_of, views=False)
        return _answered(root, text, params, as_of, views=True)
    except duckdb.Error as error:
        raise StoreError(
            f"the store cannot answer {' '.join(text.split())[:200]!r}: {' '.join(str(error).split())[:300]}"
        ) from None
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"the store {str(root)!r} cannot be read: {error.strerror or error}") from None


def _answered(root: Path, text: str, params: Sequence[object], as_of: datetime | None, *, views: bool) -> pa.Table:
    with reading(root, views=views) as con:
        if as_of is not None:
            con.execute(f"SET VARIABLE as_of = TIMESTAMP '{as_of.replace(tzinfo=None).isoformat(sep=' ')}'")
        found = con.sql(text, params=list(params)) if params else con.sql(text)
        return pa.table({}) if found is None else found.to_arrow_table()
