"""Experiment 3: does a model correct itself less without its off-topic detectors? (§2.3, §3.4, figure 5)"""

from prefect import flow

from esr.study.plan import ablated, replay
from esr.types import Arm
from flows import path
from tasks import ablate, collect, record


@flow(name="exp03", task_runner=path.threads())
def exp03(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Unsteered replies to the discovery questions are read under their own question and, by several seeded derangements, under
    others'. Latents quiet in the first and active in the second are detectors. Experiment 1's trials are replayed with the
    detectors clamped to zero: the same latents, boosts, questions and seeds, none of the questions used in the discovery."""
    with path.study("exp03", model, scale, judge) as study:
        baseline = path.baseline(study)
        detectors = ablate.detectors(study, collect.activations(study))
        record.detectors(study, {"detectors": detectors})
        path.carry_out(
            study,
            replay(
                baseline,
                Arm("exp03", "detectors", "ablated"),
                ablated(study.params, model, [row["latent"] for row in detectors]),
            ),
        )
