"""The tables as the SQL files define them: columns, keys, Arrow types, and what each is for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import duckdb
import pyarrow as pa

from esr.errors import StoreError, one_of

VERSION = 5
"""Of the tables in esr/sql/tables.sql; esr/store/migration.py reads shards of every earlier one."""

BETTER = {
    "arms": "recorded_at DESC",
    "detectors": "auc IS NULL, auc_held_out IS NULL",
    "grades": "missing IS NOT NULL, graded_at DESC NULLS LAST",
    "lengths": "measured_at DESC",
    "norms": "measured_at DESC",
    "recoveries": "missing IS NOT NULL, judged_at DESC",
    "samples": "drawn_at DESC",
    "runs": "finished_at DESC NULLS LAST, recorded_at DESC NULLS LAST",
    "watched": "recorded_at DESC",
}
"""Which of several rows with one primary key stands: the first in this order. Elsewhere such rows are equal."""


@cache
def sql(name: str) -> str:
    return (files("esr") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    """Primary key."""
    required: tuple[str, ...]
    """Columns that are never NULL."""

    @property
    def id(self) -> str:
        """The column that `Store.known` asks about."""
        named = "sha256" if self.name in ("imports", "provenance", "findings") else "_id"
        return next((c for c in self.key if c.endswith(named)), self.key[0])


@cache
def tables() -> dict[str, Table]:
    with duckdb.connect() as con:
        con.execute(sql("tables"))
        keys = con.execute(
            "SELECT table_name, constraint_column_names FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY' ORDER BY table_name"
        ).fetchall()
        required = con.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT is_nullable").fetchall()
        return {
            name: Table(
                name,
                pa.schema([pa.field(f.name, f.type) for f in con.table(name).to_arrow_table().schema]),
                tuple(key),
                tuple(column for table, column in required if table == name),
            )
            for name, key in keys
        }


def table(name: str) -> Table:
    known = tables()
    if name not in known:
        raise StoreError(one_of("table", name, list(known), "the store"))
    return known[name]


def typed(name: str, rows: Sequence[Mapping[str, Any]] | pa.Table) -> pa.Table:
    """`rows` as the table's Arrow type; an unknown column, a wrong type or a missing key is refused by name."""
    spec = table(name)
    given = list(dict.fromkeys(key for row in rows for key in row)) if not isinstance(rows, pa.Table) else rows.column_names
    for column in given:
        if column not in spec.schema.names:
            raise StoreError(one_of("column", column, spec.schema.names, f"table {name!r}"))
    try:
        if isinstance(rows, pa.Table):
            columns = [rows[f.name].cast(f.type) if f.name in given else pa.nulls(len(rows), f.type) for f in spec.schema]
            data = pa.table(columns, schema=spec.schema)
        else:
            data = pa.Table.from_pylist([dict(row) for row in rows], schema=spec.schema)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise StoreError(f"rows for table {name!r} do not have its types: {' '.join(str(error).split())[:200]}") from None
    for column in spec.required:
        if data[column].null_count:
            raise StoreError(
                f"{data[column].null_count} rows for table {name!r} lack {column!r}, which identifies them; nothing was stored"
            )
    return data.combine_chunks()


def unlike(name: str, data: pa.Table) -> str:
    """How a whole table differs from what the table of this name holds; empty: it does not."""
    spec = table(name)
    for field in spec.schema:
        if field.name not in data.column_names:
            return f"lacks the column {field.name!r} of table {name!r}"
        if not _same(data.schema.field(field.name).type, field.type):
            return f"has {data.schema.field(field.name).type} in column {field.name!r}, where table {name!r} has {field.type}"
    if len(data.column_names) > len(spec.schema):
        return f"has columns that table {name!r} has not"
    empty = [column for column in spec.required if data[column].null_count]
    return f"has rows without {empty[0]!r}, which identifies them" if empty else ""


