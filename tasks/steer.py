"""Replies under steering. The store is asked which are there; Prefect is not."""

from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE

from esr.study import steer
from esr.types import Member
from tasks.run import Run


@task(name="steer.replies", cache_policy=NO_CACHE, tags=["engine"])
def replies(run: Run, members: Sequence[Member]) -> int:
    """Generates the replies that the store lacks, each batch durable before the next is counted; how many were made."""
    return steer.replies(run.study, [member.trial for member in members])
