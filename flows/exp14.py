"""Experiment 14: does it matter where a model is steered? (version 3 says "at every generated token"; the authors' engine steers prompts too)"""

from typing import ClassVar

from prefect import flow
from pydantic import Field

from esr import params
from esr.experiment import Experiment, Figure, Size
from esr.params import Params
from esr.show import tables
from esr.show.figures import rates
from esr.study.choose import Baseline
from esr.study.plan import confined, firsts, ramped, replay, until
from esr.types import Arm
from flows import stages
from tasks import collect, draw


class Settings(params.Settings):
    block: ClassVar[str] = "exp14"
    per_latent: int = Field(ge=1)
    """Trials of each latent that are replayed."""
    scopes: dict[str, str]
    """Arms whose steering is confined to these positions."""
    ramps: dict[str, tuple[tuple[int, float], ...]]
    """Arms whose boost follows a schedule: (generated token, factor), straight between two points."""
    until: str | None
    """A word that restarts begin with, one token: one more arm is steered until it comes; null: none is."""


def size(params: Params) -> Size:
    exp, asked = params.of(Settings), params.of(Baseline)
    arms = len(exp.scopes) + len(exp.ramps) + (exp.until is not None)
    return Size(arms, asked.latents * min(exp.per_latent, asked.trials_per_latent))


EXPERIMENT = Experiment(
    name="exp14",
    question="does it matter where it is steered?",
    paper="version 3 steers generated tokens alone",
    settings=Settings,
    size=size,
    tables=(tables.OUTCOMES,),
    figures=(Figure("Where steering acts: {model}", rates.panels),),
    endings=draw.USUAL,
)


@flow(**stages.options(EXPERIMENT))
def exp14(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Some of each latent's trials of experiment 1 are replayed with the steering at some positions alone, growing or fading over the
    reply, and until a restart begins; latent, boost, question and seed stay."""
    with stages.run(EXPERIMENT, model, scale, judge) as run:
        exp, baseline = run.params.of(Settings), stages.baseline(run)
        some = firsts(baseline, exp.per_latent)
        words = {name: collect.token(run, word) for name, word in {"until-restart": exp.until}.items() if word is not None}
        changes = {name: confined(scope) for name, scope in exp.scopes.items()}
        changes |= {name: ramped(points) for name, points in exp.ramps.items()}
        changes |= {name: until(token) for name, token in words.items()}
        arms = [replay(some, Arm("exp14", name, "scope", None, i), change) for i, (name, change) in enumerate(changes.items())]
        stages.carry_out(run, [member for arm in arms for member in arm])
