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
from esr.judge import CURABLE, Judge, JudgeQuestion
from esr.judge.cost import Bill, bill
from esr.store import Store
from esr.study.batches import work
from esr.study.progress import Progress, Tick
from esr.study.steer import texts
from esr.types import BLIND, Grade, Latent, Member

if TYPE_CHECKING:
    from esr.study.study import Study

log = logging.getLogger(__name__)

Key = tuple[str, int]
"""Trial and the distractor that the judge is told of."""
Scores = dict[Key, float | None]
"""First-attempt score in [0, 1] of each final grade; None: missing for good."""


def key(member: Member) -> Key:
    return member.trial.id, member.trial.latent.index


def of(scores: Scores, member: Member) -> float | None:
    """The score of a member, also where its judge was blind."""
    return scores.get(key(member), scores.get((member.trial.id, BLIND)))


def question(member: Member, reply: str = "") -> JudgeQuestion:
    return JudgeQuestion(trial_id=member.trial.id, prompt=member.trial.prompt, reply=reply, latent=member.trial.latent)


def final(store: Store, judge: Judge, questions: Sequence[JudgeQuestion], *, again: bool = False) -> Scores:
    """What the judge has said of these, under its instructions of today and with the same prompt and label before it.

    With `again`, what came back unusable is not final either; that there is no attempt is a verdict and no failure.
    """
    shown = {(one.trial_id, one.latent.index): judge.shown(one) for one in questions}
    blind = {one.trial_id: shown[one.trial_id, one.latent.index] for one in questions}
    table = store.sql(
        "select trial_id, latent, shown, attempts[1].score / 100 as score, missing from grades "
        "where judge = ? and judge_prompt = ? and trial_id in (select unnest(?))",
        [judge.name, judge.prompt_hash, [one.trial_id for one in questions]],
    )
    found: Scores = {}
    for row in table.to_pylist():
        at = (row["trial_id"], row["latent"])
        now = blind[at[0]] if at[1] == BLIND else shown.get(at)
        stale = now is not None and row["shown"] is not None and row["shown"] != now
        stands = row["missing"] in (None, "no attempt") if again else row["missing"] not in CURABLE
        if stands and not stale:
            found[at] = None if row["missing"] else row["score"]
    return found


def finished(study: "Study", members: Sequence[Member], judge: Judge) -> set[Key]:
    """Those that have a reply and a final grade: asked once for many shards."""
    replied = study.store.known("replies", [member.trial.id for member in members])
    scores = final(study.store, judge, [question(member) for member in members])
    return {k for m in members if (k := key(m))[0] in replied and (k in scores or (k[0], BLIND) in scores)}


def grades(study: "Study", members: Sequence[Member], judge: Judge, stage: str = "judge") -> Scores:
    """Grades every reply of these members that lacks a final grade; the scores of all."""
    asked = {key(member): member for member in members}
    with study.alone("grades", judge.name, judge.prompt_hash, [trial_id for trial_id, _ in asked]):
        scores = final(study.store, judge, [question(member) for member in asked.values()])
        lacking = {k: member for k, member in asked.items() if k not in scores and (k[0], BLIND) not in scores}
        study.progress.stored(stage, len(members) - len(lacking))
        if not lacking:
            return scores
        replies = texts(study, [trial_id for trial_id, _ in lacking])
        questions = [question(member, replies[k[0]]) for k, member in lacking.items() if k[0] in replies]
        w = study.params.work
        made = put(study.store, judge, questions, size=w.batch, in_flight=w.in_flight, stage=stage, progress=study.progress)
        return scores | {(one.trial_id, one.latent): first_score(one) for one in made}


def put(
    store: Store,
    judge: Judge,
    questions: Sequence[JudgeQuestion],
    *,
    size: int,
    in_flight: int = 1,
    again: bool = False,
    stage: str = "judge",
    progress: Progress | None = None,
) -> list[Grade]:
    """Puts every one of these to the judge and keeps what it says, `size` replies at a time made durable."""
    shown = progress or Progress()

    def ask(some: Sequence[JudgeQuestion]) -> list[Grade]:
        shown.go_on()
        return judge.grades(some, again=again)

    made: list[Grade] = []
    whole = max(len(questions), 1) if judge.abilities.batches else size  # a provider's batch may take a day: one, not many
    for some in work(ask, questions, size=whole, in_flight=in_flight):
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
    tick: Callable[[int], None] = lambda _: None,
) -> Rejudged:
    """Grades what the judge has not graded; `again` also what came back unusable."""
    known = final(store, judge, questions, again=again)
    lacking = [one for one in questions if (one.trial_id, one.latent.index) not in known and (one.trial_id, BLIND) not in known]
    made = put(store, judge, lacking, size=size, again=again)
    tick(len(made))
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
