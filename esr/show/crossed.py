"""What every judge says of a sample of replies, the restart detector among them, as experiment 7 exports it."""

import pandas as pd

from esr.errors import DataError
from esr.experiment import Selection, Table
from esr.judge.lexical.restarts import restarts
from esr.store import Store

DETECTOR = "restart detector"
"""It counts restarts and gives no scores."""
COLUMNS = (
    "model", "source", "judge", "trial_id", "latent", "question", "weight", "n_attempts", "first_score", "multi", "corrected",
)  # fmt: skip
ORDER = ["source", "judge", "latent", "question", "trial_id"]


def crossed(store: Store, chosen: Selection) -> pd.DataFrame:
    """A row a judge and reply; scores are missing where the judge gives none."""
    asked = [chosen.model, chosen.scale, chosen.judge]
    rows = store.sql(f"select {', '.join(COLUMNS)} from crossed where model = ? and scale = ? and drawn_by = ?", asked).to_pandas()
    if rows.empty:
        raise DataError(
            f"no sample of {chosen.model!r} at scale {chosen.scale!r} by {chosen.judge!r} has been judged; run exp07 first"
        )
    rows = rows.astype({"corrected": "float64", "first_score": "float64"})
    sample = rows.drop_duplicates(["source", "trial_id", "latent"])
    texts = store.sql("select trial_id, text from replies where trial_id in (select unnest(?))", [sorted(set(sample["trial_id"]))])
    counts = {row["trial_id"]: len(restarts(row["text"])) for row in texts.to_pylist()}
    found = sample["trial_id"].map(counts)
    seen = sample.assign(judge=DETECTOR, n_attempts=1 + found, multi=found > 0, first_score=float("nan"), corrected=float("nan"))
    whole = pd.concat([rows, seen], ignore_index=True).astype({"n_attempts": "int32", "multi": "bool"})
    ordered: pd.DataFrame = whole.sort_values(ORDER, kind="stable", ignore_index=True)
    return ordered


CROSSED = Table("crossed", crossed)
