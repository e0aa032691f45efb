"""Any set of stored replies by any judge, and only what that judge has not graded yet.

A set is a condition over the members that count, trials and outcomes in SQL, or a sample enriched in restarts; what is missing is counted by
reason, and asking once more fills what was cut short.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from esr.count import agreement
from esr.judge import Judge, JudgeQuestion
from esr.judge.cost import Bill, bill
from esr.store import Store
from esr.study import grade
from esr.types import BLIND, Latent

log = logging.getLogger(__name__)

STORED = """
select distinct on (m.trial_id, m.latent)
  m.trial_id, m.latent, coalesce(m.latent_label, '') as label, t.prompt, r.text
from current_members m join trials t using (trial_id) join replies r using (trial_id)
left join outcomes o on o.experiment = m.experiment and o.model = m.model and o.arm = m.arm and o.scale = m.scale
  and o.trial_id = m.trial_id and o.latent = m.latent
where r.text is not null and ({where})
order by m.trial_id, m.latent
"""


@dataclass(frozen=True, slots=True)
class Rejudged:
    """What came of putting stored replies to another judge."""

    replies: int
    stored: int
    """Of them, how many this judge had graded before."""
    missing: dict[str, int]
    """Of the rest, by reason."""
    bill: Bill


def stored(store: Store, where: str = "true") -> list[JudgeQuestion]:
    """The stored replies for which `where` holds; m is members, t trials, r replies, o outcomes."""
    rows = store.sql(STORED.format(where=where)).to_pylist()
    return [
        JudgeQuestion(trial_id=row["trial_id"], prompt=row["prompt"], reply=row["text"], latent=Latent(row["latent"], row["label"]))
        for row in rows
    ]


def rejudge(
    store: Store,
    judge: Judge,
    questions: Sequence[JudgeQuestion],
    *,
    size: int,
    again: bool = False,
) -> Rejudged:
    """Grades what the judge has not graded; `again` also what came back unusable."""
    known = grade.final(store, judge, questions, again=again)
    lacking = [one for one in questions if (one.trial_id, one.latent.index) not in known and (one.trial_id, BLIND) not in known]
    made = grade.put(store, judge, lacking, size=size, again=again)
    missing = Counter(one.missing for one in made if one.missing is not None)
    log.info("%s: %d replies, %d graded before, %d graded now, missing %s", judge.name, len(questions),
             len(questions) - len(lacking), len(made) - missing.total(), dict(missing))  # fmt: skip
    return Rejudged(len(questions), len(questions) - len(lacking), dict(missing), bill(made))


def sample(store: Store, judge: str, *, size: int, per_model: int, seed: int, where: str = "true") -> pd.DataFrame:
    """Outcomes of one judge, enriched in restarts and weighted; `among` finds their replies."""
    rows = store.sql(f"select o.* from outcomes o where o.judge = ? and ({where})", [judge]).to_pandas()
    return agreement.enriched(rows, size=size, per_model=per_model, seed=seed)


def among(questions: Sequence[JudgeQuestion], sample: pd.DataFrame) -> list[JudgeQuestion]:
    """Those of the sample."""
    keys = set(zip(sample["trial_id"], sample["latent"].astype(int), strict=True))
    return [one for one in questions if (one.trial_id, one.latent.index) in keys]


def weighted(outcomes: pd.DataFrame, judge: str) -> pd.DataFrame:
    """Weights for replies that several judges graded, by what `judge` made of all of its own: a stratum is a model's multi-attempt
    replies or its others, and a regraded reply stands for its share of the stratum."""
    own = outcomes[outcomes["judge"] == judge].drop_duplicates(agreement.KEYS)
    shared = outcomes[outcomes["judge"] != judge].drop_duplicates(agreement.KEYS)[agreement.KEYS]
    stratum = ["model", "multi"]
    regraded = own.merge(shared, on=agreement.KEYS)
    ratio = (own.groupby(stratum).size() / regraded.groupby(stratum).size()).rename("weight").dropna().reset_index()
    weights = regraded.merge(ratio, on=stratum)[[*agreement.KEYS, "weight"]]
    return outcomes.merge(weights, on=agreement.KEYS)
