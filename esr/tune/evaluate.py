"""Checkpoints evaluated as experiment 4 does: what is asked of each, and whose members they are."""

from collections.abc import Collection, Iterable
from dataclasses import replace

from esr.study.plan import replay, suffixed, unsteered
from esr.tune.checkpoint import Checkpoint
from esr.types import Arm, Member

WATCHFUL = "self_monitor"
"""The meta-prompt."""
BASE = Arm("exp04", "base", "base", 0.0, 0, against="")
LIVE = "tuned-live"
"""The kind of arms that were trained under live steering: no points of the curve over ratios."""
FALSE_ALARMS = Arm("exp04", "base-unsteered", "unsteered", 0.0, 0, against="")
"""The base without steering: a second attempt there is one too many."""

TOLD = Arm("exp04", WATCHFUL, "meta-prompt", against=BASE.key)


def arm(one: Checkpoint, seeds: int) -> Arm:
    """`50`, or `50-2` where several were trained; `steered-50` of one that was trained under live steering."""
    course = one.course
    named, kind = course.kind if seeds == 1 else str(course), LIVE if course.steered else "tuned"
    return Arm("exp04", named, kind, float(course.ratio), course.seed, against=BASE.key)


def false_alarms(tuned: Arm) -> Arm:
    kind = "unsteered-live" if tuned.kind == LIVE else "unsteered"
    return replace(tuned, name=f"{tuned.name}-unsteered", kind=kind, against=FALSE_ALARMS.key)


def of_base(members: Iterable[Member], model: str) -> list[Member]:
    """Members whose trials are a checkpoint's, filed under its base, beside which they are counted."""
    return [replace(member, model=model) for member in members]


def without_steering(steered: Iterable[Member], to: Arm) -> list[Member]:
    """The same questions and seeds, and the latent that would have been steered."""
    return replay(steered, to, unsteered)


def watchful(steered: Iterable[Member], to: Arm) -> list[Member]:
    """The same, told to watch itself."""
    return replay(steered, to, suffixed(WATCHFUL))


def watchful_too(steered: Iterable[Member], tuned: Arm, ratios: Collection[int]) -> list[Member]:
    """The same of a checkpoint, where it is of one of these ratios."""
    to = replace(tuned, name=f"{tuned.name}-{WATCHFUL}", kind="meta-prompt")
    return watchful(steered, to) if tuned.level in ratios else []
