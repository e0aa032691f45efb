"""The one path that the experiments share: choose, calibrate, plan, steer and grade, record, draw."""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from math import ceil
from typing import Any

from prefect import runtime
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from esr.engine.share import workers
from esr.errors import DataError, EsrError
from esr.experiment import Experiment
from esr.prompts import evaluation
from esr.study import watch
from esr.study.along import set_of
from esr.study.batches import cut
from esr.study.calibrate import Threshold
from esr.study.choose import Baseline, shortfall
from esr.study.episodes import Episode
from esr.study.grade import finished, key
from esr.study.plan import ablated, boosted, plan, replay
from esr.study.watch import Watched
from esr.study.workload import UNKNOWN, There, searched_replies
from esr.study.workload import there as stored
from esr.types import BASELINE, Arm, Latent, Member
from tasks import ablate, build, cache, calibrate, choose, collect, engines, judge, page, read, record, steer
from tasks.run import Run, begun

log = logging.getLogger(f"esr.{__name__}")
"""Below esr, whose lines go into the flow run's log."""
SHARDS = 50
"""At most so many shards a stage, so that a flow run stays well under 300 task runs, beyond which Prefect's history suffers."""
AHEAD = 2
"""Steering shards at once for each engine: the next fills it while the last of the one before are still being written."""


def options(experiment: Experiment) -> dict[str, Any]:
    """Of the flow: its name, the name of each run, and where its tasks run."""
    return {
        "name": experiment.name,
        "flow_run_name": experiment.name + "-{model}-{scale}",
        "task_runner": ThreadPoolTaskRunner(max_workers=8 + 4 * workers()),
    }


@contextmanager
def run(experiment: Experiment, model: str, scale: str, judge: str | None) -> Iterator[Run]:
    """One run of an experiment: what it found is drawn at its end, and how it ended is recorded in any case."""
    this, started = begun(experiment.name, model, scale, judge), datetime.now(UTC)
    this.check()
    engines.taken_from_pool(this)
    this.flow_run = runtime.flow_run.id
    page.told()
    page.tag(experiment.name, model, scale)
    with closing(this):
        try:
            this.row = record.begun(this, started)
            yield this
            for ending in experiment.endings:
                ending(this)
        except BaseException as error:
            this.progress.stop()  # tasks still at work keep what they have and begin no further batch
            with suppress(EsrError, OSError):  # what stopped the run may stop this too, and is what should be told
                record.ended(this, started, f"failed: {type(error).__name__}", this.row)
            raise
        record.ended(this, started, "completed", this.row)


def latents(run: Run) -> list[Latent]:
    """The latents that experiment 1 steers."""
    wanted = run.params.of(Baseline).latents
    found: list[Latent] = choose.latents(run, wanted)
    if said := shortfall(wanted, len(found)):
        log.warning(said)  # also where the choice was made in another run
    return found


def thresholds(run: Run) -> list[Threshold]:
    """The chosen latents that bite, each with the boost at which it does; several shards of latents are searched at once."""
    chosen = latents(run)
    if bites := _bites(run, chosen):
        return bites
    raise DataError(
        f"none of {len(chosen)} latents of {run.model!r} meets the target at any boost; see the table thresholds, and models.{run.model}.search"
    )


def thresholds_anew(runs: Sequence[Run], chosen: Sequence[Latent]) -> list[list[Threshold]]:
    """What calibration finds for the same latents on each run's model: searched side by side, so that models which share an engine meet
    in its batch. Of each the latents that bite, which may be none."""
    searches = [_searches(run, chosen) for run in runs]
    found = [[one for search in some for one in search.result() if one.bites] for some in searches]
    for run, bites in zip(runs, found, strict=True):
        record.doses(run, quote(bites))
    return found


def _bites(run: Run, chosen: Sequence[Latent], clamped: Sequence[int] = ()) -> list[Threshold]:
    """Of the chosen those that meet the target at some boost, which may be none; with `clamped`, while these latents are held at zero."""
    found = [one for search in _searches(run, chosen, clamped) for one in search.result() if one.bites]
    run.progress.settle("calibrate", "calibrate: judge")
    record.doses(run, quote(found))
    return found


def _searches(run: Run, chosen: Sequence[Latent], clamped: Sequence[int] = ()) -> list[PrefectFuture[list[Threshold]]]:
    """Begun, one a shard of latents."""
    asked = searched_replies(run.params, len(chosen))
    run.progress.expect("calibrate", asked)
    run.progress.expect("calibrate: judge", asked)
    under = {"clamped": sorted(clamped)} if clamped else {}
    shards = cut(chosen, _size(len(chosen), run.params.work.calibrate_shard))
    return [calibrate.thresholds.submit(run, quote(shard), **under) for shard in shards]


