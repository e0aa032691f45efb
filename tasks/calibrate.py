"""How strongly each latent is steered."""

from typing import Any

from prefect import task

from esr.types import Latent
from tasks.cache import kept, on
from tasks.judge import retried
from tasks.study import Study

RESTS_ON = ("esr.study.bench", "esr.study.calibrate", "esr.threshold", "esr.study.plan", "esr.prompts", "esr.types")


@task(name="calibrate.thresholds", **retried, **kept(on(*RESTS_ON)))
def thresholds(study: Study, latents: list[list[Any]]) -> list[dict[str, Any]]:
    """The boost at which each latent's first attempts meet the target, with its interval, status and asks."""
    return study.bench.thresholds([Latent(index, label) for index, label in latents])
