"""Experiment 11: does a model notice off-topic text that it did not write under steering? (the later paper's prefill control)"""

from collections.abc import Sequence
from typing import ClassVar

from prefect import flow
from pydantic import Field

from esr import params
from esr.experiment import Experiment, Figure, Size
from esr.params import Params
from esr.show import continuations as shown
from esr.show.figures import continued
from esr.study.beginnings import graded, off_topic
from esr.study.choose import Baseline
from esr.study.continuations import Condition, by_cut, detection
from esr.study.detect import Detector
from esr.study.plan import Change, ablated, unsteered
from flows import stages
from tasks import ablate, collect, draw, record
from tasks.run import Run


class Settings(params.Settings):
    block: ClassVar[str] = "exp11"
    characters: int = Field(ge=1)
    """N: a reply is cut at its multiples."""
    multiples: tuple[int, ...] = Field(min_length=1)
    sentence: bool
    """Whether it is also cut at the first sentence's end at N characters or later."""
    first_score_below: float = Field(gt=0, le=100)
    per_latent: int = Field(ge=1)
    """Replies of each latent that beginnings are cut from, at most."""
    first_seed: int
    """Of the matched control set."""
    clamped: bool
    """Whether it is also continued with detectors clamped, and with controls; not where a model has none."""


PLAIN, CLAMPED = 2, 2
"""Conditions."""


def size(params: Params) -> Size:
    exp = params.of(Settings)
    conditions = PLAIN + CLAMPED * exp.clamped
    return Size(conditions * (len(exp.multiples) + exp.sentence), params.of(Baseline).latents * exp.per_latent)


EXPERIMENT = Experiment(
    name="exp11",
    question="does it notice, unsteered, what it wrote under steering?",
    paper="§3.6 of version 3",
    settings=Settings,
    size=size,
    discovery=True,
    shown=("multi_attempt_rate", "improvement_rate"),
    tables=(shown.CONTINUATIONS,),
    figures=(Figure("Off-topic beginnings continued: {model}", continued.detection),),
    endings=draw.USUAL,
)
CONTROLS = ("matched",)
"""One set of latents that the detectors are held against."""


@flow(**stages.options(EXPERIMENT))
def exp11(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Off-topic beginnings of experiment 1's replies, without a restart in them, are put at the start of the assistant's turn as the
    tokens that they were, and continued with steering off, on, and, where the model has detectors, off with these clamped and off with
    matched controls clamped, under the same seeds. The continuation alone is graded; one that opens with a restart takes up its
    beginning."""
    with stages.run(EXPERIMENT, model, scale, judge) as run:
        exp, baseline = run.params.of(Settings), stages.baseline(run)
        known = graded(run.study, baseline, run.judge)
        sources = off_topic(known, below=exp.first_score_below, at_least=exp.characters, per_latent=exp.per_latent)
        spans = collect.spans(run, [one.id for one in sources])
        begun = by_cut(sources, spans, exp.characters, exp.multiples, exp.sentence)
        conditions = [Condition("on", lambda trial: trial), Condition("off", unsteered, against="on")]
        conditions += [Condition(name, without(run, some), against="off") for name, some in sets(run, exp).items()]
        stages.carry_out(run, detection("exp11", begun, conditions))


def sets(run: Run, exp: Settings) -> dict[str, list[Detector]]:
    """The detectors, and matched controls in their place; none of a model that has no detectors."""
    if not exp.clamped:
        return {}
    seen, barred = collect.activations(run), stages.latents(run)
    detectors = ablate.detectors(run, seen)
    controls = ablate.controls(run, seen, barred, len(CONTROLS), CONTROLS, exp.first_seed)
    record.detectors(run, {"detectors": detectors, **controls})
    return {"detectors": detectors, "matched": controls["matched-0"]}


def without(run: Run, some: Sequence[Detector]) -> Change:
    """Not steered, and these held at zero."""
    held = ablated(run.params, run.model, [one.latent for one in some])
    return lambda trial: held(unsteered(trial))