def _same(a: pa.DataType, b: pa.DataType) -> bool:
    """Whether types are one but for the names of lists' items."""
    if pa.types.is_list(a) and pa.types.is_list(b):
        return _same(a.value_type, b.value_type)
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        return [f.name for f in a] == [f.name for f in b] and all(_same(x.type, y.type) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    about: str


@dataclass(frozen=True, slots=True)
class Described:
    """A table or view as its SQL comments describe it."""

    name: str
    kind: str
    about: str
    key: str
    columns: tuple[Column, ...]


@cache
def shape() -> frozenset[tuple[str, str, str]]:
    """Table or view, column and type of all that the SQL files make."""
    with duckdb.connect() as con:
        con.execute(sql("tables"))
        con.execute(sql("views"))
        return shape_of(con)


def shape_of(con: duckdb.DuckDBPyConnection, catalog: str | None = None) -> frozenset[tuple[str, str, str]]:
    """The same of an open database, or of one that is attached to it."""
    query = (
        "SELECT table_name, column_name, data_type FROM duckdb_columns() "
        "WHERE NOT internal AND schema_name = 'main' AND database_name = coalesce(?, current_database())"
    )
    return frozenset(con.execute(query, [catalog]).fetchall())


def described() -> list[Described]:
    """Every table and view, in the order of the SQL files; a column without a comment is a mistake in them."""
    with duckdb.connect() as con:
        con.execute(sql("tables"))
        con.execute(sql("views"))
        rows = con.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY table_name, column_index"
        ).fetchall()
    types: dict[str, dict[str, str]] = {}
    for name, column, kind in rows:
        types.setdefault(name, {})[column] = kind
    out = []
    for kind, text in (("table", sql("tables")), ("view", sql("views"))):
        for about, name, body in re.findall(r"((?:^-- [^\n]*\n)+)CREATE (?:OR REPLACE VIEW|TABLE) (\w+)(.*?;)$", text, re.M | re.S):
            comments = _comments(body)
            columns = tuple(Column(column, kind_, comments[column]) for column, kind_ in types[name].items())
            key = ", ".join(tables()[name].key) if kind == "table" else ""
            lines = [line.removeprefix("-- ") for line in about.splitlines()]
            out.append(Described(name, kind, " ".join(lines), key, columns))
    return out


def _comments(body: str) -> dict[str, str]:
    """The comment of each column: the last word before the comma is the column of a view, the first that of a table."""
    found: dict[str, str] = {}
    for line in body.splitlines():
        code, mark, comment = line.partition("-- ")
        if not mark:
            continue
        code = code.strip().rstrip(",")
        first, last = code.split()[0].split(".")[-1], code.split()[-1].split(".")[-1]
        for name in (first, last):
            found.setdefault(name.strip('"'), comment.strip())
    return found


HEAD = """# The store

Generated from esr/sql by `python -m esr schema --markdown`. Schema version {version}. Query it with `python -m esr sql "from summary"`, which
always sees the newest shards, or open `store/esr.duckdb`.

Shards are the truth: one Parquet file for each batch below `store/shards`, written whole or not at all. A shard is checked whole before it
counts, by the hash that it holds of all its bytes, or page by page where another program or an older version wrote it. One that fails
stays where it lies, is named in a warning, and nothing of it counts; `python -m esr doctor` lists all of them and compares `esr.duckdb` with
the shards, so that rows deleted or changed there by hand are noticed. Delete `esr.duckdb` at any time and it is made again.

Where the newest of several rows stands, it is the one recorded last in this store, also when the machine's clock was set back: times in the
store only grow.
"""

