"""Recovery without words: whether the end of a reply is more about its question than its beginning, whatever it says of itself.

A second outcome beside corrections, and in none of their rates. What is stored is not asked again, but for what another run may cure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from esr.errors import DataError, JudgeError
from esr.judge import CURABLE, Judge, JudgeQuestion, Relevances
from esr.judge.lexical.restarts import restarts
from esr.store import Store
from esr.types import Latent

REPLIES = """
select distinct on (m.trial_id) m.trial_id, t.prompt, r.text
from current_members m join trials t using (trial_id) join replies r using (trial_id)
where m.experiment = ? and m.model = ? and m.scale = ? order by m.trial_id
"""


@dataclass(frozen=True, slots=True)
class Read:
    """What came of one reading of an experiment's replies."""

    replies: int
    stored: int
    """Of them, how many had been read before."""
    cost: float | None
    """US dollars of this reading; None: a price is unknown."""


def read(store: Store, judge: Judge, experiment: str, model: str, scale: str, *, size: int) -> Read:
    """Every reply of an experiment's arms is read that this judge has not read, `size` made durable at a time."""
    if not isinstance(judge, Relevances):
        raise JudgeError(
            f"judge {judge.name!r} does not say how far passages are about a question; choose another, such as lexical"
        )
    rows = store.sql(REPLIES, [experiment, model, scale]).to_pylist()
    if not rows:
        raise DataError(
            f'{experiment} has no replies of {model!r} at scale {scale!r}; `python -m esr sql "from summary"` shows what there is'
        )
    done = store.sql(
        "select trial_id from recoveries where judge = ? and judge_prompt = ? and (missing is null or missing not in (select unnest(?)))",
        [judge.name, judge.relevance_hash, list(CURABLE)],
    )
    known = set(done["trial_id"].to_pylist())
    lacking = [
        JudgeQuestion(trial_id=row["trial_id"], prompt=row["prompt"], reply=row["text"], latent=Latent(-1))
        for row in rows
        if row["trial_id"] not in known
    ]
    costs = [_put(store, judge, lacking[at : at + size]) for at in range(0, len(lacking), size)]
    return Read(len(rows), len(rows) - len(lacking), None if None in costs else sum(cost for cost in costs if cost is not None))


def _put(store: Store, judge: Relevances, some: Sequence[JudgeQuestion]) -> float | None:
    found = judge.relevances(some)
    store.put_recoveries(
        [
            {
                "trial_id": one.trial_id,
                "judge": judge.name,
                "judge_prompt": judge.relevance_hash,
                "first_relevance": one.first,
                "last_relevance": one.last,
                "restarts": len(restarts(question.reply)),
                "missing": one.missing,
                "cost": one.cost,
            }
            for question, one in zip(some, found, strict=True)
        ]
    )
    costs = [one.cost for one in found]
    return None if None in costs else sum(cost for cost in costs if cost is not None)
