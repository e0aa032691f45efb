"""Which latents are steered."""

from prefect import task

from tasks.cache import kept, on
from tasks.study import Study


@task(name="choose.latents", **kept(on("esr.study.bench", "esr.study.choose", "esr.sae", "esr.prompts", "esr.types")))
def latents(study: Study) -> list[list[object]]:
    """Concrete latents that no evaluation question wakes, as [index, label]."""
    return [[latent.index, latent.label] for latent in study.bench.latents()]
