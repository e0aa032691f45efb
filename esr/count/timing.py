"""What a latent has to do with a restart: it leads it, it follows the text that is off topic, or neither.

Of each latent two things are asked: is it more active off topic than on topic within the same episodes, and do the tokens right before
a restart read higher than the same place of a restart-free steered reply? Both p are taken together (Holm), so that of latents that
have to do with nothing a share `error` is said to have to do with something.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from esr.count.aligned import level, onset
from esr.count.contrasts import Contrast, Mean, contrast, holm, mean, share
from esr.count.detection import Area, area

Floats = NDArray[np.float64]
Kind = Literal["leads", "follows", "neither", "falls", "unknown"]
"""leads: higher right before a restart than in replies that do not restart · follows: higher off topic, and no higher right before a
restart · falls: significantly lower in one of the two · neither · unknown: too few latents to tell."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One latent, or a sum of several, over episodes and the restart-free steered reply that belongs to each."""

    off: Floats
    """Mean over each episode's off-topic part; NaN: it has none."""
    on: Floats
    """Mean over its on-topic part."""
    before: Sequence[Floats]
    """Each episode's tokens right before its correction."""
    control: Sequence[Floats]
    """The tokens at the same places of the reply that belongs to it; empty: there is none."""
    latent: NDArray[np.generic]
    """The distractor of each episode."""
    question: NDArray[np.generic] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    now: Contrast
    """Off topic less on topic, within episodes."""
    soon: Area
    """Of tokens before a restart against those of restart-free replies."""
    kind: Kind
    onset: Mean
    """Tokens before the correction at which it left its level, over the episodes in which it did."""
    never: Mean
    """Share of episodes in which it did not."""
    level: float | None
    """What a share `error` of restart-free replies rise above."""
    onsets: tuple[int | None, ...]
    """Of each episode; None: never."""


def timing(seen: Watched, *, soon: int, hold: int, error: float = 0.05, confidence: float = 0.95) -> Timing:
    """`soon`: tokens before a correction that count as right before it · `hold`: tokens running that make an onset."""
    now = contrast(seen.off, seen.on, seen.latent, seen.question, confidence=confidence)
    ahead = _soon(seen, soon, confidence)
    above = level([values for values in seen.control if len(values)], error, hold)
    onsets = [None if above is None else onset(values, above, hold) for values in seen.before]
    known = np.array([np.nan if one is None else float(one) for one in onsets])
    never = np.isnan(known).astype(float) if above is not None else np.full(len(known), np.nan)
    return Timing(
        now=now, soon=ahead, kind=kind(now, ahead, error),
        onset=mean(known, seen.latent, seen.question, confidence=confidence),
        never=share(never, seen.latent, seen.question, confidence=confidence), level=above, onsets=tuple(onsets),
    )  # fmt: skip


def _soon(seen: Watched, soon: int, confidence: float) -> Area:
    """Only episodes that have a reply to be held against, so that both kinds come from the same places."""
    score, positive, latent, question = [], [], [], []
    for i, (mine, other) in enumerate(zip(seen.before, seen.control, strict=True)):
        if len(mine) and len(other):
            for values, is_positive in ((mine[-soon:], True), (other[-soon:], False)):
                score.append(values)
                positive.append(np.full(len(values), is_positive))
                latent.append(np.repeat(seen.latent[i : i + 1], len(values)))
                question.append(np.repeat(seen.question[i : i + 1] if seen.question is not None else [0], len(values)))
    if not score:
        none = np.zeros(0)
        return area(none, none.astype(bool), none, confidence=confidence)
    asked = None if seen.question is None else np.concatenate(question)
    return area(np.concatenate(score), np.concatenate(positive), np.concatenate(latent), asked, confidence=confidence)


def kind(now: Contrast, soon: Area, error: float) -> Kind:
    if now.p is None or soon.p is None or now.value is None or soon.value is None:
        return "unknown"
    of_now, of_soon = holm([now.p, soon.p])
    assert of_now is not None
    assert of_soon is not None
    if of_soon < error:
        return "leads" if soon.value > 0.5 else "falls"
    if of_now < error:
        return "follows" if now.value > 0 else "falls"
    return "neither"
