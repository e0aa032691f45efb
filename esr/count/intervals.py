"""Intervals from spreads: of a share, of a mean on a scale with two ends, of what most trials have none of, and of differences.

A share takes Wilson's interval at the effective sample size, with t. Where few latents show the event, how far events crowd into
latents cannot be told from them, so the design effect is drawn towards the worst (every latent all or none) as if `PRIOR` latents
more had shown that; without any event it is the worst. Of its variance, what single answers make is known from the share itself, and
only what latents add is estimated: t has the more degrees of freedom the less that is. What is won less what is lost is put together by the distances of the bounds
of both (MOVER), with the correlation that latents show. All of it works on arrays, one element a study.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from esr.count.clusters import Spread

Floats = NDArray[np.float64]
PRIOR = 0.1
"""Latents' worth of belief that events come by whole latents."""
SIZES = 0.5
"""Events' worth of belief that events' sizes vary as much as their mean."""
RELATED = 10.0
"""Events on the rarer side at which a correlation between won and lost that narrows the interval counts half."""


class Interval(NamedTuple):
    low: Floats
    high: Floats


class Part(NamedTuple):
    """A mean that is 0 in most trials and positive in a share of them."""

    value: Floats
    share: Floats
    spread: Spread
    crowd: Floats
    """Latents that hold the share's trials, at equal numbers of them."""


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


def design_effect(spread: Spread) -> Floats:
    """Variance over what it were if every trial were a latent of its own."""
    out: Floats = np.divide(spread.variance, spread.alone, out=np.zeros_like(spread.alone), where=spread.alone > 1e-300)
    return out


def _drawn(effect: Floats, latents: Floats, towards: Floats) -> Floats:
    """A design effect seen in so many latents, drawn towards another and never below 1."""
    out: Floats = np.maximum((latents * effect + PRIOR * towards) / (latents + PRIOR), 1.0)
    return out


def effective(spread: Spread, crowd: Floats) -> Floats:
    """The effective n of a share whose rarer answer `crowd` latents hold."""
    out: Floats = spread.n / _drawn(design_effect(spread), crowd, spread.n / spread.units)
    return out


def known(df: Floats, effect: Floats) -> Floats:
    """Degrees of freedom of events that are counted: of a variance `effect` times that of single answers, that one part is known.

    The effect is taken at twice what was seen, as it may have been seen too small.
    """
    return df * 2 * effect / (2 * effect - 1)


def skewed(value: Floats, spread: Spread, t: Floats) -> Interval:
    """Of a mean that latents far from the others pull to one side: Hall's (1992) monotone transformation of t."""
    g = np.where(np.abs(spread.skewness) < 1e-3, 1e-3, spread.skewness)
    sides = [3 / g * (np.cbrt(1 + g * (side - g / 6)) - 1) for side in (t, -t)]
    return Interval(*(value - np.sqrt(spread.variance) * side for side in sides))


def bounded(value: Floats, low: float, high: float, variance: Floats, t: Floats) -> Interval:
    """Of a mean on a scale with two ends: Wilson's interval of its place between them."""
    width = high - low
    p = (value - low) / width
    n = np.divide(p * (1 - p) * width**2, variance, out=np.ones_like(value), where=variance > 1e-300)
    found = score(p, np.maximum(n, 1e-6), t)
    return Interval(low + width * found.low, low + width * found.high)


def shared(plus: Part, minus: Part) -> Floats:
    """The design effect of what is won and what is lost together."""
    effects = [design_effect(part.spread) for part in (plus, minus)]
    both = _mean(effects[0], plus.crowd, effects[1], minus.crowd)
    return _drawn(both, plus.crowd + minus.crowd, plus.spread.n / plus.spread.units)


def of_pairs(spread: Spread, plus: Part, minus: Part) -> Floats:
    """The design effect of a difference of pairs that are won, lost or neither."""
    return _drawn(design_effect(spread), plus.crowd + minus.crowd, plus.spread.n / plus.spread.units)


def part(of: Part, effect: Floats, t: Floats, *, sized: bool, largest: Floats | None = None) -> Interval:
    """A share times a size (1 unless `sized`): Wilson's interval of the share, as wide as both make it.

    The square that the score interval solves has p (1 + v − p) for p (1 − p), v being the sizes' squared coefficient of variation,
    so that a share near 1 does not stop short what its sizes move. Without any event the size is `largest`.
    """
    n = of.spread.n / _drawn(design_effect(of.spread), of.crowd, effect)
    if not sized:
        return score(of.share, n, t)
    size = _size(of)
    end, unit = 1 + _variation(of, size), size if largest is None else np.where(of.share > 0, size, largest)
    found = score(of.share / end, n, t)
    return Interval(found.low * end * unit, found.high * end * unit)


def parts(plus: Part, minus: Part, variance: Floats, t: Floats, *, sized: bool) -> Interval:
    """Of plus − minus, whose variance over latents is `variance`.

    A side that nothing fell to could still have been as large an event as the other side's.
    """
    effect, largest = shared(plus, minus), np.maximum(_size(plus), _size(minus))
    one, two = (part(side, effect, t, sized=sized, largest=largest) for side in (plus, minus))
    few = np.minimum(plus.share * plus.spread.n, minus.share * minus.spread.n)
    related = correlation(plus.spread.variance, minus.spread.variance, variance)
    related = np.where(related > 0, related * few / (few + RELATED), related)
    return together(plus.value, minus.value, one, two, related)


def _size(of: Part) -> Floats:
    out: Floats = np.divide(of.value, of.share, out=np.zeros_like(of.value), where=of.share > 0)
    return out


def _mean(x: Floats, weight: Floats, y: Floats, other: Floats) -> Floats:
    total = weight + other
    out: Floats = np.divide(x * weight + y * other, total, out=np.zeros_like(total), where=total > 0)
    return out


def _variation(of: Part, size: Floats) -> Floats:
    """Squared coefficient of variation of the events' sizes."""
    p, events = of.share, of.share * of.spread.n
    square = of.spread.alone * of.spread.n + of.value**2
    seen = np.divide(square, p * size * size, out=np.ones_like(p), where=(p > 0) & (size > 0)) - 1
    out: Floats = np.maximum((events * seen + SIZES) / np.maximum(events + SIZES - 1, SIZES), 0.0)
    return out


def together(one: Floats, two: Floats, first: Interval, second: Interval, related: Floats) -> Interval:
    """Of `one` − `two`, from the intervals of both and their correlation."""
    down, up = one - first.low, first.high - one
    under, over = two - second.low, second.high - two
    low = one - two - np.sqrt(np.maximum(down**2 + over**2 - 2 * related * down * over, 0.0))
    high = one - two + np.sqrt(np.maximum(up**2 + under**2 - 2 * related * up * under, 0.0))
    return Interval(low, high)


def correlation(one: Floats, two: Floats, difference: Floats) -> Floats:
    """Of two statistics, from their variances and that of their difference."""
    scale = 2 * np.sqrt(one * two)
    out: Floats = np.divide(one + two - difference, scale, out=np.zeros_like(scale), where=scale > 1e-300)
    return out.clip(-1.0, 1.0)
