"""Grades of replies, asked again while a judge is busy and never for anything else."""

from collections.abc import Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from esr.errors import JudgeBusy
from esr.study import grade
from esr.types import Member
from tasks.run import Run


def is_busy(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Only a busy judge is worth asking again: a refused key or a full disk will not change."""
    try:
        state.result()
    except JudgeBusy:
        return True
    except Exception:
        return False
    return False


retried: dict[str, Any] = {
    "retries": 4,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_busy,
}


@task(name="judge.grades", cache_policy=NO_CACHE, tags=["judge"], **retried)
def grades(run: Run, members: Sequence[Member]) -> int:
    """Grades what the store has no grade of; an answer that has arrived is never paid for again. How many have one now."""
    return len(grade.grades(run.study, members, run.judge))
