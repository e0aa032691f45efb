"""How small the error of a threshold can be at all: an oracle, which knows everything but the latent's own place.

It is told the curve's shape, how the latents' places and widths are distributed and how the judge answers, keeps the exact
posterior, and asks where one reply takes most off the variance of the threshold. What it reaches with N replies, no search that has
to learn any of this can be expected to beat with N replies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Floats = NDArray[np.float64]
BOOSTS: Floats = np.arange(0.0, 24.0, 0.1)
"""May be asked for."""


@dataclass(frozen=True)
class Knowledge:
    """What is known of every latent before its first reply: equally likely places and widths, cell by cell."""

    center: Floats
    width: Floats
    root: Floats
    """Where the mean meets the target."""


@dataclass(frozen=True)
class Reached:
    estimates: Floats
    """One a latent, of least expected squared error."""
    points: Floats
    """The same in the score at the threshold."""


def reached(
    known: Knowledge,
    mean: Callable[[Floats, Floats, Floats], Floats],
    answer: Callable[[NDArray[np.int_], Floats], Floats],
    ends: tuple[float, float],
    *,
    graded: bool,
    latents: int,
    target: float,
    marks: Sequence[int],
) -> dict[int, Reached]:
    """Estimates after so many replies; `mean` of boosts, centres and widths; `answer` of latents at boosts."""
    means = mean(BOOSTS[:, None], known.center, known.width)  # boosts × cells
    low, high = ends
    variance = means * (1 - means) / 9 if graded else (means - low) * (high - means)
    log, out = np.zeros((latents, len(known.root))), {}
    for step in range(1, max(marks) + 1):
        mass = np.exp(log - log.max(axis=1, keepdims=True))
        mass /= mass.sum(axis=1, keepdims=True)
        expected = mass @ means.T
        covariance = (mass * known.root) @ means.T - expected * (mass @ known.root)[:, None]
        spread = mass @ (variance + means**2).T - expected**2
        boosts = BOOSTS[(covariance**2 / np.maximum(spread, 1e-9)).argmax(axis=1)]
        said = answer(np.arange(latents), boosts)[:, None]
        at = mean(boosts[:, None], known.center, known.width)
        if graded:
            y, a, b = np.clip(said, 1e-9, 1 - 1e-9), 8 * at, 8 * (1 - at)
            log += (a - 1) * np.log(y) + (b - 1) * np.log1p(-y) - gammaln(a) - gammaln(b)
        else:
            share = np.clip((at - low) / (high - low), 1e-12, 1 - 1e-12)
            log += np.where(said > (low + high) / 2, np.log(share), np.log1p(-share))
        if step in marks:
            mass = np.exp(log - log.max(axis=1, keepdims=True))
            mass /= mass.sum(axis=1, keepdims=True)
            off = mass @ ((means - target) ** 2).T
            out[step] = Reached(mass @ known.root, BOOSTS[off.argmin(axis=1)])
    return out
