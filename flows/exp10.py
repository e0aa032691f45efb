"""Experiment 10: is it the detectors, or would any ablated latents do? (A.3.3)"""

from typing import ClassVar, Literal

from prefect import flow
from pydantic import Field

from esr import params
from esr.experiment import Experiment, Figure, Size
from esr.params import Params
from esr.show import tables
from esr.show.figures import rates
from esr.study.choose import Baseline
from esr.study.detect import arms
from esr.study.plan import ablated, replay
from esr.study.workload import baseline_trials
from esr.types import BASELINE, replace
from flows import stages
from tasks import ablate, collect, draw, record


class Settings(params.Settings):
    block: ClassVar[str] = "exp10"
    sets: int = Field(ge=1)
    matchings: tuple[Literal["matched", "uniform"], ...]
    first_seed: int
    recalibrate: bool
    """Whether each matched set also has an arm whose thresholds are found anew while it is held at zero."""


def size(params: Params) -> Size:
    exp = params.of(Settings)
    anew = exp.sets if exp.recalibrate and "matched" in exp.matchings else 0
    return Size(
        arms=exp.sets * len(exp.matchings) + anew, trials=baseline_trials(params), searched=anew * params.of(Baseline).latents
    )


EXPERIMENT = Experiment(
    name="exp10",
    question="is it the detectors, or would any ablated latents do?",
    paper="A.3.3",
    settings=Settings,
    size=size,
    discovery=True,
    beside=(BASELINE.key, "exp03/detectors", "exp03/detectors-recalibrated"),
    tables=(tables.OUTCOMES,),
    figures=(Figure("A.3.3. Random latents held at zero: {model}", rates.panels),),
    endings=draw.USUAL,
)


@flow(**stages.options(EXPERIMENT))
def exp10(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Experiment 1's trials are replayed with sets of other latents clamped to zero, each as large as the set of detectors:
    some matched to the detectors in how often and how strongly they are active, some drawn evenly as the authors did. The matched
    ones once more at thresholds found anew under their clamp."""
    with stages.run(EXPERIMENT, model, scale, judge) as run:
        exp, baseline = run.params.of(Settings), stages.baseline(run)
        seen, barred = collect.activations(run), stages.latents(run)
        controls = ablate.controls(run, seen, barred, exp.sets, exp.matchings, exp.first_seed)
        record.detectors(run, controls)
        sets = arms("exp10", controls)
        replays = [replay(baseline, arm, ablated(run.params, model, latents)) for arm, latents in sets.items()]
        matched = {arm: latents for arm, latents in sets.items() if exp.recalibrate and arm.kind == "matched"}
        for arm, latents in matched.items():
            anew = replace(arm, name=f"{arm.name}-recalibrated", kind="matched-recalibrated")
            replays.append(stages.recalibrated(run, baseline, anew, latents))
        stages.carry_out(run, [member for replayed in replays for member in replayed])
