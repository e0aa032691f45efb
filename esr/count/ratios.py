"""Ratios of sums over trials, with their intervals: the arithmetic beneath metrics, on arrays [..., trials]."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from esr.count import intervals
from esr.count.clusters import Clusters, Spread
from esr.count.intervals import Interval, Part

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
LATENTS = 10
"""Fewer latents with a denominator than this tell too little of how latents differ."""


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
    """A statistic of each study and its interval."""

    value: Floats
    """NaN without a denominator."""
    bounds: Callable[[Floats], Interval]
    """From Student's quantile."""
    alike: Flags
    """No trial (no pair) differs from another in what would make the interval."""
    spread: Spread
    n_effective: Floats

    def interval(self, confidence: float) -> Interval:
        return self.bounds(intervals.quantile(self.spread.df, confidence))

    @property
    def told(self) -> Flags:
        """Where there is an interval."""
        out: Flags = ~np.isnan(self.value) & (self.spread.latents >= LATENTS) & ~self.alike
        return out

    def p(self) -> Floats:
        """Two-sided: 1 − the confidence of the interval that just touches 0."""
        low, high = np.full(self.value.shape, 1e-6), np.full(self.value.shape, 1e4)
        for _ in range(50):
            middle = np.sqrt(low * high)
            bounds = self.bounds(middle)
            apart = (bounds.low > 0) | (bounds.high < 0)
            low, high = np.where(apart, middle, low), np.where(apart, high, middle)
        out: Floats = np.where(self.value == 0, 1.0, 2 * special.stdtr(self.spread.df, -high))
        return out


class Counted(NamedTuple):
    """A ratio, linearised."""

    value: Floats
    residual: Floats
    weight: Floats
    spread: Spread
    crowd: Floats
    """Of a share: latents that hold the rarer of yes and no."""

    @property
    def known(self) -> Floats:
        """The value with 0 for NaN."""
        out: Floats = np.nan_to_num(self.value)
        return out


def counted(x: Floats, denominator: Floats, clusters: Clusters) -> Counted:
    n = denominator.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (x * denominator).sum(axis=-1) / n
    known = np.nan_to_num(value)
    weight = denominator / np.maximum(n, 1e-300)[..., None]
    residual = (x - known[..., None]) * weight
    rarer = np.where((known <= 0.5)[..., None], x, 1.0 - x) * denominator
    return Counted(value, residual, weight, _sized(clusters.spread(residual, weight)), clusters.crowd(rarer))


def estimate(ratio: Ratio, x: Floats, denominator: Floats, clusters: Clusters) -> Found:
    of = counted(x, denominator, clusters)
    spread = of.spread
    if ratio.kind == "share":
        n = intervals.effective(spread, of.crowd)
        return Found(of.value, lambda t: intervals.score(of.known, n, t), np.zeros(n.shape, dtype=bool), spread, n)
    alike = spread.alone <= 1e-24 * np.maximum(1.0, of.known**2)
    n = spread.n / np.maximum(intervals.design_effect(spread), 1.0)
    if ratio.kind == "bounded":
        return Found(of.value, lambda t: intervals.bounded(of.known, ratio.low, ratio.high, spread.variance, t), alike, spread, n)
    of_parts = _parts(x - ratio.low, of.weight, clusters, spread, sized=True)

    def bounds(t: Floats) -> Interval:
        found = of_parts(t)
        return Interval(found.low + ratio.low, found.high + ratio.low)

    return Found(of.value, bounds, alike, spread, n)


def difference(ratio: Ratio, x: Floats, y: Floats, of_x: Floats, of_y: Floats, clusters: Clusters) -> Found:
    """Of pairs: the ratio of x with its denominator minus that of y with its own."""
    a, b = counted(x, of_x, clusters), counted(y, of_y, clusters)
    spread = _sized(clusters.spread(a.residual - b.residual, (a.weight + b.weight) / 2))
    spread = spread._replace(latents=np.minimum(a.spread.latents, b.spread.latents))
    value = a.value - b.value
    n = spread.n / np.maximum(intervals.design_effect(spread), 1.0)
    alike = spread.alone <= 1e-24
    if ratio.kind != "bounded" and ratio.denominator != "multi" and bool((of_x == of_y).all()):
        if ratio.kind == "share":
            n = np.where(alike & (value == 0), spread.units, n)
        alike = alike & ((ratio.kind == "rare") & (value == 0))
        return Found(value, _parts(x - y, a.weight, clusters, spread, sized=ratio.kind == "rare"), alike, spread, n)
    if ratio.kind == "share":
        sizes = [intervals.effective(arm.spread, arm.crowd) for arm in (a, b)]
        related = intervals.correlation(a.spread.variance, b.spread.variance, spread.variance)

        def bounds(t: Floats) -> Interval:
            one, two = (intervals.score(arm.known, size, t) for arm, size in zip((a, b), sizes, strict=True))
            return intervals.together(a.known, b.known, one, two, related)

        return Found(value, bounds, alike, spread, n)
    deviation = np.sqrt(spread.variance)
    return Found(value, lambda t: Interval(value - t * deviation, value + t * deviation), alike, spread, n)


def _parts(z: Floats, weight: Floats, clusters: Clusters, spread: Spread, *, sized: bool) -> Callable[[Floats], Interval]:
    """Bounds of the mean of what is 0 in most trials, by what is above and what is below."""
    both = []
    for side in (np.maximum(z, 0.0), np.maximum(-z, 0.0)):
        mean = (side * weight).sum(axis=-1)
        found = clusters.spread((side - mean[..., None]) * weight, weight)
        shown = (side > 0) * weight
        both.append(Part(mean, shown.sum(axis=-1), _sized(found), clusters.crowd(shown)))
    return lambda t: intervals.parts(both[0], both[1], spread.variance, t, sized=sized)


def _sized(spread: Spread) -> Spread:
    """With 1 for sizes of 0, which take no interval anyway."""
    return spread._replace(n=np.maximum(spread.n, 1.0), units=np.maximum(spread.units, 1.0))
