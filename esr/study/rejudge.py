"""Any set of stored replies by any judge, and only what that judge has not graded yet.

A set is a condition over members, trials and outcomes in SQL, or a sample enriched in restarts; what is missing is counted by
reason, and asking once more fills what was cut short.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from esr.count import agreement
from esr.judge import CURABLE, Judge, JudgeQuestion
from esr.judge.cost import Bill, bill
from esr.store import Store
from esr.types import BLIND, Grade, Latent

log = logging.getLogger(__name__)
LIKED = """
select distinct on (m.trial_id, m.latent)
  m.trial_id, m.latent, coalesce(m.latent_label, '') as label, t.prompt, r.text
from members m join trials t using (trial_id) join replies r using (trial_id)
left join outcomes o on o.experiment = m.experiment and o.model = m.model and o.arm = m.arm and o.scale = m.scale
  and o.trial_id = m.trial_id and o.latent = m.latent
where r.text is not null and ({where})
order by m.trial_id, m.latent
"""


@dataclass(frozen=True, slots=True)
class Rejudged:
    """What came of it."""

    replies: int
    stored: int
    """Of them, how many this judge had graded before."""
    missing: dict[str, int]
    """Of the rest, by reason."""
    bill: Bill


def replies(store: Store, where: str = "true") -> list[JudgeQuestion]:
    """The stored replies for which `where` holds; m is members, t trials, r replies, o outcomes."""
    rows = store.sql(LIKED.format(where=where)).to_pylist()
    return [
        JudgeQuestion(trial_id=row["trial_id"], prompt=row["prompt"], reply=row["text"], latent=Latent(row["latent"], row["label"]))
        for row in rows
    ]


def sample(store: Store, judge: str, *, size: int, per_model: int, seed: int, where: str = "true") -> pd.DataFrame:
    """Outcomes of one judge, enriched in restarts and weighted; `among` finds their replies."""
    rows = store.sql(f"select o.* from outcomes o where o.judge = ? and ({where})", [judge]).to_pandas()
    return agreement.enriched(rows, size=size, per_model=per_model, seed=seed)


def among(questions: Sequence[JudgeQuestion], sample: pd.DataFrame) -> list[JudgeQuestion]:
    """Those of the sample."""
    keys = set(zip(sample["trial_id"], sample["latent"].astype(int), strict=True))
    return [question for question in questions if (question.trial_id, question.latent.index) in keys]


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


def rejudge(
    store: Store,
    judge: Judge,
    questions: Sequence[JudgeQuestion],
    *,
    size: int,
    again: bool = False,
    tick: Callable[[int], None] = lambda _: None,
) -> Rejudged:
    """Grades what the judge has not graded, `size` replies at a time made durable; `again` also what came back unusable."""
    known = _known(store, judge, again=again)
    lacking = [
        question
        for question in questions
        if (question.trial_id, question.latent.index) not in known and (question.trial_id, BLIND) not in known
    ]
    grades: list[Grade] = []
    for start in range(0, len(lacking), size):
        part = lacking[start : start + size]
        grades += (some := judge.grades(part, again=again))
        store.put_grades(some)
        tick(len(some))
    missing = Counter(grade.missing for grade in grades if grade.missing is not None)
    log.info("%s: %d replies, %d graded before, %d graded now, missing %s", judge.name, len(questions), len(questions) - len(lacking),
             len(grades) - missing.total(), dict(missing))  # fmt: skip
    return Rejudged(len(questions), len(questions) - len(lacking), dict(missing), bill(grades))


def _known(store: Store, judge: Judge, *, again: bool) -> set[tuple[str, int]]:
    """What has a final grade by this judge with these instructions; `no attempt` is a verdict, not a failure."""
    final = "missing is null or missing = 'no attempt'" if again else f"missing is null or missing not in {CURABLE}"
    rows = store.sql(
        f"select distinct trial_id, latent from grades where judge = ? and judge_prompt = ? and ({final})",
        [judge.name, judge.prompt_hash],
    ).to_pylist()
    return {(row["trial_id"], row["latent"]) for row in rows}
