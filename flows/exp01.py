"""Experiment 1: how often does a model correct itself while it is steered off topic? (§3.1, figure 2)"""

from prefect import flow

from esr.experiment import Experiment, Figure, Several, Size
from esr.show import tables
from esr.show.figures import gains
from esr.study.choose import Baseline
from flows import stages
from tasks import draw

EXPERIMENT = Experiment(
    name="exp01",
    question="how often does a model correct itself while it is steered?",
    paper="§3.1, figure 2",
    settings=Baseline,
    size=lambda _: Size(arms=0, trials=0),  # its arm is the baseline
    beside=(),
    tables=(tables.OUTCOMES,),
    figures=(
        Figure(
            "Figure 2. Self-correction under steering: {model}",
            lambda found, title: gains.rows([found], "baseline", title),
            several=Several(
                "Figure 2. Self-correction under steering, by model", lambda some, title: gains.rows(some, "baseline", title)
            ),
        ),
    ),
    endings=draw.USUAL,
)


@flow(**stages.options(EXPERIMENT))
def exp01(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Latents that are concrete and that no question wakes are drawn from the SAE. For each, probabilistic bisection finds the
    boost at which the first attempts of steered replies score the target on the mean. At that boost the model answers questions
    drawn for the latent, steered at every position, and a judge splits each reply into attempts and scores them."""
    with stages.run(EXPERIMENT, model, scale, judge) as run:
        stages.baseline(run)
