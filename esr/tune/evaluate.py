"""Checkpoints evaluated as experiment 4 does: what is asked of each, and whose members they are."""

from collections.abc import Iterable
from dataclasses import replace

from esr.study.plan import replay, unsteered
from esr.tune.checkpoint import Checkpoint
from esr.types import Arm, Member

BASE = Arm("exp04", "base", "base", 0.0, 0, against="")
FALSE_ALARMS = Arm("exp04", "base-unsteered", "unsteered", 0.0, 0, against="")
"""The base without steering: a second attempt there is one too many."""


def arm(one: Checkpoint, seeds: int) -> Arm:
    """`50`, or `50-2` where several were trained."""
    course = one.course
    named = f"{course.ratio}" if seeds == 1 else str(course)
    return Arm("exp04", named, "tuned", float(course.ratio), course.seed, against=BASE.key)


def false_alarms(tuned: Arm) -> Arm:
    return replace(tuned, name=f"{tuned.name}-unsteered", kind="unsteered", against=FALSE_ALARMS.key)


def of_base(members: Iterable[Member], model: str) -> list[Member]:
    """Members whose trials are a checkpoint's, filed under its base, beside which they are counted."""
    return [replace(member, model=model) for member in members]


def without_steering(steered: Iterable[Member], to: Arm) -> list[Member]:
    """The same questions and seeds, and the latent that would have been steered."""
    return replay(steered, to, unsteered)
