"""How much an experiment asks for, counted from params and its declaration: trials, replies of the search, judge calls, tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from esr.experiment import Experiment, Size
from esr.judge import JudgeQuestion
from esr.params import Params
from esr.prompts import discovery
from esr.study import grade, meaning
from esr.study.choose import Baseline
from esr.study.detect import Detection
from esr.types import BASELINE, BLIND, Latent, Trial

if TYPE_CHECKING:
    from esr.judge import Judge
    from esr.study.study import Study
    from esr.types import Member


@dataclass(frozen=True, slots=True)
class Workload:
    latents: int
    search: int
    """Replies that calibrating them takes at most; each is graded once."""
    baseline: int
    """Trials of experiment 1 that this one replays, or its own."""
    discovery: int
    """Unsteered replies that detectors are found in; not graded."""
    arms: int
    own: int
    """Trials of its own arms at most; some may be another experiment's, and then they are there already."""
    tokens: int
    """Generated at most."""
    texts: int
    """That a provider writes."""
    texts_cost: float | None
    further: int = 0
    """Grades by other judges of replies that are there."""

    @property
    def trials(self) -> int:
        return self.baseline + self.own

    @property
    def replies(self) -> int:
        return self.search + self.discovery + self.trials

    @property
    def judge_calls(self) -> int:
        return self.search + self.trials + self.further


def workload(params: Params, experiment: Experiment) -> Workload:
    p, asked = params.protocol, params.of(Baseline)
    n, size = experiment.searched(params) if experiment.searched else asked.latents, experiment.size(params)
    search = searched_replies(params, n + size.searched)
    baseline = baseline_trials(params) if experiment.baseline else 0
    found = len(discovery()) * params.of(Detection).replies_per_question if experiment.discovery else 0
    own = size.arms * size.trials
    return Workload(
        n, search, baseline, found, size.arms, own, search * p.search_max_tokens + (found + baseline + own) * p.max_tokens,
        size.texts, size.texts_cost, size.grades,
    )  # fmt: skip


def searched_replies(params: Params, latents: int) -> int:
    """That the search for so many thresholds takes at most."""
    p = params.protocol
    return latents * (p.search_steps * p.samples_per_step + p.verify_samples)


def baseline_trials(params: Params) -> int:
    """Trials of experiment 1, and of each arm that replays it."""
    asked = params.of(Baseline)
    return asked.latents * asked.trials_per_latent


def one_replay(params: Params) -> Size:
    """Of an experiment that replays experiment 1 once."""
    return Size(arms=1, trials=baseline_trials(params))


@dataclass(frozen=True, slots=True)
class There:
    """How much of a plan is in the store. Of trials that will be asked for, and of no others."""

    trials: int
    """Planned: experiment 1's exactly, and of arms of its own those that were laid out before."""
    replies: int
    grades: int
    known: bool = True
    """False: the plan needs thresholds that have not been searched, so nothing can be said of its trials yet."""


UNKNOWN = There(0, 0, 0, known=False)

OWN = """
select m.trial_id, m.question, m.latent, coalesce(m.latent_label, '') as label, m.boost, m.threshold, t.prompt, t.seed, t.meaning
from current_members m join current_arms a using (experiment, model, arm, scale) join trials t on t.trial_id = m.trial_id
where m.experiment = ? and m.model = ? and m.scale = ? and t.weights = ? and t.prompt_format = ? and (t.scope = ? or a.kind = 'scope')
  and t.temperature = ? and t.top_p = ? and t.repetition_penalty = ? and t.max_tokens = ?
"""
"""Trials of an experiment's own arms as they were last laid out, if they are sampled as they would be now."""


def there(study: "Study", experiment: Experiment, judge: "Judge", baseline: "Sequence[Member]") -> There:
    """How much of an experiment is in the store: of `baseline`, the steered trials as they are planned now, where it replays them, and
    of its own arms the trials that change one of them."""
    asked = {(m.trial.id, m.trial.latent.index): grade.question(m) for m in baseline} if experiment.baseline else {}
    if experiment.name != BASELINE.experiment:
        asked |= _own(study, experiment, {_replayed(experiment, member.trial) for member in baseline})
    replied = study.store.known("replies", [trial for trial, _ in asked])
    scores = grade.final(study.store, judge, list(asked.values()))
    graded = {trial for trial, latent in asked if (trial, latent) in scores or (trial, BLIND) in scores}
    return There(len({trial for trial, _ in asked}), len(replied), len(graded & replied))


Replayed: TypeAlias = "tuple[str, int, float | None, int | None]"


def _replayed(experiment: Experiment, t: Trial) -> Replayed:
    """What a trial keeps of the one that it replays."""
    return (t.question, t.latent.index, t.threshold, None if experiment.reseeded else t.seed)


def _own(study: "Study", experiment: Experiment, planned: set[Replayed]) -> dict[grade.Key, JudgeQuestion]:
    p, s = study.params.protocol, study.params.sampling(study.model)
    sampled = [study.weights, p.prompt_format, p.scope, s.temperature, s.top_p, s.repetition_penalty, s.max_tokens]
    now = study.meaning
    rows = study.store.sql(OWN, [experiment.name, study.model, study.params.scale, *sampled]).to_pylist()
    return {
        (row["trial_id"], row["latent"]): JudgeQuestion(
            trial_id=row["trial_id"], prompt=row["prompt"], reply="", latent=Latent(row["latent"], row["label"])
        )
        for row in rows
        if row["meaning"]
        and meaning.covers(now, row["meaning"])
        and (row["question"], row["latent"], row["threshold"], None if experiment.reseeded else row["seed"]) in planned
    }
