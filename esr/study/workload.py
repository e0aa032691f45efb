"""How much an experiment asks for, counted from params and its declaration: trials, replies of the search, judge calls, tokens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esr.experiment import Experiment, Size
from esr.params import Params
from esr.prompts import discovery
from esr.study import meaning
from esr.study.choose import Baseline
from esr.study.detect import Detection

if TYPE_CHECKING:
    from esr.judge import Judge
    from esr.study.study import Study


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

    @property
    def trials(self) -> int:
        return self.baseline + self.own

    @property
    def replies(self) -> int:
        return self.search + self.discovery + self.trials

    @property
    def judge_calls(self) -> int:
        return self.search + self.trials


def workload(params: Params, experiment: Experiment) -> Workload:
    p, asked = params.protocol, params.of(Baseline)
    n, size = asked.latents, experiment.size(params)
    search = n * (p.search_steps * p.samples_per_step + p.verify_samples)
    baseline = baseline_trials(params) if experiment.baseline else 0
    found = len(discovery()) * params.of(Detection).replies_per_question if experiment.discovery else 0
    own = size.arms * size.trials
    return Workload(
        n, search, baseline, found, size.arms, own, search * p.search_max_tokens + (found + baseline + own) * p.max_tokens
    )


def baseline_trials(params: Params) -> int:
    """Trials of experiment 1, and of each arm that replays it."""
    asked = params.of(Baseline)
    return asked.latents * asked.trials_per_latent


def one_replay(params: Params) -> Size:
    """Of an experiment that replays experiment 1 once."""
    return Size(arms=1, trials=baseline_trials(params))


@dataclass(frozen=True, slots=True)
class There:
    """Distinct trials of a plan, and how many of them have a reply and a grade in the store."""

    trials: int
    replies: int
    grades: int


def there(study: "Study", experiment: Experiment, judge: "Judge") -> There:
    """How much of an experiment, and of what it is held against, is in the store and means what it means today."""
    arms = [experiment.name, *(key.partition("/")[0] for key in experiment.beside)]
    made = study.store.sql(
        "select distinct weights, meaning from trials where model = ? and meaning is not null", [study.model]
    ).to_pylist()
    if not made:
        return There(0, 0, 0)
    now = meaning.of(study.params, study.model, fetch=False)
    same = [row["meaning"] for row in made if row["weights"] == study.weights and meaning.covers(now, row["meaning"])]
    rows = study.store.sql(
        "select count(distinct m.trial_id) as trials, count(distinct r.trial_id) as replies, count(distinct g.trial_id) as grades "
        "from members m join trials t using (trial_id) left join replies r using (trial_id) "
        "left join grades g on g.trial_id = m.trial_id and g.judge = ? "
        "where m.model = ? and m.scale = ? and m.experiment in (select unnest(?)) "
        "and t.weights = ? and t.meaning in (select unnest(?))",
        [judge.name, study.model, study.params.scale, arms, study.weights, same],
    ).to_pylist()
    return There(**rows[0])
