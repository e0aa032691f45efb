"""What experiment 11 exports: outcomes of continuations, in which one that opens with a restart takes up its beginning.

A judge grades the continuation alone. Where that opens with a restart, the attempt that it takes up is the beginning, whose score is
that of the first attempt of the reply that it was cut from: so it counts as a second attempt, and as corrected if its score is higher.
"""

import pandas as pd

from esr.experiment import Selection, Table
from esr.judge.lexical.restarts import has_content, restarts
from esr.show.tables import outcomes
from esr.store import Store
from esr.types import BASELINE

PAIR = ["latent", "question", "seed"]


def opens(text: str) -> bool:
    """Whether a continuation begins with a restart: nothing is attempted before it."""
    found = restarts(text)
    return bool(found) and not has_content(text[: found[0].start])


def continuations(store: Store, chosen: Selection) -> pd.DataFrame:
    """A row a graded trial, the baseline's beside them; `opened` says where a beginning was taken up."""
    rows = outcomes(store, chosen)
    texts = store.sql(
        "select trial_id, text from replies where trial_id in (select unnest(?))", [rows["trial_id"].tolist()]
    ).to_pandas()
    own = rows["experiment"] == chosen.experiment
    opened = rows["trial_id"].map(texts.set_index("trial_id")["text"]).map(opens) & own
    base = rows[(rows["experiment"] == BASELINE.experiment) & (rows["arm"] == BASELINE.name)].set_index(PAIR)["first_score"]
    began = pd.Series(base.reindex(pd.MultiIndex.from_frame(rows[PAIR])).to_numpy(), index=rows.index)
    opened &= began.notna()
    rows["n_attempts"] = rows["n_attempts"] + opened.astype(rows["n_attempts"].dtype)
    rows["first_score"] = rows["first_score"].where(~opened, began)
    rows["multi"] = rows["n_attempts"] >= 2
    rows["gain"] = rows["last_score"] - rows["first_score"]
    rows["corrected"] = rows["multi"] & (rows["gain"] > 0)
    rows["opened"] = opened
    return rows


CONTINUATIONS = Table("outcomes", continuations)
