"""A sample of graded replies, and other judges' grades of it: never cached, the store is asked what is there."""

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from esr.study import cross
from tasks.judge import retried
from tasks.run import Run


@task(name="cross.sample", cache_policy=NO_CACHE)
def sample(run: Run) -> pd.DataFrame:
    """Drawn from what the run's judge said, and recorded."""
    drawn = cross.drawn(run.study, run.judge_name)
    cross.record(run.study, drawn, run.judge_name)
    return drawn


@task(name="cross.grades", cache_policy=NO_CACHE, tags=["judge"], **retried)
def grades(run: Run, judge: str, sample: pd.DataFrame) -> int:
    """What this judge has not graded of the sample."""
    return cross.graded(run.study, run.study.judge(judge), sample)
