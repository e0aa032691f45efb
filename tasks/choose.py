"""Which latents are steered."""

from esr.study import choose
from esr.study.study import Study
from esr.types import Latent
from tasks.cache import step


@step("choose.latents")
def latents(study: Study, n: int) -> list[Latent]:
    """Concrete latents that no evaluation question wakes."""
    return choose.latents(study, n)
