"""Results on their way from one store to another: a folder that is a small store of its own."""

from collections.abc import Mapping
from pathlib import Path

from esr.errors import StoreError
from esr.store import Store, schema

OF = {
    "members": "experiment = $1 and model = $2",
    "plans": "experiment = $1 and model = $2",
    "arms": "experiment = $1 and model = $2",
    "trials": "trial_id in (select trial_id from members where experiment = $1 and model = $2)",
    "replies": "trial_id in (select trial_id from members where experiment = $1 and model = $2)",
    "grades": "trial_id in (select trial_id from members where experiment = $1 and model = $2)",
    "recoveries": "trial_id in (select trial_id from members where experiment = $1 and model = $2)",
    "thresholds": "$1 <> '' and model = $2",
    "norms": "$1 <> '' and model = $2",
    "lengths": "$1 <> '' and model = $2",
    "audit_sheets": "experiment = $1 and model = $2",
    "audit_labels": "sheet in (select sheet from audit_sheets where experiment = $1 and model = $2)",
    "runs": "experiment = $1 and model = $2 and hidden is not true",
}
"""Which rows belong to an experiment on a model. What an SAE reads of texts stays: it is large and can be read again."""


def pack(store: Store, experiment: str, model: str, folder: Path) -> dict[str, int]:
    """The results of an experiment on a model as a store in this folder, which is new or empty; rows by table."""
    if folder.exists() and any(folder.iterdir()):
        raise StoreError(f"{str(folder)!r} is not empty; name a folder that is new, so that nothing else is handed on")
    found = {
        table: store.sql(f"select * from {table} where {which} order by all", [experiment, model]) for table, which in OF.items()
    }
    if not found["members"].num_rows:
        raise StoreError(
            f'the store holds nothing of {experiment!r} on {model!r}; `python -m esr sql "from summary"` shows what there is'
        )
    parcel = Store(folder)
    for table, rows in found.items():
        if rows.num_rows:
            parcel.put(table, rows)
    return {table: rows.num_rows for table, rows in found.items()}


def unpack(folder: Path, store: Store) -> tuple[dict[str, int], list[str]]:
    """Everything that is in the parcel; rows by table, and the arms that were planned here too: of two plans the later one stands."""
    if not (folder / "shards").is_dir():
        raise StoreError(f"{str(folder)!r} is no folder that `python -m esr share` has made; it lacks `shards`")
    if folder.absolute() == store.root:
        raise StoreError(f"{str(folder)!r} is this store itself; ESR_STORE names the one that takes")
    parcel = Store(folder)
    if broken := parcel.audit().left_alone:
        name, why = next(iter(broken.items()))
        raise StoreError(
            f"{len(broken)} files of {str(folder)!r} do not count, {name} first ({why}); have it sent again, nothing was taken"
        )
    found = {table: parcel.sql(f"select * from {table} order by all") for table in schema.tables()}
    both = _both(_planned(store), _planned(parcel))
    for table, rows in found.items():
        if rows.num_rows:
            store.put(table, rows)
    return {table: rows.num_rows for table, rows in found.items() if rows.num_rows}, both


def _planned(store: Store) -> Mapping[str, str]:
    """The plan that stands of each arm."""
    rows = store.sql("select distinct experiment, model, arm, scale, plan from current_members").to_pylist()
    return {f"{row['experiment']}/{row['arm']} on {row['model']}, {row['scale']}": row["plan"] for row in rows}


def _both(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    return sorted(arm for arm, plan in there.items() if here.get(arm, plan) != plan)
