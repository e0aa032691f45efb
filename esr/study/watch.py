"""What experiments 6 and 9 do, step by step: choose episodes, mark their regions, find what to watch, read it.

Every step asks the store what is there and makes the rest durable, so a run that is killed goes on from where it was.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from esr.errors import DataError
from esr.judge import Judge
from esr.study import backtracking, episodes, readings, regions
from esr.study.detect import Detector
from esr.study.episodes import Episode, Watching
from esr.study.plan import replay, unsteered
from esr.types import Arm, Latent, Member

if TYPE_CHECKING:
    from esr.study.study import Study

log = logging.getLogger(__name__)
EPISODES = Arm("exp09", "episodes", "episode", order=0, against="")
RESTART_FREE = Arm("exp09", "restart-free", "control", order=1, against="")
ASTRAY = Arm("exp09", "astray", "control", order=0, against="")
"""Beside few episodes, or in their place where a model never comes back."""
UNSTEERED = Arm("exp09", "unsteered", "unsteered", order=2, against=EPISODES.key)
DETECTORS, BY_LABEL, BY_CONTRAST = "detectors", "by-label", "by-contrast"


@dataclass(frozen=True, slots=True)
class Watched:
    """The episodes with the replies that they are held against."""

    episodes: tuple[Member, ...]
    """Where they are few, also replies that stay off topic."""
    restart_free: tuple[Member, ...]
    """Of another question or seed, one for each episode that has one."""
    unsteered: tuple[Member, ...]
    """The same questions and seeds without steering."""

    @property
    def members(self) -> list[Member]:
        return [*self.episodes, *self.restart_free, *self.unsteered]


def chosen(study: "Study", baseline: Sequence[Member], judge: str) -> list[Episode]:
    """The episodes among these trials, as this judge graded them."""
    settings = study.params.of(Watching)
    found = episodes.episodes(study.store, study.model, study.params.scale, judge, settings)
    planned = {(member.trial.id, member.trial.latent.index) for member in baseline}
    kept = [one for one in found if (one.trial_id, one.latent) in planned]
    if not kept:
        raise DataError(
            f"none of {len(baseline)} steered trials of {study.model!r} is an episode by {judge!r}, a reply that goes off topic, says so and "
            "comes back better, and none stays off topic; a model that is steered further, or more trials (exp01 in params.yaml), would do"
        )
    own = [one for one in kept if one.returns]
    if len(own) < len(kept):
        log.warning(
            "%d of %d steered trials are episodes: replies that go off topic, say so and come back better. %d that stay off topic are read beside "
            "them, against unsteered ones; where there are no episodes, nothing can be said of corrections, onsets and restarts",
            len(own), len(baseline), len(kept) - len(own),
        )  # fmt: skip
    without = sum(one.control is None for one in own)
    log.info("%d episodes under %d distractors; %d have no restart-free reply beside them", len(own), len({one.latent for one in own}), without)  # fmt: skip
    return kept


def arms(found: Sequence[Episode], baseline: Sequence[Member]) -> Watched:
    """As members of experiment 9, each with its controls."""
    at = {(member.trial.id, member.trial.latent.index): member for member in baseline}
    own = [at[one.trial_id, one.latent] for one in found]
    whole = [
        replay([member], EPISODES if one.returns else ASTRAY, lambda trial: trial)[0]
        for member, one in zip(own, found, strict=True)
    ]
    against = EPISODES if any(one.returns for one in found) else ASTRAY
    beside = [at[one.control, one.latent] for one in found if one.control is not None]

    return Watched(
        tuple(whole),
        tuple(replay(beside, RESTART_FREE, lambda trial: trial)),
        tuple(replay(own, replace(UNSTEERED, against=against.key), unsteered)),
    )


def mark(study: "Study", found: Sequence[Episode], watched: Watched, judge: str, annotator: Judge | None) -> int:
    """Regions of every reply: by rule, and of the episodes also by a provider's model where one is asked."""
    settings = study.params.of(Watching)
    single = [member.trial.id for member in (*watched.restart_free, *watched.unsteered)] + [
        one.trial_id for one in found if not one.returns
    ]
    marked = [regions.of_episode(one, judge) for one in found if one.returns]
    marked += regions.of_single(study.store, sorted(set(single)), judge, settings)
    if annotator is not None and (own := _returning(watched)):
        marked += regions.asked(study.store, own, annotator)
    return regions.mark(study, marked)


def _returning(watched: Watched) -> list[Member]:
    return [member for member in watched.episodes if member.arm == EPISODES]


def largest(study: "Study", watched: Watched) -> int:
    """The largest latents at each token of the episodes."""
    settings = study.params.of(Watching)
    own = _returning(watched)
    if not own:
        return 0
    return readings.largest(study, own, settings.largest, steering=settings.steering[0], stage=settings.stage)


def lists(study: "Study", found: Sequence[Episode], judge: str, detectors: Sequence[Detector]) -> dict[str, list[Latent]]:
    """What is watched, by kind; recorded, so that whoever counts knows."""
    settings, spec = study.params.of(Watching), study.spec
    labels = {latent.index: latent.label for latent in study.labels}
    first, _ = backtracking.halves([one.latent for one in found])
    marked = {one.trial_id: regions.source(judge, one.judge_prompt, "rule") for one in found if one.latent in first and one.returns}
    seen = backtracking.contrast(study.store, marked, model=study.model, sae=spec.sae, layer=spec.read_layer, settings=settings)
    made = {
        DETECTORS: [Latent(one.latent, one.label) for one in detectors],
        BY_LABEL: backtracking.by_label(study.labels, settings.label_score),
        BY_CONTRAST: [Latent(one.latent, labels.get(one.latent, "")) for one in seen],
    }
    every = sorted({latent.index for some in made.values() for latent in some})
    study.store.put_watched([
        {
            "experiment": EPISODES.experiment, "model": study.model, "scale": study.params.scale, "kind": kind, "selection": readings.list_name(every),
            "latents": [latent.index for latent in some], "labels": [latent.label for latent in some],
        }
        for kind, some in made.items()
    ])  # fmt: skip
    return made


def read(study: "Study", watched: Watched, made: Mapping[str, Sequence[Latent]]) -> int:
    """Every watched latent at every token of every reply, and of the episodes the distractor itself; how many readings were new."""
    settings = study.params.of(Watching)
    every = sorted({latent.index for some in made.values() for latent in some})
    done = 0
    for i, steering in enumerate(settings.steering):
        some = watched.members if i == 0 else [*watched.episodes, *watched.restart_free]  # the unsteered are read in one way only
        done += readings.listed(study, some, every, steering=steering, stage=settings.stage)
    return done + readings.distractors(study, watched.episodes, steering=settings.steering[0], stage=settings.stage)


def show(study: "Study", members: Sequence[Member], made: Mapping[str, Sequence[Latent]], judge: str) -> int:
    """What is shown of these replies; those that are no episodes are marked as one region, so that their tokens are known."""
    settings = study.params.of(Watching)
    ids = [member.trial.id for member in members]
    there = study.store.sql("select distinct trial_id from regions where trial_id in (select unnest(?))", [ids])[
        "trial_id"
    ].to_pylist()
    regions.mark(study, regions.of_single(study.store, sorted(set(ids) - set(there)), judge, settings))
    every = sorted({latent.index for some in made.values() for latent in some})
    done = readings.listed(study, members, every, steering=settings.steering[0], stage=settings.stage)
    return done + readings.distractors(study, members, steering=settings.steering[0], stage=settings.stage)
