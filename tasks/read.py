"""What latents do in replies that were generated: the store is asked what is there, and Prefect is not."""

from collections.abc import Mapping, Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE

from esr.judge import Judge
from esr.study import watch
from esr.study.detect import Detector
from esr.study.episodes import Episode, Watching
from esr.study.watch import Watched
from esr.types import Latent, Member
from tasks.run import Run


def annotator(run: Run) -> Judge | None:
    """Who quotes the regions, where a provider is asked; opened early, so that a missing key is said before anything is computed."""
    by = run.params.of(Watching).marked_by
    return run.study.judge(run.params.judging.annotation_judge) if by == "judge" else None


@task(name="read.episodes", cache_policy=NO_CACHE)
def episodes(run: Run, baseline: Sequence[Member]) -> list[Episode]:
    """Which of the graded trials are episodes, and which reply is held against each."""
    return watch.chosen(run.study, baseline, run.judge_name)


@task(name="read.regions", cache_policy=NO_CACHE, tags=["engine"])
def regions(run: Run, found: Sequence[Episode], watched: Watched) -> int:
    """Where each reply is off topic, corrects itself and is on topic again; how many replies were marked anew."""
    return watch.mark(run.study, found, watched, run.judge_name, annotator(run))


@task(name="read.largest", cache_policy=NO_CACHE, tags=["engine"])
def largest(run: Run, watched: Watched) -> int:
    """The largest latents at each token of the episodes; how many replies were read anew."""
    return watch.largest(run.study, watched)


@task(name="read.lists", cache_policy=NO_CACHE)
def lists(run: Run, found: Sequence[Episode], detectors: Sequence[Detector]) -> dict[str, list[Latent]]:
    """Which latents are watched: detectors, and backtracking latents by label and by contrast."""
    return watch.lists(run.study, found, run.judge_name, detectors)


@task(name="read.activations", cache_policy=NO_CACHE, tags=["engine"])
def activations(run: Run, watched: Watched, latents: Mapping[str, Sequence[Latent]]) -> int:
    """The watched latents at every token of every reply; how many readings were new."""
    return watch.read(run.study, watched, latents)


@task(name="read.shown", cache_policy=NO_CACHE, tags=["engine"])
def shown(run: Run, members: Sequence[Member], latents: Mapping[str, Sequence[Latent]]) -> int:
    """The watched latents and the distractor in replies that are shown, and where their tokens stand; how many readings were new."""
    return watch.show(run.study, members, latents, run.judge_name)
