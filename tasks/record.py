"""What was planned and found goes into the store: never cached, and the same whether done once or twice."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from prefect import task
from prefect.cache_policies import NO_CACHE

from esr.errors import EsrError
from esr.record.run import RUNNING, put_run
from esr.study import detect, norms
from esr.study.calibrate import Threshold
from esr.study.detect import Detector
from esr.types import Member
from tasks.run import Run


@task(name="record.trials", cache_policy=NO_CACHE)
def trials(run: Run, members: Sequence[Member]) -> int:
    """The whole plan of an arm at once, so that what has no grade yet counts as missing."""
    run.study.store.put_members(list(members))
    return len(members)


@task(name="record.doses", cache_policy=NO_CACHE)
def doses(run: Run, found: Sequence[Threshold]) -> float:
    """How long the stream is where these latents are steered, and how long one boost of each; the first, measured where it is not there."""
    return norms.measure(run.study, found).norm


@task(name="record.detectors", cache_policy=NO_CACHE)
def detectors(run: Run, sets: Mapping[str, Sequence[Detector]]) -> int:
    return detect.record(run.study, sets)


@task(name="record.run", cache_policy=NO_CACHE)
def begun(run: Run, started: datetime) -> str:
    """That it runs, so that others see it; the id of its row."""
    return _put(run, started, RUNNING, None)


@task(name="record.run", cache_policy=NO_CACHE)
def ended(run: Run, started: datetime, status: str, row: str | None) -> str:
    """The run's manifest: revision, params, versions, engine, prompts, cost. `row`: what was recorded when it began."""
    return _put(run, started, status, row)


def _put(run: Run, started: datetime, status: str, row: str | None) -> str:
    judges = {judge.name: judge for judge in (run.judge, run.study.grader)}
    named = {
        "experiment": run.experiment.name,
        "model": run.model,
        "judge": run.judge_name,
        "judges": [judges[name] for name in sorted(judges)],
    }
    told = {"started": started, "status": status, "cost": run.progress.cost, "engine": run.study.opened, "run_id": row}
    return put_run(run.study.store, run.params, meaning=_meaning(run), **named, **told)


def _meaning(run: Run) -> str | None:
    """Also of a run that ended because it cannot be told."""
    try:
        return run.study.meaning
    except EsrError:
        return None
