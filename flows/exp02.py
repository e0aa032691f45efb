"""Experiment 2: how does self-correction change with the strength of steering? (§3.2, figure 3)"""

from typing import ClassVar, Literal

from prefect import flow
from pydantic import Field

from esr import params
from esr.experiment import Experiment, Figure, Size
from esr.params import Params
from esr.show import tables
from esr.show.figures import sweep
from esr.study.choose import Baseline
from esr.study.plan import absolute_levels, ladder, relative_levels
from esr.types import Arm
from flows import stages
from tasks import draw


class Settings(params.Settings):
    block: ClassVar[str] = "exp02"
    latents: int = Field(ge=1)
    trials_per_latent: int = Field(ge=1)
    levels: int = Field(ge=2)
    range_std: float = Field(gt=0)
    relative: tuple[float, ...]
    kinds: tuple[Literal["absolute", "relative"], ...]


def size(params: Params) -> Size:
    exp = params.of(Settings)
    rungs = {"absolute": exp.levels, "relative": len(exp.relative)}
    latents = min(exp.latents, params.of(Baseline).latents)
    return Size(arms=sum(rungs[kind] for kind in exp.kinds), trials=latents * exp.trials_per_latent)


EXPERIMENT = Experiment(
    name="exp02",
    question="how does that change with the strength of steering?",
    paper="§3.2, figure 3",
    settings=Settings,
    size=size,
    baseline=False,
    beside=(),
    tables=(tables.OUTCOMES,),
    figures=(Figure("Figure 3. Strength of steering: {model}", sweep.ladders),),
    endings=draw.USUAL,
)


@flow(**stages.options(EXPERIMENT))
def exp02(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Some of experiment 1's latents are steered over a ladder of boosts: the same absolute levels for all, spread over the
    distribution of thresholds as the authors did, and multiples of each latent's own threshold. Question and seed of a latent's
    trials are the same on every rung."""
    with stages.run(EXPERIMENT, model, scale, judge) as run:
        exp, found = run.params.of(Settings), stages.thresholds(run)
        some = stages.planned(run, found[: exp.latents], Arm("exp02", "threshold"), exp.trials_per_latent)
        boosts = [one.boost for one in found]
        levels = {
            "absolute": absolute_levels(boosts, exp.levels, exp.range_std),
            "relative": relative_levels(boosts, exp.relative),
        }
        rungs = [ladder(run.params, some, "exp02", levels[kind]) for kind in exp.kinds]
        stages.carry_out(run, [member for rung in rungs for member in rung])
