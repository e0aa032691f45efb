"""Experiment 10: is it the detectors, or would any ablated latents do? (A.3.3)"""

from prefect import flow

from esr.study.plan import ablated, replay
from esr.types import Arm
from flows import path
from tasks import ablate, choose, collect, record


@flow(name="exp10", task_runner=path.threads())
def exp10(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Experiment 1's trials are replayed with sets of other latents clamped to zero, each as large as the set of detectors:
    some matched to the detectors in how often and how strongly they are active, some drawn evenly as the authors did."""
    with path.study("exp10", model, scale, judge) as study:
        baseline = path.baseline(study)
        controls = ablate.controls(study, collect.activations(study), choose.latents(study))
        record.detectors(study, controls)
        changes = {name: ablated(study.params, model, [row["latent"] for row in rows]) for name, rows in controls.items()}
        arms = [replay(baseline, Arm("exp10", name, "ablated"), change) for name, change in changes.items()]
        path.carry_out(study, [member for arm in arms for member in arm])
