"""Intervals from spreads: of a share, of an amount that most trials lack, of a mean, and of differences of these.

A share takes Wilson's interval at the effective sample size, with t. Where few trials show the event, how far they crowd into few
latents cannot be told from them, so the design effect is drawn towards the worst (every latent all or none) by as much as
`PRIOR` events weigh; without any event it is the worst. Two parts that add or subtract are put together by the distances of their
bounds (MOVER), with the correlation that latents show. All of it works on arrays, one element a study.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from esr.count.clusters import Spread

Floats = NDArray[np.float64]
SIZES = 1.0
RELATED = 10.0
PRIOR = 0.2
"""Events' worth of belief that events come by whole latents."""


class Interval(NamedTuple):
    low: Floats
    high: Floats


def quantile(df: Floats, confidence: float) -> Floats:
    """Student's, two-sided."""
    out: Floats = special.stdtrit(df, 0.5 + confidence / 2)
    return out


def score(p: Floats, n: Floats, t: Floats) -> Interval:
    """Wilson's interval of a share at a sample size that need not be whole."""
    tt = t * t
    center, scale = p + tt / (2 * n), 1 + tt / n
    half = t * np.sqrt(np.maximum(p * (1 - p), 0.0) / n + tt / (4 * n * n))
    return Interval(np.where(p <= 0, 0.0, (center - half) / scale), np.where(p >= 1, 1.0, (center + half) / scale))


def design_effect(events: Floats, effect: Floats, spread: Spread) -> Floats:
    """At least 1, and drawn towards the worst by `PRIOR` events."""
    worst = spread.n / spread.units
    drawn: Floats = np.maximum((events * effect + PRIOR * worst) / (events + PRIOR), 1.0)
    return drawn


def bounded(value: Floats, low: float, high: float, variance: Floats, t: Floats) -> Interval:
    """Of a mean on a scale with two ends: Wilson's interval of its place between them."""
    width = high - low
    p = (value - low) / width
    n = np.divide(p * (1 - p) * width**2, variance, out=np.ones_like(value), where=variance > 1e-300)
    found = score(p, np.maximum(n, 1e-6), t)
    return Interval(low + width * found.low, low + width * found.high)


def observed_effect(spread: Spread) -> Floats:
    out: Floats = np.divide(spread.variance, spread.alone, out=np.zeros_like(spread.alone), where=spread.alone > 1e-300)
    return out


def share(p: Floats, spread: Spread, events: Floats, t: Floats) -> tuple[Interval, Floats]:
    """A share's interval and its effective n."""
    n = spread.n / design_effect(events, observed_effect(spread), spread)
    return score(p, n, t), n


class Part(NamedTuple):
    """A mean that is 0 in most trials and positive in a share of them."""

    value: Floats
    share: Floats
    spread: Spread
    crowd: Floats


def parts(plus: Part, minus: Part, variance: Floats, t: Floats, *, sized: bool) -> Interval:
    """Of plus − minus, whose variance over latents is `variance`: what is won less what is lost.

    Each part is a share times a size: Wilson's interval of the share at the sample size at which it would vary as much. A part
    that nothing fell to could still have been as large per event as the other.
    """
    events = [part.crowd for part in (plus, minus)]
    effects = [observed_effect(part.spread) for part in (plus, minus)]
    worst = plus.spread.n / plus.spread.units
    whole = (events[0] * effects[0] + events[1] * effects[1] + PRIOR * worst) / (events[0] + events[1] + PRIOR)
    sizes = [np.divide(part.value, part.share, out=np.zeros_like(part.value), where=part.share > 0) for part in (plus, minus)]
    largest = np.maximum(sizes[0], sizes[1])
    found = []
    for part, count, effect, size in zip((plus, minus), events, effects, sizes, strict=True):
        p, some = part.share, part.share > 0
        own = np.maximum((count * effect + PRIOR * whole) / (count + PRIOR), 1.0)
        n = part.spread.n / own
        if sized:
            second = part.spread.alone * part.spread.n + part.value**2  # mean square
            vary = np.divide(second, p * size * size, out=np.ones_like(p), where=some & (size > 0)) - 1
            k = p * part.spread.n
            vary = (k * vary + SIZES) / np.maximum(k + SIZES - 1, SIZES)
            n = n * (1 - p) / (1 - p + vary)
        bounds = score(p, np.maximum(n, 1e-6), t)
        unit = np.where(some, size, largest) if sized else 1.0
        found.append(Interval(bounds.low * unit, bounds.high * unit))
    few = np.minimum(plus.share * plus.spread.n, minus.share * minus.spread.n)
    related = correlation(plus.spread.variance, minus.spread.variance, variance)
    related = np.where(related > 0, related * few / (few + RELATED), related)
    return together(plus.value, minus.value, found[0], found[1], related)


def together(one: Floats, two: Floats, first: Interval, second: Interval, correlation: Floats) -> Interval:
    """Of `one` − `two`."""
    down, up = one - first.low, first.high - one
    under, over = two - second.low, second.high - two
    low = one - two - np.sqrt(np.maximum(down**2 + over**2 - 2 * correlation * down * over, 0.0))
    high = one - two + np.sqrt(np.maximum(up**2 + under**2 - 2 * correlation * up * under, 0.0))
    return Interval(low, high)


def correlation(one: Floats, two: Floats, difference: Floats) -> Floats:
    """Of two parts, from the variances of both and of their difference."""
    scale = 2 * np.sqrt(one * two)
    out: Floats = np.divide(one + two - difference, scale, out=np.zeros_like(scale), where=scale > 1e-300)
    return out.clip(-1.0, 1.0)
