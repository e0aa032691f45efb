"""Whether the DuckDB file says what the shards say, and which files do not count: what `python -m esr doctor` asks."""

from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from esr.store import check, merge, schema, shards
from esr.store.database import OURS, Busy, file, first_line, ingested, locked, slices
from esr.store.shards import Shard


@dataclass(frozen=True, slots=True)
class Audit:
    left_alone: dict[str, str]
    """Files among the shards that do not count, and why."""
    lost: dict[str, int] = field(default_factory=dict)
    """By table, rows of ingested shards that the DuckDB file lacks: somebody deleted them there."""
    changed: dict[str, int] = field(default_factory=dict)
    """By table, rows of the DuckDB file that are in no ingested shard: somebody wrote or changed them there."""
    not_compared: str = ""
    """Why the file was not compared; empty: it was, or is not there."""


def audit(root: Path) -> Audit:
    """Reads every shard once, slice by slice."""
    there = [shard for name, path in shards.listed(root).items() if (shard := shards.inspect(name.split("/")[0], path))]
    sound = [shard for shard in there if check.sound(shard)]
    alone = shards.left_alone(root)
    if not file(root).is_file():
        return Audit(alone)
    try:
        with locked(root, exclusive=False, wait=5.0), duckdb.connect() as con:
            con.execute(f"ATTACH '{str(file(root)).replace(chr(39), chr(39) * 2)}' AS ingested (READ_ONLY)")
            made_by = con.execute("SELECT version FROM ingested.esr_schema").fetchone()
            if not made_by or made_by[0] != OURS:
                return Audit(
                    alone, not_compared="it was made by another version of this library and is made again by the next query"
                )
            taken_in = ingested(con, "ingested.")
            return _compared(con, [shard for shard in sound if shard.name in taken_in], alone)
    except Busy as busy:
        return Audit(alone, not_compared=str(busy))
    except duckdb.Error as error:
        return Audit(alone, not_compared=first_line(error))


def _compared(con: duckdb.DuckDBPyConnection, some: list[Shard], alone: dict[str, str]) -> Audit:
    lost, changed = dict[str, int](), dict[str, int]()
    by_table = merge.by_table(some)
    for table, spec in schema.tables().items():
        row, key = (f"hash({', '.join(_quoted(names))})" for names in (spec.schema.names, spec.key))
        con.execute("CREATE OR REPLACE TEMP TABLE written (k UBIGINT, r UBIGINT)")
        for part in slices(by_table.get(table, [])):
            con.execute(f'CREATE OR REPLACE TEMP TABLE part AS FROM ingested.main."{table}" LIMIT 0')
            con.execute(f"INSERT INTO part {merge.every_row(con, table, part)}")
            con.execute(f"INSERT INTO written SELECT {key}, {row} FROM part")
        con.execute(f'CREATE OR REPLACE TEMP TABLE found AS SELECT {key} AS k, {row} AS r FROM ingested.main."{table}"')
        for out, question in (
            (lost, "SELECT count(*) FROM (SELECT DISTINCT k FROM written) ANTI JOIN found USING (k)"),
            (changed, "SELECT count(*) FROM found ANTI JOIN written USING (r)"),
        ):
            answer = con.execute(question).fetchone()
            if answer and answer[0]:
                out[table] = int(answer[0])
    return Audit(alone, lost, changed)


def _quoted(names: list[str] | tuple[str, ...]) -> list[str]:
    return [f'"{name}"' for name in names]
