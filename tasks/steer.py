"""Replies under steering. The store is asked which are there; Prefect is not."""

from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE

from esr.types import Member
from tasks.study import Study


@task(name="steer.replies", cache_policy=NO_CACHE, tags=["engine"])
def replies(study: Study, members: Sequence[Member]) -> int:
    """Generates the replies that the store lacks, each batch durable before the next is counted; how many were made."""
    return study.bench.replies([member.trial for member in members])
