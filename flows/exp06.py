"""Experiment 6: what one reply does inside, token by token, while it goes astray and comes back (§3.6, figure 6)"""

from prefect import flow

from esr.experiment import Experiment, Figure, Size
from esr.params import Params
from esr.show import episode_tables, tables, trace_table
from esr.show.figures import traces as drawn
from esr.study import traces
from esr.study.episodes import Watching
from esr.study.plan import replay
from esr.study.traces import Traces
from esr.study.workload import baseline_trials
from flows import stages
from tasks import draw, read


def size(params: Params) -> Size:
    return Size(arms=3, trials=min(params.of(Watching).max_episodes, baseline_trials(params)))  # those of experiment 9


def named(params: Params) -> str:
    case = params.of(Traces).published
    return f"the paper's example, generated anew: {case}" if case else ""


EXPERIMENT = Experiment(
    name="exp06",
    question="what do detectors do, token by token, while a reply goes astray and comes back?",
    paper="§3.6, figure 6",
    settings=Traces,
    size=size,
    discovery=True,
    named=named,
    beside=(),
    tables=(tables.OUTCOMES, trace_table.TOKENS, episode_tables.ONSETS, episode_tables.TIMING),
    figures=(
        Figure("Figure 6. One reply, token by token: {model}", drawn.trace),
        Figure("Figure 6. Further episodes: {model}", drawn.multiples, name="more"),
        Figure("Figure 6. When they leave their level: {model}", drawn.onsets, name="onset"),
    ),
    endings=draw.USUAL,
)


@flow(**stages.options(EXPERIMENT))
def exp06(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Episodes are read as in experiment 9. One is shown whole, by its id or the best by a rule: its regions, the sum of the
    detectors, the backtracking latents and the distractor itself, raw and smoothed, over the tokens that were generated; others
    beside it. Where the paper names an example of this model, it is generated anew from the same latent, boost and seed."""
    with stages.run(EXPERIMENT, model, scale, judge) as run:
        found, watched, lists = stages.watched(run)
        settings = run.params.of(Traces)
        chosen = [one.trial_id for one in traces.shown(found, settings)]
        members = replay([m for m in watched.episodes if m.trial.id in chosen], traces.SHOWN, lambda trial: trial)
        members += traces.published(run.study, settings.published)
        stages.carry_out(run, members)
        read.shown(run, members, lists)
