"""Ratios of sums over trials, with their intervals: the arithmetic beneath metrics, on arrays [..., trials]."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from esr.count import intervals
from esr.count.clusters import Clusters, Spread
from esr.count.intervals import Interval, Part

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
LATENTS = 5
"""Fewer latents than this tell nothing of how latents differ."""


class Ratio(NamedTuple):
    """Σ numerator / Σ denominator over trials."""

    numerator: str
    """Column of `outcomes`."""
    denominator: str
    """`valid` (every graded trial), `multi` (those with two or more attempts) or `known` (those whose text is at hand)."""
    kind: Literal["share", "bounded", "rare"]
    """A share of trials; a mean on a scale with two ends; a mean of what most trials have none of."""
    low: float = 0.0
    """End of the scale; of what is rare, the value of most trials."""
    high: float = 1.0

    @property
    def proportion(self) -> bool:
        return self.kind == "share"


class Found(NamedTuple):
    """A statistic of each study, with its interval; where `told` is false there is none."""

    value: Floats
    low: Floats
    high: Floats
    told: Flags
    alike: Flags
    """No interval, for no trial differs from another (of a difference: no pair)."""
    spread: Spread
    n_effective: Floats


class Counted(NamedTuple):
    """A ratio, linearised."""

    value: Floats
    """NaN without a denominator."""
    n: Floats
    residual: Floats
    weight: Floats
    spread: Spread


def counted(x: Floats, denominator: Floats, clusters: Clusters) -> Counted:
    n = denominator.sum(axis=-1)
    some = np.maximum(n, 1e-300)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (x * denominator).sum(axis=-1) / n
    weight = denominator / some[..., None]
    residual = (x - np.nan_to_num(value)[..., None]) * weight
    return Counted(value, n, residual, weight, clusters.spread(residual, weight))


def estimate(ratio: Ratio, x: Floats, denominator: Floats, clusters: Clusters, confidence: float) -> Found:
    of = counted(x, denominator, clusters)
    spread, value = of.spread, np.nan_to_num(of.value)
    t = intervals.quantile(spread.df, confidence)
    alike = np.zeros(value.shape, dtype=bool)
    if ratio.kind == "share":
        interval, n = intervals.share(value, _safe(spread), _crowd(x, denominator, value, clusters), t)
        return _found(of.value, interval, spread, alike, n)
    alike = spread.alone <= 1e-24 * np.maximum(1.0, value * value)
    if ratio.kind == "bounded":
        interval = intervals.bounded(value, ratio.low, ratio.high, spread.variance, t)
    else:
        interval = _of_parts(x - ratio.low, of.weight, spread, clusters, t, sized=True)
        interval = Interval(interval.low + ratio.low, interval.high + ratio.low)
    return _found(of.value, interval, spread, alike, _effective(spread))


def difference(
    ratio: Ratio, x: Floats, y: Floats, of_x: Floats, of_y: Floats, clusters: Clusters, confidence: float, tail: Floats | None = None
) -> Found:
    """Of pairs: x with its denominator minus y with its own. With `tail`, Student's quantile itself instead of the confidence."""
    a, b = counted(x, of_x, clusters), counted(y, of_y, clusters)
    spread = clusters.spread(a.residual - b.residual, (a.weight + b.weight) / 2)
    t = intervals.quantile(spread.df, confidence) if tail is None else tail
    value = a.value - b.value
    alike = spread.alone <= 1e-24
    paired = ratio.denominator != "multi" and bool((of_x == of_y).all())
    if ratio.kind != "bounded" and paired:
        interval = _of_parts(x - y, a.weight, spread, clusters, t, sized=ratio.kind == "rare")
        alike = alike & (ratio.kind != "share") & (np.nan_to_num(value) == 0)
    elif ratio.kind == "share":
        one, two = (
            intervals.share(np.nan_to_num(c.value), _safe(c.spread), _crowd(z, d, np.nan_to_num(c.value), clusters), t)[0]
            for c, z, d in ((a, x, of_x), (b, y, of_y))
        )
        related = intervals.correlation(a.spread.variance, b.spread.variance, spread.variance)
        interval = intervals.together(np.nan_to_num(a.value), np.nan_to_num(b.value), one, two, related)
    else:
        half = t * np.sqrt(spread.variance)
        interval = Interval(value - half, value + half)
    return _found(value, interval, spread, alike, _effective(spread))


def _of_parts(z: Floats, weight: Floats, spread: Spread, clusters: Clusters, t: Floats, *, sized: bool) -> Interval:
    """Of a mean of what is 0 in most trials, by what is above and what is below."""
    parts = []
    for side in (np.maximum(z, 0.0), np.maximum(-z, 0.0)):
        mean = (side * weight).sum(axis=-1)
        found = clusters.spread((side - mean[..., None]) * weight, weight)
        shown = (side > 0) * weight
        parts.append(Part(mean, shown.sum(axis=-1), _safe(found), clusters.crowd(shown)))
    return intervals.parts(parts[0], parts[1], spread.variance, t, sized=sized)


def _crowd(x: Floats, denominator: Floats, p: Floats, clusters: Clusters) -> Floats:
    """Latents that hold the rarer of yes and no."""
    yes, no = x * denominator, (1.0 - x) * denominator
    return np.where(p <= 0.5, clusters.crowd(yes), clusters.crowd(no))


def _safe(spread: Spread) -> Spread:
    """With 1 for sizes of 0, which take no interval anyway."""
    return spread._replace(n=np.maximum(spread.n, 1.0), units=np.maximum(spread.units, 1.0))


def _effective(spread: Spread) -> Floats:
    effect = np.maximum(intervals.observed_effect(spread), 1.0)
    out: Floats = spread.n / effect
    return out


def _found(value: Floats, interval: Interval, spread: Spread, alike: Flags, n: Floats) -> Found:
    told = ~np.isnan(value) & (spread.latents >= LATENTS) & ~alike
    return Found(value, interval.low, interval.high, told, alike, spread, n)
