"""Replies in, grades out: whatever lacks a final grade is put to the judge, and each batch is kept the moment it comes.

Flows, re-judging and cross-judging grade here, and nowhere else.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from esr.count import agreement
from esr.judge import Ask, Judge
from esr.judge.cost import Bill, bill
from esr.store import Store
from esr.study.batches import work
from esr.study.progress import Progress, Tick
from esr.study.steer import texts
from esr.types import Grade, Latent, Member

if TYPE_CHECKING:
    from esr.study.study import Study

log = logging.getLogger(__name__)

AGAIN = ("unreachable", "budget", "not stored")
"""Reasons for a missing grade that another time of asking may cure; the others are final."""
BLIND = -1
"""The latent of a grade whose judge was told of none."""
Key = tuple[str, int]
"""Trial and the distractor that the judge is told of."""
Scores = dict[Key, float | None]
"""First-attempt score in [0, 1] of each final grade; None: missing for good."""


def key(member: Member) -> Key:
    return member.trial.id, member.trial.latent.index


def of(scores: Scores, member: Member) -> float | None:
    """The score of a member, also where its judge was blind."""
    return scores.get(key(member), scores.get((member.trial.id, BLIND)))


def final(store: Store, judge: Judge, ids: Sequence[str], *, again: bool = False) -> Scores:
    """What the judge has said of these trials under its instructions of today.

    With `again`, what came back unusable is not final either; that there is no attempt is a verdict and no failure.
    """
    table = store.sql(
        "select trial_id, latent, attempts[1].score / 100 as score, missing from grades "
        "where judge = ? and judge_prompt = ? and trial_id in (select unnest(?))",
        [judge.name, judge.prompt_hash, list(ids)],
    )
    stands = (None, "no attempt")
    return {
        (row["trial_id"], row["latent"]): None if row["missing"] else row["score"]
        for row in table.to_pylist()
        if (row["missing"] in stands if again else row["missing"] not in AGAIN)
    }


def finished(study: "Study", members: Sequence[Member], judge: Judge) -> set[Key]:
    """Those that have a reply and a final grade: asked once for many shards."""
    ids = [member.trial.id for member in members]
    replied, scores = study.store.known("replies", ids), final(study.store, judge, ids)
    return {k for m in members if (k := key(m))[0] in replied and (k in scores or (k[0], BLIND) in scores)}


def grades(study: "Study", members: Sequence[Member], judge: Judge, stage: str = "judge") -> Scores:
    """Grades every reply of these members that lacks a final grade; the scores of all."""
    ids = [member.trial.id for member in members]
    with study.alone("grades", judge.name, judge.prompt_hash, ids):
        scores = final(study.store, judge, ids)
        trials = {key(m): m.trial for m in members}
        lacking = {k: trial for k, trial in trials.items() if k not in scores and (k[0], BLIND) not in scores}
        study.progress.stored(stage, len(members) - len(lacking))
        if not lacking:
            return scores
        found = texts(study, [trial_id for trial_id, _ in lacking])
        asks = [
            Ask(trial_id=trial_id, prompt=trial.prompt, reply=found[trial_id], latent=trial.latent)
            for (trial_id, _), trial in lacking.items()
            if trial_id in found
        ]
        w = study.params.work
        made = put(study.store, judge, asks, size=w.batch, in_flight=w.in_flight, stage=stage, progress=study.progress)
        return scores | {(one.trial_id, one.latent): first_score(one) for one in made}


def put(
    store: Store,
    judge: Judge,
    asks: Sequence[Ask],
    *,
    size: int,
    in_flight: int = 1,
    again: bool = False,
    stage: str = "judge",
    progress: Progress | None = None,
) -> list[Grade]:
    """Puts every one of these to the judge and keeps what it says, `size` replies at a time made durable."""
    shown = progress or Progress()

    def ask(some: Sequence[Ask]) -> list[Grade]:
        shown.go_on()
        return judge.grades(some, again=again)

    made: list[Grade] = []
    whole = max(len(asks), 1) if judge.abilities.batches else size  # a provider's batch may take a day: one, not many
    for some in work(ask, asks, size=whole, in_flight=in_flight):
        store.put_grades(some)
        costs = [one.cost for one in some]
        cost = None if None in costs else sum(cost for cost in costs if cost is not None)
        shown.tick(Tick(stage, len(some), missing=sum(one.missing is not None for one in some), cost=cost))
        made += some
    return made


def first_score(grade: Grade) -> float | None:
    """The first attempt's score in [0, 1]; None when the grade is missing."""
    return grade.attempts[0].score / 100 if grade.attempts and grade.missing is None else None


STORED = """
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
    """What came of putting stored replies to another judge."""

    replies: int
    stored: int
    """Of them, how many this judge had graded before."""
    missing: dict[str, int]
    """Of the rest, by reason."""
    bill: Bill


def stored(store: Store, where: str = "true") -> list[Ask]:
    """The stored replies for which `where` holds; m is members, t trials, r replies, o outcomes."""
    rows = store.sql(STORED.format(where=where)).to_pylist()
    return [
        Ask(trial_id=row["trial_id"], prompt=row["prompt"], reply=row["text"], latent=Latent(row["latent"], row["label"]))
        for row in rows
    ]


def rejudge(
    store: Store, judge: Judge, asks: Sequence[Ask], *, size: int, again: bool = False, tick: Callable[[int], None] = lambda _: None
) -> Rejudged:
    """Grades what the judge has not graded; `again` also what came back unusable."""
    known = final(store, judge, [ask.trial_id for ask in asks], again=again)
    lacking = [ask for ask in asks if (ask.trial_id, ask.latent.index) not in known and (ask.trial_id, BLIND) not in known]
    made = put(store, judge, lacking, size=size, again=again)
    tick(len(made))
    missing = Counter(one.missing for one in made if one.missing is not None)
    log.info("%s: %d replies, %d graded before, %d graded now, missing %s", judge.name, len(asks), len(asks) - len(lacking),
             len(made) - missing.total(), dict(missing))  # fmt: skip
    return Rejudged(len(asks), len(asks) - len(lacking), dict(missing), bill(made))


def sample(store: Store, judge: str, *, size: int, per_model: int, seed: int, where: str = "true") -> pd.DataFrame:
    """Outcomes of one judge, enriched in restarts and weighted; `among` finds their replies."""
    rows = store.sql(f"select o.* from outcomes o where o.judge = ? and ({where})", [judge]).to_pandas()
    return agreement.enriched(rows, size=size, per_model=per_model, seed=seed)


def among(asks: Sequence[Ask], sample: pd.DataFrame) -> list[Ask]:
    """Those of the sample."""
    keys = set(zip(sample["trial_id"], sample["latent"].astype(int), strict=True))
    return [ask for ask in asks if (ask.trial_id, ask.latent.index) in keys]


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
