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
HOLDERS = 3
"""Fewer latents than this that show any of what is rare tell too little of its size."""


def few(latents: int) -> str:
    """Why there is no interval."""
    return f"only {latents} latent{'s' * (latents != 1)}"


class Ratio(NamedTuple):
    """Σ numerator / Σ denominator over trials."""

    numerator: str
    """Column of `outcomes`."""
    denominator: str
    """`valid` (every graded trial), `multi` (those with two or more attempts) or `known` (those whose text is at hand)."""
    kind: Literal["share", "bounded", "skewed", "rare", "count"]
    """A share of trials; a mean on a scale with two ends; one that few latents can pull far; a mean of what most trials have none of,
    and the rest more or less than none; or only more."""
    low: float = 0.0
    """End of the scale; of what is rare and of counts, the value of most trials."""
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
    latents: Floats
    """With a denominator."""
    holders: Floats
    """Of what is rare, latents that show any (a pair that differs); else all."""
    df: Floats
    n_effective: Floats

    def interval(self, confidence: float) -> Interval:
        return self.bounds(intervals.quantile(self.df, confidence))

    @property
    def told(self) -> Flags:
        """Where there is an interval."""
        out: Flags = ~np.isnan(self.value) & (self.latents >= LATENTS) & (self.holders >= HOLDERS) & ~self.alike
        return out

    def p(self) -> Floats:
        """Two-sided: 1 − the confidence of the interval that just touches 0."""
        low, high = np.full(self.value.shape, 1e-6), np.full(self.value.shape, 1e4)
        for _ in range(50):
            middle = np.sqrt(low * high)
            bounds = self.bounds(middle)
            apart = (bounds.low > 0) | (bounds.high < 0)
            low, high = np.where(apart, middle, low), np.where(apart, high, middle)
        out: Floats = np.where(self.value == 0, 1.0, 2 * special.stdtr(self.df, -high))
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
    spread, value = of.spread, of.value
    if ratio.kind == "share":
        n = intervals.effective(spread, of.crowd)
        df, never = intervals.known(spread.df, spread.n / n), np.zeros(n.shape, dtype=bool)
        return Found(value, lambda t: intervals.score(of.known, n, t), never, spread.latents, spread.latents, df, n)
    alike = spread.alone <= 1e-24 * np.maximum(1.0, of.known**2)
    n = spread.n / np.maximum(intervals.design_effect(spread), 1.0)
    if ratio.kind in ("bounded", "skewed"):

        def bounds(t: Floats) -> Interval:
            if ratio.kind == "bounded":
                return intervals.bounded(of.known, ratio.low, ratio.high, spread.variance, t)
            found = intervals.skewed(of.known, spread, t)
            return Interval(np.maximum(found.low, ratio.low), np.minimum(found.high, ratio.high))

        return Found(value, bounds, alike, spread.latents, spread.latents, spread.df, n)
    rest = x - ratio.low
    of_parts, df = _parts(ratio, rest, of.weight, clusters, spread, paired=False)

    def moved(t: Floats) -> Interval:
        found = of_parts(t)
        return Interval(found.low + ratio.low, found.high + ratio.low)

    return Found(value, moved, alike, spread.latents, clusters.holders(np.abs(rest) * of.weight), df, n)


def difference(ratio: Ratio, x: Floats, y: Floats, of_x: Floats, of_y: Floats, clusters: Clusters) -> Found:
    """Of pairs: the ratio of x with its denominator minus that of y with its own."""
    a, b = counted(x, of_x, clusters), counted(y, of_y, clusters)
    spread = _sized(clusters.spread(a.residual - b.residual, (a.weight + b.weight) / 2))
    latents = np.minimum(a.spread.latents, b.spread.latents)
    value = a.value - b.value
    n = spread.n / np.maximum(intervals.design_effect(spread), 1.0)
    alike = spread.alone <= 1e-24
    if ratio.kind not in ("bounded", "skewed") and ratio.denominator != "multi" and bool((of_x == of_y).all()):
        holders = latents
        if ratio.kind == "share":
            n = np.where(alike & (value == 0), spread.units, n)
            alike = np.zeros(n.shape, dtype=bool)
        else:
            alike, holders = alike & (value == 0), clusters.holders(np.abs(x - y) * a.weight)
        of_parts, df = _parts(ratio, x - y, a.weight, clusters, spread, paired=True)
        return Found(value, of_parts, alike, latents, holders, df, n)
    if ratio.kind == "share":
        sizes = [intervals.effective(arm.spread, arm.crowd) for arm in (a, b)]
        related = intervals.correlation(a.spread.variance, b.spread.variance, spread.variance)

        def bounds(t: Floats) -> Interval:
            one, two = (intervals.score(arm.known, size, t) for arm, size in zip((a, b), sizes, strict=True))
            return intervals.together(a.known, b.known, one, two, related)

        return Found(value, bounds, alike, latents, latents, spread.df, n)
    deviation = np.sqrt(spread.variance)
    return Found(value, lambda t: Interval(value - t * deviation, value + t * deviation), alike, latents, latents, spread.df, n)


def _parts(
    ratio: Ratio, z: Floats, weight: Floats, clusters: Clusters, spread: Spread, *, paired: bool
) -> tuple[Callable[[Floats], Interval], Floats]:
    """Bounds of the mean of what is 0 in most trials, by what is above and what is below, and its degrees of freedom."""
    both = []
    for side in (np.maximum(z, 0.0), np.maximum(-z, 0.0)):
        mean = (side * weight).sum(axis=-1)
        found = clusters.spread((side - mean[..., None]) * weight, weight)
        shown = (side > 0) * weight
        both.append(Part(mean, shown.sum(axis=-1), _sized(found), clusters.crowd(shown)))
    plus, minus = both
    effect = intervals.of_pairs(spread, plus, minus) if paired else intervals.shared(plus, minus)
    df = spread.df if ratio.kind == "rare" else intervals.known(spread.df, effect)
    if ratio.kind == "count" and not paired:
        return lambda t: intervals.part(plus, plus.spread.n / plus.spread.units, t, sized=True), df
    return lambda t: intervals.parts(plus, minus, spread.variance, t, sized=ratio.kind != "share"), df


def _sized(spread: Spread) -> Spread:
    """With 1 for sizes of 0, which take no interval anyway."""
    return spread._replace(n=np.maximum(spread.n, 1.0), units=np.maximum(spread.units, 1.0))
