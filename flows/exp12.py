"""Experiment 12: does its own corrective text keep a model on topic, or would any on-topic text do? (the later paper's matched prefix)"""

from typing import ClassVar

from prefect import flow
from pydantic import Field

from esr import params
from esr.experiment import Experiment, Figure, Size
from esr.params import Params
from esr.show import tables
from esr.show.figures import continued
from esr.study.beginnings import episodes, graded
from esr.study.choose import Baseline
from esr.study.continuations import MATCHED, matched
from esr.study.plan import replay, unsteered
from esr.types import Arm
from flows import stages
from tasks import collect, draw


class Settings(params.Settings):
    block: ClassVar[str] = "exp12"
    tokens: int = Field(ge=1)
    """Length of every prefix."""
    draws: int = Field(ge=1)
    """New seeds of each episode."""
    per_latent: int = Field(ge=1)
    """Episodes of each latent, at most."""


def size(params: Params) -> Size:
    exp = params.of(Settings)
    return Size(len(MATCHED) + 1, params.of(Baseline).latents * exp.per_latent * exp.draws)


EXPERIMENT = Experiment(
    name="exp12",
    question="does its own corrective text help it more than any text on topic?",
    paper="§3.6 of version 3",
    settings=Settings,
    size=size,
    reseeded=True,
    beside=(),
    shown=("first_score_mean", "multi_attempt_rate"),
    tables=(tables.OUTCOMES,),
    figures=(Figure("Steered on from a prefix: {model}", continued.matched),),
    endings=draw.USUAL,
)


@flow(**stages.options(EXPERIMENT))
def exp12(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Trials of experiment 1 that ended in a correction are steered once more with new seeds, from a prefix: their own corrective text, as
    many tokens of the unsteered answer to the same question, those shuffled, or none. Steering acts on the prefix too, and the
    continuation alone is graded."""
    with stages.run(EXPERIMENT, model, scale, judge) as run:
        exp, baseline = run.params.of(Settings), stages.baseline(run)
        known = episodes(graded(run.study, baseline, run.judge), exp.per_latent)
        unsteered_too = replay(
            [one.member for one in known], Arm("exp12", "unsteered", "unsteered", None, len(MATCHED), ""), unsteered
        )
        stages.carry_out(run, unsteered_too)
        answers = graded(run.study, unsteered_too, run.judge)
        both = [list(zip(some, collect.spans(run, [one.id for one in some]), strict=True)) for some in (known, answers)]
        stages.carry_out(run, matched(run.params, "exp12", *both, tokens=exp.tokens, draws=exp.draws))