def there(run: Run) -> There:
    """How much of what this run will ask for is in the store. Nothing is computed: unknown, unless latents (or directions) and thresholds
    were found before."""
    if not run.study.store.sql("select 1 from trials where model = ? limit 1", [run.model]).num_rows:
        return There(0, 0, 0)
    if run.experiment.directed:
        made = cache.done(build.directions, run, name=set_of(run.params, run.model))
        if made is None:
            return UNKNOWN
        run = run.steered_along(made, *_directed(run))
    chosen = cache.done(choose.latents, run, n=run.params.of(Baseline).latents)
    if not chosen:
        return UNKNOWN
    shards = cut(chosen, _size(len(chosen), run.params.work.calibrate_shard))
    found = [cache.done(calibrate.thresholds, run, latents=shard) for shard in shards]
    bites = [one for some in found if some for one in some if one.bites]
    if None in found or not bites:
        return UNKNOWN
    settings = run.experiment.settings
    per_latent = getattr(run.params.of(settings), "trials_per_latent", None) if settings else None
    members = planned(run, bites, BASELINE, per_latent or run.params.of(Baseline).trials_per_latent)
    return stored(run.study, run.experiment, run.judge, members)


def _directed(run: Run) -> tuple[int, int]:
    """How many directions an experiment steers along, and how many trials it makes of each."""
    assert run.experiment.searched is not None, "an experiment that steers along directions says how many it searches"
    n = run.experiment.searched(run.params)
    return n, run.experiment.size(run.params).trials // n


def planned(run: Run, found: Sequence[Threshold], arm: Arm, trials_per_latent: int) -> list[Member]:
    """These latents steered at their thresholds on evaluation questions."""
    return plan(
        run.params,
        arm=arm,
        model=run.model,
        weights=run.study.weights,
        meaning=run.study.meaning,
        latents=[one.latent for one in found],
        thresholds={one.latent.index: one.boost for one in found},
        questions=evaluation(),
        trials_per_latent=trials_per_latent,
    )


def baseline(run: Run) -> list[Member]:
    """Experiment 1's steered trials, carried out as far as they are missing: what the other experiments replay."""
    members = planned(run, thresholds(run), BASELINE, run.params.of(Baseline).trials_per_latent)
    carry_out(run, members)
    return members


def recalibrated(run: Run, baseline: Sequence[Member], arm: Arm, clamped: Sequence[int]) -> list[Member]:
    """The same trials with these latents held at zero, each distractor at the boost at which it meets the target meanwhile: at equal
    difficulty. A distractor that has no such boost is left out, and where none has, the arm: the clamp alone may break the model."""
    chosen = latents(run)
    boosts = {one.latent.index: one.boost for one in _bites(run, chosen, clamped)}
    if not boosts:
        log.warning(
            "%s has no trials: none of %d latents of %r meets the target at any boost while %d latents are held at zero; see the table "
            "thresholds, whose column `clamped` names them",
            arm.key, len(chosen), run.model, len(clamped),
        )  # fmt: skip
    kept = [member for member in baseline if member.trial.latent.index in boosts]
    moved = replay(kept, arm, boosted(run.params, run.model, lambda trial: boosts[trial.latent.index]))
    return replay(moved, arm, ablated(run.params, run.model, clamped))


def watched(run: Run) -> tuple[list[Episode], Watched, dict[str, list[Latent]]]:
    """Experiment 9's episodes with their controls, read token by token as far as that is not done; and the latents that were read."""
    read.annotator(run)
    steered = baseline(run)
    detectors = ablate.detectors(run, collect.activations(run))
    record.detectors(run, {"detectors": detectors})
    found = read.episodes(run, quote(steered))
    some = watch.arms(found, steered)
    carry_out(run, some.members)
    read.regions(run, quote(found), quote(some))
    read.largest(run, quote(some))
    lists = read.lists(run, quote(found), quote(detectors))
    read.activations(run, quote(some), lists)
    return found, some, lists


def carry_out(run: Run, members: Sequence[Member]) -> None:
    """Steer and grade what is not finished; while one shard is graded the next is generated."""
    record.trials(run, quote(members))
    run.progress.expect("steer", len(members))
    run.progress.expect("judge", len(members))
    steering: deque[tuple[Sequence[Member], PrefectFuture[int]]] = deque()
    grading: list[PrefectFuture[int]] = []
    done = finished(run.study, members, run.judge)
    for shard in cut(members, _size(len(members), run.params.work.shard)):
        if all(key(member) in done for member in shard):
            run.progress.stored("steer", len(shard))
            run.progress.stored("judge", len(shard))
            continue
        for graded in grading:
            with suppress(TimeoutError):  # it is still at work
                graded.result(timeout=0)  # what ended it ends the run now, not when all is generated
        if len(steering) == AHEAD * workers():
            grading.append(_grade_next(run, steering))
        steering.append((shard, steer.replies.submit(run, quote(shard))))
    while steering:
        grading.append(_grade_next(run, steering))
    for graded in grading:
        graded.result()


def _grade_next(run: Run, steering: deque[tuple[Sequence[Member], PrefectFuture[int]]]) -> PrefectFuture[int]:
    shard, replies = steering.popleft()
    replies.result()
    return judge.grades.submit(run, quote(shard))


def _size(n: int, asked: int) -> int:
    return max(asked, ceil(n / SHARDS))
