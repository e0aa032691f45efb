"""What latents do while text is read."""

from esr.study import detect
from esr.study.detect import Activations
from esr.study.study import Study
from tasks.cache import step


@step("collect.activations")
def activations(study: Study) -> Activations:
    """How often and how strongly each latent is active when a reply answers its question and when it answers another's."""
    return detect.activations(study)
