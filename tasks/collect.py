"""What latents do while text is read."""

from collections.abc import Sequence

from esr.study import beginnings, detect
from esr.study.detect import Activations
from esr.study.study import Study
from tasks.cache import step


@step("collect.activations")
def activations(study: Study) -> Activations:
    """How often and how strongly each latent is active when a reply answers its question and when it answers another's."""
    return detect.activations(study)


@step("collect.spans")
def spans(study: Study, ids: Sequence[str]) -> list[list[list[int]]]:
    """Where each token of these trials' replies stands in its text."""
    return beginnings.spans_of(study, ids)


@step("collect.token")
def token(study: Study, text: str) -> int:
    """The one token that a text is."""
    return beginnings.token(study, text)
