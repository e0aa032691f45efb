"""Experiment 8: does a model correct itself when nothing steers it? (A.3.1)"""

from prefect import flow

from esr.study.plan import replay, unsteered
from esr.types import Arm
from flows import path


@flow(name="exp08", task_runner=path.threads())
def exp08(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Experiment 1's trials are replayed without an intervention: the same questions and seeds. The judge is still told of the
    latent that would have been steered."""
    with path.study("exp08", model, scale, judge) as study:
        path.carry_out(study, replay(path.baseline(study), Arm("exp08", "no-steering", "unsteered"), unsteered))
