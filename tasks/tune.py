"""Checkpoints, asked of DVC and never trained here."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from esr.tune import fetch
from esr.tune.checkpoint import Checkpoint
from tasks.run import Run


@task(name="tune.checkpoints", cache_policy=NO_CACHE)
def checkpoints(run: Run) -> list[Checkpoint]:
    """Every ratio's and seed's, as DVC has it, checked against the base."""
    return fetch.checkpoints(run.study)
