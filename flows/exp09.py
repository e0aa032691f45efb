"""Experiment 9: do the detectors notice, or do they follow? What latents do, token by token, in replies that come back. (A.4)"""

from prefect import flow

from esr.experiment import Experiment, Figure, Size
from esr.params import Params
from esr.show import episode_tables, tables
from esr.show.figures import episodes
from esr.study.episodes import Watching
from esr.study.workload import baseline_trials
from flows import stages
from tasks import draw


def size(params: Params) -> Size:
    return Size(arms=3, trials=min(params.of(Watching).max_episodes, baseline_trials(params)))


EXPERIMENT = Experiment(
    name="exp09",
    question="do detectors notice that a reply is off topic before it says so?",
    paper="A.4, figures A.15 and A.16, table A1",
    settings=Watching,
    size=size,
    discovery=True,
    beside=(),
    tables=(tables.OUTCOMES, *episode_tables.EVERY),
    figures=(
        Figure("Figure A.15. Detectors around the first word of the correction: {model}", episodes.curves),
        Figure("Figure A.16. Detectors by region, and in three controls: {model}", episodes.regions, name="regions"),
    ),
    endings=(*draw.USUAL, draw.timing),
)


@flow(**stages.options(EXPERIMENT))
def exp09(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Experiment 1's corrected replies of two attempts are read token by token, on the tokens that were generated: under their own
    steering and without it. Beside each stand a reply steered by the same latent that does not restart, of about the same first
    score and length, and the reply to the same question and seed without steering. Detectors are those of experiment 3;
    backtracking latents are found by label, and by contrast on one half of the distractors."""
    with stages.run(EXPERIMENT, model, scale, judge) as run:
        stages.watched(run)
