"""The tables that experiments export, each read from the store in a fixed order."""

import pandas as pd

from esr.errors import DataError
from esr.experiment import Selection, Table, arm_of
from esr.show.lacking import ungraded
from esr.store import Store

COLUMNS = (
    "experiment", "model", "arm", "judge", "scale", "trial_id", "latent", "question", "seed", "boost", "threshold", "n_attempts",
    "first_score", "last_score", "multi", "corrected", "degraded", "gain",
)  # fmt: skip
ORDER = ["experiment", "arm", "latent", "question", "seed", "trial_id"]


def where(chosen: Selection, *, own_alone: bool = False) -> tuple[str, list[object]]:
    """A condition over rows with experiment, arm, model, scale and judge: the experiment's own arms and those beside it."""
    beside = [] if own_alone else [arm_of(key) for key in chosen.beside]
    also = "".join(" or (experiment = ? and arm = ?)" for _ in beside)
    asked: list[object] = [chosen.model, chosen.scale, chosen.judge, chosen.experiment, *(part for pair in beside for part in pair)]
    return f"model = ? and scale = ? and judge = ? and (experiment = ?{also})", asked


def outcomes(store: Store, chosen: Selection) -> pd.DataFrame:
    """A row a graded trial."""
    condition, asked = where(chosen)
    rows = store.sql(f"select {', '.join(COLUMNS)} from outcomes where {condition}", asked).to_pandas()
    if not (rows["experiment"] == chosen.experiment).any():
        raise DataError(
            f"{chosen.experiment} has no graded trials of {chosen.model!r} at scale {chosen.scale!r} by {chosen.judge!r}; "
            + (_ungraded(store, chosen) or "run it first")
        )
    ordered: pd.DataFrame = rows.sort_values(ORDER, kind="stable", ignore_index=True)
    return ordered


WHY = f"""
select {ungraded("judged")} as why, count(*) as n from judged
where experiment = ? and model = ? and scale = ? and judge = ? group by all order by n desc, why
"""


def _ungraded(store: Store, chosen: Selection) -> str:
    """What became of those that the judge was asked about; empty where it was asked about none."""
    found = store.sql(WHY, [chosen.experiment, chosen.model, chosen.scale, chosen.judge]).to_pylist()
    told = ", ".join(f"{row['n']:,} {row['why']}" for row in found)
    line = f"python -m esr rejudge {chosen.judge} --again"
    return f"what it was asked about: {told}; name another judge, or `{line}` asks once more" if found else ""


OUTCOMES = Table("outcomes", outcomes)
