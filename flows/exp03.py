"""Experiment 3: does a model correct itself less without its off-topic detectors? (§2.3, §3.4, figure 5)"""

from prefect import flow

from esr.experiment import Experiment, Figure, Size
from esr.params import Params
from esr.show import detector_sets, tables
from esr.show.figures import rates
from esr.study.choose import Baseline
from esr.study.detect import Detection
from esr.study.plan import ablated, replay
from esr.study.workload import baseline_trials
from esr.types import Arm
from flows import stages
from tasks import ablate, collect, draw, record


def size(params: Params) -> Size:
    anew = params.of(Detection).recalibrate
    searched = params.of(Baseline).latents if anew else 0
    return Size(arms=1 + anew, trials=baseline_trials(params), searched=searched)


EXPERIMENT = Experiment(
    name="exp03",
    question="does it correct itself less without its off-topic detectors?",
    paper="§3.4, figure 5",
    settings=Detection,
    size=size,
    discovery=True,
    tables=(tables.OUTCOMES, detector_sets.DETECTORS),
    figures=(Figure("Figure 5. Off-topic detectors held at zero: {model}", rates.panels),),
    endings=draw.USUAL,
)
ANEW = Arm("exp03", "detectors-recalibrated", "recalibrated", order=1)
"""Where thresholds are also found anew under the clamp."""


@flow(**stages.options(EXPERIMENT))
def exp03(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Unsteered replies to the discovery questions are read under their own question and, by several seeded derangements, under
    others'. Latents quiet in the first and active in the second are detectors. Experiment 1's trials are replayed with the
    detectors clamped to zero: the same latents, boosts, questions and seeds, none of the questions used in the discovery; and once
    more at thresholds found anew under the clamp, so that first attempts are as far astray as the baseline's."""
    with stages.run(EXPERIMENT, model, scale, judge) as run:
        baseline = stages.baseline(run)
        detectors = ablate.detectors(run, collect.activations(run))
        record.detectors(run, {"detectors": detectors})
        latents = [detector.latent for detector in detectors]
        members = replay(baseline, Arm("exp03", "detectors", "ablated"), ablated(run.params, model, latents))
        members += stages.recalibrated(run, baseline, ANEW, latents) if run.params.of(Detection).recalibrate else []
        stages.carry_out(run, members)
