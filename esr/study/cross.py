"""Cross-judging: a sample of replies that were graded, with the number that each stands for, put to any set of judges.

The sample is of chosen arms of any experiments, stratified by arm and by whether the model's own judge sees a second attempt, so
that the rare ones are in it in numbers; or as the authors drew theirs. It is kept in the table `samples`, and what the judges say
of it is weighed by it.
"""

import logging
import random
from typing import TYPE_CHECKING, ClassVar, Literal

import pandas as pd
from pydantic import Field

from esr import params
from esr.count import agreement
from esr.errors import DataError
from esr.judge import Judge, JudgeQuestion
from esr.study import grade
from esr.types import BLIND, Latent, content_id

if TYPE_CHECKING:
    from esr.study.study import Study

log = logging.getLogger(__name__)
__all__ = ["Cross", "authors", "drawn", "graded", "record", "stratified"]


class Cross(params.Settings):
    """Which replies are put to which judges."""

    block: ClassVar[str] = "exp07"
    arms: tuple[str, ...] = Field(min_length=1)
    """`experiment/arm`; one that has not been run is left out, and that is said."""
    judges: tuple[str, ...]
    """Of params.yaml, besides the model's own and the restart detector, which asks nobody."""
    rule: Literal["stratified", "authors"]
    size: int = Field(ge=1)
    """Replies in all, at most."""
    per_model: int = Field(ge=0)
    """By the authors' rule: of each model at least so many, before the sample is filled at random."""


ROWS = """
select o.experiment || '/' || o.arm as source, o.model, o.scale, o.judge, o.trial_id, o.latent, o.multi
from outcomes o join replies r using (trial_id)
where o.model = ? and o.scale = ? and o.judge = ? and o.experiment || '/' || o.arm in (select unnest(?))
order by source, o.trial_id, o.latent
"""


def drawn(study: "Study", judge: str) -> pd.DataFrame:
    """The sample with `weight`, from what this judge said of the chosen arms."""
    asked = study.params.of(Cross)
    rows = study.store.sql(ROWS, [study.model, study.params.scale, judge, list(asked.arms)]).to_pandas()
    there = set(rows["source"])
    for arm in asked.arms:
        if arm not in there:
            log.warning("%s of %s has no graded replies and is left out of the sample", arm, study.model)
    if rows.empty:
        raise DataError(
            f"none of {', '.join(asked.arms)} has graded replies of {study.model!r} by {judge!r}; run one of them first"
        )
    if asked.rule == "authors":
        return authors(rows, asked.size, asked.per_model, study.params.seed)
    return stratified(rows, asked.size, study.params.seed)


def stratified(rows: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """As many replies of each arm, half of them with a second attempt as far as there are so many; each with the number it stands for."""
    sources = sorted(rows["source"].unique())
    rng, chosen = random.Random(f"{seed}/cross"), list[pd.DataFrame]()
    for i, source in enumerate(sources):
        some = rows[rows["source"] == source]
        n = min(len(some), size // len(sources) + (i < size % len(sources)))
        multi, single = some[some["multi"].astype(bool)], some[~some["multi"].astype(bool)]
        of_multi = min(len(multi), max(n // 2, n - len(single)))
        for part, count in ((multi, of_multi), (single, n - of_multi)):
            if count:
                picked = part.iloc[sorted(rng.sample(range(len(part)), count))]
                chosen.append(picked.assign(weight=len(part) / count))
    if not chosen:
        raise DataError(f"a sample of {size} replies cannot stand for {len(sources)} arms; ask for more")
    return pd.concat(chosen, ignore_index=True)


def authors(rows: pd.DataFrame, size: int, per_model: int, seed: int) -> pd.DataFrame:
    """Every reply with a second attempt, then others, arms pooled; a trial of several arms once."""
    return agreement.enriched(rows, size=size, per_model=per_model, seed=seed)


def record(study: "Study", sample: pd.DataFrame, judge: str) -> str:
    """The sample in the store, under a hash of what is in it; the newest of a model, scale and judge counts."""
    kept = sample[["source", "trial_id", "latent", "multi", "weight"]].to_dict("records")
    name = content_id("sample", study.model, study.params.scale, judge, kept, length=16)
    about = {"sample": name, "model": study.model, "scale": study.params.scale, "judge": judge}
    study.store.put_sample([{**about, **{str(column): value for column, value in row.items()}} for row in kept])
    return name


def questions(study: "Study", sample: pd.DataFrame) -> list[JudgeQuestion]:
    """Each reply of the sample once, as a judge is asked about it."""
    rows = study.store.sql(
        "select distinct on (m.trial_id, m.latent) m.trial_id, m.latent, coalesce(m.latent_label, '') as label, t.prompt, r.text "
        "from current_members m join trials t using (trial_id) join replies r using (trial_id) "
        "where m.trial_id in (select unnest(?)) order by m.trial_id, m.latent",
        [sorted(set(sample["trial_id"]))],
    ).to_pylist()
    wanted = set(zip(sample["trial_id"], sample["latent"].astype(int), strict=True))
    return [
        JudgeQuestion(trial_id=row["trial_id"], prompt=row["prompt"], reply=row["text"], latent=Latent(row["latent"], row["label"]))
        for row in rows
        if (row["trial_id"], row["latent"]) in wanted
    ]


def graded(study: "Study", judge: Judge, sample: pd.DataFrame) -> int:
    """What the judge has not graded of the sample is graded; how many that were."""
    asked, stage, w = questions(study, sample), f"judge: {judge.name}", study.params.work
    with study.alone("cross", judge.name, judge.prompt_hash):
        known = grade.final(study.store, judge, asked)
        lacking = [one for one in asked if (one.trial_id, one.latent.index) not in known and (one.trial_id, BLIND) not in known]
        study.progress.expect(stage, len(asked))
        study.progress.stored(stage, len(asked) - len(lacking))
        made = grade.put(study.store, judge, lacking, size=w.batch, in_flight=w.in_flight, stage=stage, progress=study.progress)
    return len(made)
