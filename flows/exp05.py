"""Experiment 5: does a model correct itself more when it is told to watch itself? (§3.3, figure 4, A.3.2)"""

from prefect import flow

from esr.study.plan import replay, suffixed
from esr.types import Arm
from flows import path


@flow(name="exp05", task_runner=path.threads())
def exp05(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Experiment 1's trials are replayed with a meta-prompt after the question, one arm for each; latent, boost, question and
    seed stay. The judge sees the question as the model saw it."""
    with path.study("exp05", model, scale, judge) as study:
        baseline = path.baseline(study)
        arms = [replay(baseline, Arm("exp05", name, "meta-prompt"), suffixed(name)) for name in study.params.exp05.variants]
        path.carry_out(study, [member for arm in arms for member in arm])
