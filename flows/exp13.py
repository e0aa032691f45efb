"""Experiment 13: does it correct itself when it is steered along directions that are no SAE latents? (version 3, beyond SAEs)"""

from typing import ClassVar, Literal

from prefect import flow
from pydantic import Field

from esr import params
from esr.experiment import Experiment, Figure, Size
from esr.params import Params
from esr.show import directions as shown
from esr.show import tables
from esr.show.figures import doses
from esr.study.along import check_doses, in_mode, set_of
from esr.study.plan import confined, held, ladder, relative_levels, replay
from esr.types import Arm
from flows import stages
from tasks import build, draw


class Settings(params.Settings):
    block: ClassVar[str] = "exp13"
    directions: int = Field(ge=1)
    trials_per_direction: int = Field(ge=1)
    relative: tuple[float, ...]
    """Multiples of each direction's own threshold, beside the threshold itself."""
    modes: tuple[Literal["clamp_projection", "project_out"], ...]
    """Other ways than adding: the stream's length along the direction held at what is added, or taken out."""
    scopes: tuple[str, ...]
    """Positions that the adding is confined to, an arm for each."""


def size(params: Params) -> Size:
    exp = params.of(Settings)
    arms = 1 + len(exp.relative) + len(exp.modes) + len(exp.scopes)
    return Size(arms, exp.directions * exp.trials_per_direction)


EXPERIMENT = Experiment(
    name="exp13",
    question="does it correct itself when steered along directions that are no latents?",
    paper="beyond SAEs, version 3",
    settings=Settings,
    size=size,
    searched=lambda params: params.of(Settings).directions,
    directed=True,
    baseline=False,
    beside=(),
    shown=("first_score_mean", "multi_attempt_rate"),
    tables=(tables.OUTCOMES, shown.DIRECTIONS),
    figures=(Figure("Steered along directions that are no latents: {model}", doses.panels),),
    endings=draw.USUAL,
)


@flow(**stages.options(EXPERIMENT))
def exp13(model: str, scale: str = "full", judge: str | None = None) -> None:
    """The model's set of directions takes the SAE's place: each direction is calibrated as a latent is and added at its threshold and at
    multiples of it; the stream's length along it is held instead, or the direction is taken out; the adding is confined to some positions.
    Latent, question and seed of a trial are the same in every arm."""
    with stages.run(EXPERIMENT, model, scale, judge) as run:
        exp, made = run.params.of(Settings), build.directions(run, set_of(run.params, model))
        there = run.steered_along(made, exp.directions, exp.trials_per_direction)
        found = stages.thresholds(there)
        steered = stages.planned(there, found, Arm("exp13", "steered", "steered", against=""), exp.trials_per_direction)
        levels = relative_levels([one.boost for one in found], exp.relative)
        rungs = held(ladder(there.params, steered, "exp13", levels), "exp13/steered")
        modes = [
            replay(steered, Arm("exp13", mode, "mode", None, i, "exp13/steered"), in_mode(made, mode))
            for i, mode in enumerate(exp.modes)
        ]
        scopes = [
            replay(steered, Arm("exp13", scope, "scope", None, i, "exp13/steered"), confined(scope))
            for i, scope in enumerate(exp.scopes)
        ]
        members = [*steered, *rungs, *(member for arm in (*modes, *scopes) for member in arm)]
        check_doses(there.params, made, members)
        stages.carry_out(there, members)
