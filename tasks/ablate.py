"""Which latents are clamped to zero: detectors, and controls in their place."""

from collections.abc import Sequence

from esr.study import detect
from esr.study.detect import Activations, Detector
from esr.study.study import Study
from esr.types import Latent
from tasks.cache import step


@step("ablate.detectors")
def detectors(study: Study, seen: Activations) -> list[Detector]:
    """Latents quiet while a reply answers its question and active while it does not."""
    return detect.detectors(study, seen)


@step("ablate.controls")
def controls(
    study: Study, seen: Activations, latents: Sequence[Latent], sets: int, matchings: Sequence[str], first_seed: int
) -> dict[str, list[Detector]]:
    """Sets of as many other latents, by name of the set; distractors and detectors are never among them."""
    barred = [latent.index for latent in latents]
    return detect.controls(study, seen, barred, sets=sets, matchings=matchings, first_seed=first_seed)