HISTORY = """
## One command each

```bash
python -m esr runs                                                      # every run with its judge, status, cost and duration
python -m esr runs name RUN "before the new SAE"                        # a name of your own for it
python -m esr runs hide RUN                                             # out of the list; `runs --all` shows it, `runs unhide` brings it back
python -m esr show TRIAL                                                # one reply whole, its attempts marked, every verdict
python -m esr diff exp05/self_monitor exp01/baseline --model tiny       # in pairs, with intervals, and the trials that changed
python -m esr export exp05 tiny --to exp05.csv                          # a row a graded trial; .parquet as well, --text for the replies
python -m esr share exp05 tiny --to exp05-tiny                          # a folder for a colleague
python -m esr take exp05-tiny                                           # what a colleague shared becomes part of this store
```

RUN and TRIAL are ids of the lists; their first characters are enough. `diff` takes two arms, models, judges, presets, runs or plans. It says
which trials have no partner (the same latent, question and seed) and why, then the trials that changed: those whose outcome changed furthest
first, then by their scores, then by how early their words part. Of two runs, or of presets by their newest runs, what they were made with comes first; their
trials are those planned when they ended, also where an arm was planned anew since. In Python every query is a table, of Arrow or of pandas:

```python
from esr.store import Store

frame = Store().sql("from outcomes").to_pandas()
```
"""


EXAMPLES = (
    (
        "Rates of every arm, with what is missing: not asked yet, or asked and without a valid grade.",
        "select experiment, model, arm, scale, judge, n_graded, n_pending, n_failed, multi_attempt_rate, esr_rate from summary",
    ),
    (
        "What an arm changes in pairs: how often it corrects itself and the arm beside it does not, and the other way round.",
        "select experiment, arm, model, scale, judge, count(*) as pairs, count(*) filter (corrected and not against_corrected) as gained, "
        "count(*) filter (against_corrected and not corrected) as lost from pairs group by all order by all",
    ),
    (
        "The ten replies that gained most, to read: `python -m esr show` shows each whole.",
        "select trial_id, arm, latent_label, scores, text from outcomes join replies using (trial_id) order by gain desc, trial_id limit 10",
    ),
    (
        "Which latents correct themselves most, of those with at least five graded trials.",
        "select model, latent, latent_label, count(*) as n, avg(corrected::int) as esr_rate from outcomes "
        "where experiment = 'exp01' group by all having n >= 5 order by esr_rate desc, latent limit 20",
    ),
    (
        "How strong the steering must be: thresholds with their intervals and how the search ended.",
        "select model, latent, label, threshold, low, high, status, verified_score from thresholds where clamped is null order by model, latent",
    ),
    (
        "The curve over strength: rate and first score of each level of a series.",
        "select s.arm, a.kind, a.level, s.n_graded, s.esr_rate, s.first_score_mean from summary s "
        "join current_arms a using (experiment, model, arm, scale) where a.level is not null order by a.kind, a.level",
    ),
    (
        "Why grades are missing, by judge.",
        "select judge, missing, count(*) as n from grades where missing is not null group by all order by n desc",
    ),
    (
        "What judging has cost, by judge and experiment; a reply that several arms share counts in each.",
        "select j.experiment, j.judge, count(*) as grades, sum(j.cost) as dollars from judged j group by all order by all",
    ),
    (
        "Replies that two judges see differently: one finds a correction, the other none.",
        "select a.trial_id, a.judge, b.judge as other, a.scores, b.scores as other_scores from outcomes a "
        "join outcomes b using (experiment, model, arm, scale, trial_id, latent) where a.judge < b.judge and a.corrected <> b.corrected",
    ),
    (
        "Runs at work and runs done, newest first.",
        "select run_id, name, experiment, model, scale, judge, status, started_at, finished_at - started_at as took, cost from runs "
        "where hidden is not true order by started_at desc",
    ),
)
"""What is worth asking, each with its query."""


def markdown() -> str:
    """docs/store.md."""
    queries = "\n".join(f"\n{about}\n\n```sql\n{query}\n```" for about, query in EXAMPLES)
    parts = [HEAD.format(version=VERSION), HISTORY, f"\n## Ten queries\n{queries}\n"]
    for item in described():
        key = f" Primary key: {item.key}." if item.key else ""
        lines = [f"\n## {item.kind} `{item.name}`\n", f"{item.about}{key}\n", "| column | type | |", "|---|---|---|"]
        lines += [f"| {c.name} | {c.type.replace('|', '/')} | {c.about} |" for c in item.columns]
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)
