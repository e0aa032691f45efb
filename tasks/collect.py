"""What latents do while text is read."""

from prefect import task

from tasks.cache import kept, on
from tasks.study import Study


@task(
    name="collect.activations",
    **kept(on("esr.study.bench", "esr.study.detect", "esr.study.steer", "esr.sae", "esr.prompts", "esr.types")),
)
def activations(study: Study) -> str:
    """How often and how strongly each latent is active when a reply answers its question and when it answers another's."""
    return study.bench.activations().to_text()
