"""The one path that the experiments share: choose, calibrate, plan, steer and grade, record, draw."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from math import ceil
from typing import Any

from prefect import runtime
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from esr.errors import DataError, EsrError
from esr.prompts import evaluation
from esr.study.batches import cut
from esr.study.calibrate import BITES
from esr.study.plan import plan
from esr.study.workload import workload
from esr.types import Latent, Member
from tasks import board, calibrate, choose, draw, judge, record, steer
from tasks.study import Study

SHARDS = 50
"""At most so many shards a stage, so that a flow run stays well under 300 task runs, beyond which Prefect's history suffers."""
AHEAD = 2
"""Steering shards at once: the next fills the engine while the last of the one before are still being written."""


def threads() -> ThreadPoolTaskRunner[Any]:
    return ThreadPoolTaskRunner(max_workers=12)


@contextmanager
def study(experiment: str, model: str, scale: str, judge: str | None) -> Iterator[Study]:
    """One run of an experiment: what it found is recorded and drawn at its end, and how it ended in any case."""
    run, started = Study.of(experiment, model, scale, judge), datetime.now(UTC)
    run.check()
    board.begin(runtime.flow_run.id)
    budget = run.bench.budget = run.bench.budget or run.id
    try:
        yield run
        draw.closing(run)
        draw.sampled(run)
        draw.figure(run)
    except BaseException as error:
        with suppress(EsrError, OSError):  # what stopped the run may stop this too, and is what should be told
            record.run(run, started, f"failed: {type(error).__name__}")
        raise
    finally:
        if budget == run.id:
            run.bench.budget = None
    record.run(run, started, "completed")


def thresholds(run: Study) -> list[dict[str, Any]]:
    """The chosen latents that bite, each with the boost at which it does; several shards of latents are searched at once."""
    chosen = choose.latents(run)
    asked = workload(run.params, run.model, run.experiment).search
    board.expect("calibrate", asked)
    board.expect("calibrate: judge", asked)
    shards = cut(chosen, _size(len(chosen), run.params.work.calibrate_shard))
    searches = [calibrate.thresholds.submit(run, shard) for shard in shards]
    found = [row for search in searches for row in search.result()]
    board.settle("calibrate", "calibrate: judge")
    record.thresholds(run, found)
    bites = [row for row in found if row["status"] in BITES]
    if not bites:
        raise DataError(
            f"none of {len(found)} latents of {run.model!r} meets the target at any boost; see the table thresholds, and models.{run.model}.search"
        )
    return bites


def planned(run: Study, thresholds: Sequence[dict[str, Any]], experiment: str, trials_per_latent: int) -> list[Member]:
    """These latents steered at their thresholds on evaluation questions."""
    return plan(
        run.params,
        experiment=experiment,
        model=run.model,
        weights=run.bench.weights,
        latents=[Latent(row["latent"], row["label"]) for row in thresholds],
        thresholds={row["latent"]: row["threshold"] for row in thresholds},
        questions=evaluation(),
        trials_per_latent=trials_per_latent,
    )


def baseline(run: Study) -> list[Member]:
    """Experiment 1's steered trials, carried out as far as they are missing: what the other experiments replay."""
    members = planned(run, thresholds(run), "exp01", run.params.exp01.trials_per_latent)
    carry_out(run, members)
    return members


def carry_out(run: Study, members: Sequence[Member]) -> None:
    """Steer and grade what is not finished; while one shard is graded the next is generated."""
    record.trials(run, quote(members))
    board.expect("steer", len(members))
    board.expect("judge", len(members))
    steering: deque[tuple[Sequence[Member], PrefectFuture[int]]] = deque()
    grading: list[PrefectFuture[int]] = []
    finished = run.bench.finished(members, run.judge)
    for shard in cut(members, _size(len(members), run.params.work.shard)):
        if all((member.trial.id, member.trial.latent.index) in finished for member in shard):
            board.stored("steer", len(shard))
            board.stored("judge", len(shard))
            continue
        if len(steering) == AHEAD:
            grading.append(_grade_next(run, steering))
        steering.append((shard, steer.replies.submit(run, quote(shard))))
    while steering:
        grading.append(_grade_next(run, steering))
    for graded in grading:
        graded.result()


def _grade_next(run: Study, steering: deque[tuple[Sequence[Member], PrefectFuture[int]]]) -> PrefectFuture[int]:
    shard, replies = steering.popleft()
    replies.result()
    return judge.grades.submit(run, quote(shard))


def _size(n: int, asked: int) -> int:
    return max(asked, ceil(n / SHARDS))
