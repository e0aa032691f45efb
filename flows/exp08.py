"""Experiment 8: does a model correct itself when nothing steers it? (A.3.1)"""

from prefect import flow

from esr.experiment import Experiment, Figure, Several
from esr.show import tables
from esr.show.figures import gains, scores
from esr.study.plan import replay, unsteered
from esr.study.workload import one_replay
from esr.types import Arm
from flows import stages
from tasks import draw

EXPERIMENT = Experiment(
    name="exp08",
    question="does it correct itself when nothing steers it?",
    paper="A.3.1",
    size=one_replay,
    tables=(tables.OUTCOMES,),
    figures=(
        Figure(
            "A.3.1. Without steering: {model}",
            scores.histograms,
            several=Several("A.3.1. Without steering, by model", lambda some, title: gains.rows(some, "no-steering", title)),
        ),
    ),
    endings=draw.USUAL,
)


@flow(**stages.options(EXPERIMENT))
def exp08(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Experiment 1's trials are replayed without an intervention: the same questions and seeds. The judge is still told of the
    latent that would have been steered."""
    with stages.run(EXPERIMENT, model, scale, judge) as run:
        stages.carry_out(run, replay(stages.baseline(run), Arm("exp08", "no-steering", "unsteered"), unsteered))
