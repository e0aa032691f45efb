"""Rows of shards, merged into tables by their primary keys: of several with one key the same one stands in every order of reading."""

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from esr.store import migration, schema, shards
from esr.store.shards import Shard


def age(shard: Shard) -> tuple[str, str, str]:
    """Sorts shards by table and time of writing."""
    return shard.table, shard.written, shard.name


def by_table(found: Sequence[Shard]) -> dict[str, list[Shard]]:
    """Oldest first, so that of equal rows the first written stands."""
    out: dict[str, list[Shard]] = {}
    for shard in sorted(found, key=age):
        out.setdefault(shard.table, []).append(shard)
    return out


def merge(con: duckdb.DuckDBPyConnection, table: str, some: Sequence[Shard]) -> int:
    """Rows of these shards into the table of the open database; how many came to be."""
    before = _count(con, table)
    if table in schema.BETTER:
        winners(con, table, some, existing=f'"{table}"')
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


def winners(con: duckdb.DuckDBPyConnection, table: str, some: Sequence[Shard], existing: str | None) -> None:
    """Temporary table `winners`: rows of these shards that are new or stand before the existing ones."""
    columns, key = _columns(table), ", ".join(schema.table(table).key)
    order = f"{schema.BETTER[table]}, nth" if table in schema.BETTER else "nth"
    have = f" UNION ALL SELECT {columns}, -1 FROM {existing} SEMI JOIN fresh USING ({key})" if existing else ""
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE winners AS WITH fresh AS MATERIALIZED ({_fresh(con, table, some)}) "
        f"SELECT {columns} FROM (SELECT * FROM fresh{have}) "
        f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {order}) = 1 AND nth >= 0"
    )


def every_row(con: duckdb.DuckDBPyConnection, table: str, some: Sequence[Shard]) -> str:
    """A query for the rows of these shards as they are, also where keys repeat."""
    return f"SELECT {_columns(table)} FROM ({_fresh(con, table, some)})"


def refused(con: duckdb.DuckDBPyConnection, some: Sequence[Shard], why: str) -> list[Shard]:
    """Those of the shards that DuckDB cannot read, though they were found sound; they are left alone from now on."""
    out = []
    for shard in some:
        try:
            con.execute(f"CREATE OR REPLACE TEMP TABLE probe AS {_fresh(con, shard.table, [shard])}; DROP TABLE probe")
        except duckdb.Error:
            shards.leave(shard.path, f"is refused by DuckDB ({why})")
            out.append(shard)
    return out
