"""Experiment 1: how often does a model correct itself while it is steered off topic? (§3.1, figure 2)"""

from prefect import flow

from flows import path


@flow(name="exp01", task_runner=path.threads())
def exp01(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Latents that are concrete and that no question wakes are drawn from the SAE. For each, probabilistic bisection finds the
    boost at which the first attempts of steered replies score the target on the mean. At that boost the model answers questions
    drawn for the latent, steered at every position, and a judge splits each reply into attempts and scores them."""
    with path.study("exp01", model, scale, judge) as study:
        path.baseline(study)
