"""Experiment 5: does a model correct itself more when it is told to watch itself? (§3.3, figure 4, A.3.2)"""

from typing import ClassVar

from prefect import flow

from esr import params
from esr.experiment import Experiment, Figure, Several, Size
from esr.show import tables
from esr.show.figures import rates
from esr.study.plan import replay, suffixed
from esr.study.workload import baseline_trials
from esr.types import Arm
from flows import stages
from tasks import draw


class Settings(params.Settings):
    block: ClassVar[str] = "exp05"
    variants: tuple[str, ...]
    """Meta-prompts of esr/prompts/suffixes."""


EXPERIMENT = Experiment(
    name="exp05",
    question="does it correct itself more when told to watch itself?",
    paper="§3.3, figure 4",
    settings=Settings,
    size=lambda params: Size(arms=len(params.of(Settings).variants), trials=baseline_trials(params)),
    tables=(tables.OUTCOMES,),
    figures=(
        Figure(
            "A.3.2. Told to watch itself, by meta-prompt: {model}",
            rates.panels,
            several=Several(
                "Figure 4. Told to watch itself, by model", lambda some, title: rates.by_model(some, "self_monitor", title)
            ),
        ),
    ),
    endings=draw.USUAL,
)


@flow(**stages.options(EXPERIMENT))
def exp05(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Experiment 1's trials are replayed with a meta-prompt after the question, one arm for each; latent, boost, question and
    seed stay. The judge sees the question as the model saw it."""
    with stages.run(EXPERIMENT, model, scale, judge) as run:
        baseline = stages.baseline(run)
        variants = run.params.of(Settings).variants
        arms = [replay(baseline, Arm("exp05", name, "meta-prompt"), suffixed(name)) for name in variants]
        stages.carry_out(run, [member for arm in arms for member in arm])
