"""Replies in, grades out: whatever lacks a final grade is put to the judge, and each batch is kept the moment it comes.

Flows, re-judging and cross-judging grade here, and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from esr.errors import JudgeBusy
from esr.judge import CURABLE, Judge, JudgeQuestion
from esr.study.batches import work
from esr.study.progress import Progress, Tick
from esr.types import BLIND, Grade, Member

if TYPE_CHECKING:
    from esr.store import Store
    from esr.study.study import Study

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


def final(store: "Store", judge: Judge, questions: Sequence[JudgeQuestion], *, again: bool = False) -> Scores:
    """What the judge has said of these, under its instructions of today and with the same prompt and label before it.

    With `again`, what came back unusable is not final either; that there is no attempt is a verdict and no failure.
    """
    if not store.known("grades", [one.trial_id for one in questions]):
        return {}
    shown = {(one.trial_id, one.latent.index): judge.shown(one) for one in questions}
    blind = {one.trial_id: shown[one.trial_id, one.latent.index] for one in questions}
    table = store.sql(
        'select trial_id, latent, shown, list_filter(attempts, lambda a: a."start" is not null)[1].score / 100 as score, missing from grades '
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
        there = len(members) - len(lacking)
        study.progress.stored(stage, there)
        if not lacking:
            return scores
        replies = study.store.texts([trial_id for trial_id, _ in lacking])
        questions = [question(member, replies[k[0]]) for k, member in lacking.items() if k[0] in replies]
        w = study.params.work
        try:
            made = put(study.store, judge, questions, size=w.batch, in_flight=w.in_flight, stage=stage, progress=study.progress)
        except JudgeBusy:
            study.progress.stored(stage, -there)
            raise
        return scores | {(one.trial_id, one.latent): first_score(one) for one in made}


def put(
    store: "Store",
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
    shown, counted = progress or Progress(), Tick(stage, 0)

    def ask(some: Sequence[JudgeQuestion]) -> list[Grade]:
        shown.go_on()
        return judge.grades(some, again=again)

    made: list[Grade] = []
    whole = max(len(questions), 1) if judge.abilities.batches else size  # a provider's batch may take a day: one, not many
    try:
        for some in work(ask, questions, size=whole, in_flight=in_flight):
            store.put_grades(some)
            costs = [one.cost for one in some]
            cost = None if None in costs else sum(cost for cost in costs if cost is not None)
            step = Tick(stage, len(some), missing=sum(one.missing is not None for one in some), cost=cost)
            counted = replace(counted, done=counted.done - step.done, missing=counted.missing - step.missing)
            shown.tick(step)
            made += some
    except JudgeBusy:  # whoever asks again counts them again
        shown.tick(counted)
        raise
    return made


def first_score(grade: Grade) -> float | None:
    """The score in [0, 1] of the first attempt that stands in the reply; None when there is none."""
    return grade.counted[0].score / 100 if grade.counted and grade.missing is None else None
