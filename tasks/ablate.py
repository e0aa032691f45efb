"""Which latents are clamped to zero: detectors, and controls in their place."""

from dataclasses import asdict
from typing import Any

from prefect import task

from esr.study.detect import Activations
from tasks.cache import kept, on
from tasks.study import Study

RESTS_ON = ("esr.study.bench", "esr.study.detect")
Sets = dict[str, list[dict[str, Any]]]


@task(name="ablate.detectors", **kept(on(*RESTS_ON)))
def detectors(study: Study, activations: str) -> list[dict[str, Any]]:
    """Latents quiet while a reply answers its question and active while it does not."""
    return [asdict(detector) for detector in study.bench.detected(Activations.from_text(activations))]


@task(name="ablate.controls", **kept(on(*RESTS_ON)))
def controls(study: Study, activations: str, latents: list[list[Any]]) -> Sets:
    """Sets of as many other latents, by name of the set; distractors and detectors are never among them."""
    sets = study.bench.controls(Activations.from_text(activations), [index for index, _ in latents])
    return {name: [asdict(control) for control in rows] for name, rows in sets.items()}
