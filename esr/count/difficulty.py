"""Differences at equal difficulty: how arms differ where their first attempts are equally far astray.

What changes a model may also change its first attempts, and restarts depend on how far astray these are. So replies are put into
strata of the first score, and the arm's rate in each stratum counts as often as the baseline's replies fall into it: the rate that
the arm would have if its first attempts were those of the baseline, minus the baseline's. It describes and does not explain: the
first score is itself a result. An arm whose thresholds are found anew makes difficulty equal by its design.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from esr.count import intervals, metrics, ratios
from esr.count.clusters import Clusters, Spread
from esr.count.intervals import Interval
from esr.count.metrics import METRICS, Difference
from esr.count.ratios import LATENTS, Found, Ratio, few
from esr.count.statistics import Bounds

Floats = NDArray[np.float64]
STRATA = (0, 5, 20, 35, 50, 70)
"""Lower ends of the strata of the first score, as in the view `strata`."""
FEW = 5
"""Fewer trials of either arm in a stratum tell nothing of it, and it is left out."""
COVERED = 0.9
"""The strata that remain hold at least this share of the baseline's trials, or there is no such difference."""
STANDARDISED = ("multi_attempt_rate", "esr_rate")
"""The rates that are told at equal difficulty."""


@dataclass(frozen=True, slots=True)
class Standardised(Difference):
    """A rate minus the baseline's, over strata of the first score weighted as the baseline's replies fall into them."""

    covered: float | None
    """Share of the baseline's trials that lie in strata where both arms have some."""


class Shifted(NamedTuple):
    """The standardised difference of each study; arrays, one element a study."""

    value: Floats
    covered: Floats
    spread: Spread


def stratum(first_score: Floats) -> NDArray[np.intp]:
    """Which of STRATA each score lies in."""
    return np.searchsorted(np.array(STRATA[1:], dtype=float), first_score, side="right")


def shifted(x: Floats, y: Floats, at_x: NDArray[np.intp], at_y: NDArray[np.intp], clusters: Clusters) -> Shifted:
    """Of pairs: x of the arm and y of the baseline, with the stratum that each lies in."""
    both = []
    for k in range(len(STRATA)):
        a, b = (at_x == k).astype(float), (at_y == k).astype(float)
        n, m = a.sum(axis=-1), b.sum(axis=-1)
        kept = (n >= FEW) & (m >= FEW)
        rate = np.divide((x * a).sum(axis=-1), n, out=np.zeros_like(n), where=kept)
        both.append((a, b, np.where(kept, n, 1.0), np.where(kept, m, 0.0), rate))
    held = sum(m for _, _, _, m, _ in both)
    total = np.maximum(held, 1e-300)
    theta = sum(m * rate for *_, m, rate in both) / total
    base = sum((y * b).sum(axis=-1) * (m > 0) for _, b, _, m, _ in both) / total
    residual, weight = np.zeros_like(x), np.zeros_like(x)
    for a, b, n, m, rate in both:
        each = (m / (n * total))[..., None]
        mine, theirs = a * each, b * ((m > 0) / total)[..., None]
        residual += mine * (x - rate[..., None]) + theirs * (rate - theta)[..., None] - theirs * (y - base[..., None])
        weight += (mine + theirs) / 2
    covered = held / max(x.shape[-1], 1)
    return Shifted(theta - base, covered, clusters.spread(residual, weight))


def difference(ratio: Ratio, x: Floats, y: Floats, first_x: Floats, first_y: Floats, clusters: Clusters) -> tuple[Found, Floats]:
    """The standardised difference with its interval, and the share covered.

    The interval is the raw paired difference's, moved to the standardised value and stretched by how much further that varies: so
    arms of which hardly a pair differs keep an interval that is not empty.
    """
    ones = np.ones_like(x)
    raw, moved = ratios.difference(ratio, x, y, ones, ones, clusters), shifted(x, y, stratum(first_x), stratum(first_y), clusters)
    equal = ones / x.shape[-1]
    apart = x - y
    varies = clusters.spread((apart - apart.mean(axis=-1, keepdims=True)) * equal, equal).variance
    deviation = np.sqrt(moved.spread.variance)
    stretch = np.divide(deviation, np.sqrt(varies), out=np.ones_like(deviation), where=varies > 1e-24)

    def bounds(t: Floats) -> Interval:
        found = raw.bounds(t)
        down = np.maximum((raw.value - found.low) * stretch, t * deviation)
        up = np.maximum((found.high - raw.value) * stretch, t * deviation)
        return Interval(moved.value - down, moved.value + up)

    n = moved.spread.n / np.maximum(intervals.design_effect(moved.spread), 1.0)
    value = np.where(moved.covered >= COVERED, moved.value, np.nan)
    df = np.where(deviation > 1e-12, np.minimum(moved.spread.df, raw.df), raw.df)
    return Found(value, bounds, raw.alike, raw.latents, raw.holders, df, n), moved.covered


def standardised(rows: pd.DataFrame, baseline: pd.DataFrame, *, confidence: float = 0.95) -> Mapping[str, Standardised]:
    """Each rate of `rows` minus `baseline` at equal first scores, over the (latent, question, seed) that both have."""
    a, b = metrics.paired(metrics.outcomes_frame(rows), metrics.outcomes_frame(baseline))
    clusters = Clusters.of(a["latent"].to_numpy(), a["question"].to_numpy() if "question" in a else None)
    first, second = (frame["first_score"].to_numpy(dtype=float) for frame in (a, b))
    out = {}
    for name in STANDARDISED:
        x, y = (frame[METRICS[name].numerator].to_numpy(dtype=float) for frame in (a, b))
        found, covered = difference(METRICS[name], x, y, first, second, clusters) if len(a) else (None, np.float64("nan"))
        out[name] = _told(name, found, float(covered), len(a), clusters, confidence)
    return out


def _told(name: str, found: Found | None, covered: float, n: int, clusters: Clusters, confidence: float) -> Standardised:
    def without(why: str, value: float | None = None, latents: int = 0) -> Standardised:
        share = None if np.isnan(covered) else covered
        return Standardised(name, value, n, None, "", why, latents, None, None, None, share)

    if found is None:
        return without("no pairs")
    latents = int(found.latents)
    if np.isnan(found.value):
        return without(f"first scores overlap for {100 * covered:.0f} % of the baseline", latents=latents)
    value = float(found.value)
    if latents < LATENTS:
        return without(few(latents), value, latents)
    low, high = (float(bound) for bound in found.interval(confidence))
    resampled = "latents × questions resampled" if clusters.questions is not None else "latents resampled"
    method = f"{resampled}: Wilson of won and lost, t, stretched for the strata"
    sized = float(found.n_effective)
    return Standardised(name, value, n, Bounds(low, high), method, "", latents, sized, float(found.p()), None, covered)
