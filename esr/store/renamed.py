"""Trials under new ids: every row that belongs to one is written once more under its trial's new id, and the old ones stay.

Shards are named by their content and the plans, which make the new rows count, come last: so a renaming that was cut off or done by
two at once ends the same, and until its end what counted before counts.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from esr.store import schema
from esr.store.query import reading
from esr.types import content_id

if TYPE_CHECKING:
    import duckdb

    from esr.store import Store

ROWS = 5_000
"""Of a shard."""
TICK = timedelta(microseconds=1)
"""A plan under new ids stands before the same plan under old ones, and behind whatever was planned later."""
UNDATED = datetime(1970, 1, 1)
"""When a plan without a row in `plans` was made, as the views take it."""


@dataclass(frozen=True, slots=True)
class Counts:
    trials: int = 0
    replies: int = 0
    grades: int = 0


@dataclass(frozen=True, slots=True)
class Named:
    """What a trial is called from now on."""

    id: str
    meaning: str


def rename(store: "Store", new: Mapping[str, Named]) -> None:
    """Trials by their old ids; also of a trial that has no row in `trials` itself."""
    order = sorted(new)
    with reading(store.root) as con:
        con.register(
            "renamed",
            pa.table({"old": order, "new": [new[old].id for old in order], "meant": [new[old].meaning for old in order]}),
        )
        for table, spec in schema.tables().items():
            if "trial_id" in spec.key and table not in ("trials", "members"):
                _copied(store, con, table, "n.new as trial_id")
        _copied(store, con, "trials", "n.new as trial_id, n.meant as meaning")
        _planned(store, con, new)


def _copied(store: "Store", con: "duckdb.DuckDBPyConnection", table: str, told: str) -> None:
    order = ", ".join("n.new" if column == "trial_id" else f't."{column}"' for column in schema.table(table).key)
    found = con.sql(
        f'select t.* replace ({told}) from "{table}" t join renamed n on t.trial_id = n.old order by {order}'
    ).to_arrow_reader(ROWS)
    for batch in found:
        if batch.num_rows:
            store.put(table, pa.Table.from_batches([batch]))


def _planned(store: "Store", con: "duckdb.DuckDBPyConnection", new: Mapping[str, Named]) -> None:
    """Plans all of whose trials are renamed; another arm is planned anew when it is run."""
    arms: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in con.sql("select m.* from members m where m.plan != 'reference'").to_arrow_table().to_pylist():
        arms[tuple(row[name] for name in ("experiment", "model", "arm", "scale", "plan"))].append(row)
    dated: dict[tuple[str, ...], list[datetime]] = defaultdict(list)
    for row in con.sql("from plans").to_arrow_table().to_pylist():
        dated[tuple(row[name] for name in ("experiment", "model", "arm", "scale", "plan"))].append(row["recorded_at"])
    members: list[dict[str, Any]] = []
    plans: list[dict[str, Any]] = []
    for arm, some in sorted(arms.items()):
        if not all(row["trial_id"] in new for row in some):
            continue
        found = [row | {"trial_id": new[row["trial_id"]].id, "plan": ""} for row in some]
        found.sort(key=lambda row: (row["trial_id"], row["latent"]))
        plan = content_id("plan", found)
        members += [row | {"plan": plan} for row in found]
        where = dict(zip(("experiment", "model", "arm", "scale"), arm, strict=False))
        plans += [{**where, "plan": plan, "recorded_at": at + TICK} for at in sorted(dated.get(arm, [UNDATED]))]
    for table, all_ in (("members", members), ("plans", plans)):
        for i in range(0, len(all_), ROWS):
            store.put(table, all_[i : i + ROWS])


def counts(store: "Store", ids: Sequence[str]) -> Counts:
    """Of these trials, and how many of them have a reply and a grade."""
    row = store.sql(
        "with asked as (select unnest(?) as trial_id) select count(*) as trials, "
        "count(*) filter (trial_id in (select trial_id from replies)) as replies, "
        "count(*) filter (trial_id in (select trial_id from grades)) as grades from asked",
        [list(ids)],
    ).to_pylist()[0]
    return Counts(**row)
