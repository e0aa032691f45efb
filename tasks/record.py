"""What was planned and found goes into the store: never cached, and the same whether done once or twice."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from esr.types import Member
from tasks import board
from tasks.study import Study


@task(name="record.thresholds", cache_policy=NO_CACHE)
def thresholds(study: Study, found: Sequence[Mapping[str, Any]]) -> int:
    study.bench.store.put_thresholds(list(found))
    return len(found)


@task(name="record.trials", cache_policy=NO_CACHE)
def trials(study: Study, members: Sequence[Member]) -> int:
    """The whole plan of an arm at once, so that what has no grade yet counts as missing."""
    study.bench.store.put_members(list(members))
    return len(members)


@task(name="record.detectors", cache_policy=NO_CACHE)
def detectors(study: Study, sets: Mapping[str, Sequence[Mapping[str, Any]]]) -> int:
    return study.bench.put_detectors(sets)


@task(name="record.run", cache_policy=NO_CACHE)
def run(study: Study, started: datetime, status: str) -> str:
    """The run's manifest: revision, params, versions, engine, prompts, cost."""
    cost = board.cost()
    return study.bench.put_run(study.experiment, study.judge, started=started, status=status, cost=cost)
