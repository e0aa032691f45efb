"""How strongly each latent is steered."""

from collections.abc import Sequence

from esr.study import calibrate
from esr.study.calibrate import Threshold
from esr.study.study import Study
from esr.types import Latent
from tasks.cache import step
from tasks.judge import retried


@step("calibrate.thresholds", **retried)
def thresholds(study: Study, latents: Sequence[Latent], clamped: Sequence[int] = ()) -> list[Threshold]:
    """The boost at which each latent's first attempts meet the target, with its interval, status and asks; with `clamped`, while these
    latents are held at zero."""
    return calibrate.thresholds(study, latents, clamped)
