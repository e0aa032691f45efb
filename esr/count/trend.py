"""Whether a score falls from each dose to the next, direction by direction: steps with their intervals, and a rank correlation.

Every direction is met at every level with the same questions and seeds, so steps are differences in pairs; intervals are of what other
directions of the same kind would show.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from esr.count import intervals, metrics
from esr.count.clusters import Clusters
from esr.count.metrics import Difference
from esr.count.ratios import LATENTS, counted, few
from esr.count.statistics import Bounds, wilson
from esr.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Share:
    """Of directions, each counting once, or a mean over them."""

    value: float
    n: int
    """Directions."""
    interval: Bounds | None
    no_interval: str


@dataclass(frozen=True, slots=True)
class Step:
    low: float
    """Level it goes from."""
    high: float
    change: Difference
    """Of the mean first score, in pairs."""
    falls: Share
    """Directions whose mean is lower at the higher level."""
    rises: Share
    """Directions whose mean is higher there; the rest are alike."""


@dataclass(frozen=True, slots=True)
class Within:
    """Directions, each by its own mean score at every level."""

    tau: Share
    """Mean over directions of Kendall's τ-b between level and mean score: −1 where the score falls at every step."""
    falling: Share
    """Mean over directions of the share of the variance between levels that the best falling curve explains (isotonic regression)."""
    monotone: Share
    """Directions whose mean rises at no step."""


@dataclass(frozen=True, slots=True)
class Trend:
    steps: tuple[Step, ...]
    within: Within


def trend(levels: Sequence[tuple[float, pd.DataFrame]], *, confidence: float = 0.95) -> Trend:
    """Of rows of `outcomes`, by level; a direction that lacks a level is left out of all but the differences in pairs."""
    if len(levels) < 2:
        raise DataError(f"a trend is over two levels or more, and there are {len(levels)}")
    ordered = sorted(levels, key=lambda level: level[0])
    means = pd.DataFrame({level: rows.groupby("latent")["first_score"].mean() for level, rows in ordered}).dropna()
    table = means.to_numpy(dtype=float)  # [directions, levels]
    moved = np.diff(table, axis=1)
    steps = tuple(
        Step(
            low,
            high,
            metrics.differences(there, here, confidence=confidence)["first_score_mean"],
            _share((moved[:, i] < 0).astype(float), confidence),
            _share((moved[:, i] > 0).astype(float), confidence),
        )
        for i, ((low, here), (high, there)) in enumerate(pairwise(ordered))
    )
    return Trend(steps, within(table, confidence=confidence))


def within(table: Floats, *, confidence: float = 0.95) -> Within:
    """Of mean scores [directions, levels], levels ascending; of a direction that is alike at all levels no rank is told."""
    from scipy import stats  # takes most of a second to load, and few runs need it

    places = np.arange(table.shape[1])
    varied = table[np.ptp(table, axis=1) > 0]
    taus = np.array([stats.kendalltau(places, row).statistic for row in varied])
    explained = np.array([_explained(row) for row in varied])
    monotone = _share((np.diff(table, axis=1) <= 0).all(axis=1).astype(float), confidence)
    return Within(_mean(taus, -1.0, confidence), _mean(explained, 0.0, confidence), monotone)


def _explained(row: Floats) -> float:
    from scipy import optimize  # as above

    fitted = optimize.isotonic_regression(row, increasing=False).x
    return 1 - float(((row - fitted) ** 2).sum() / ((row - row.mean()) ** 2).sum())


def _share(yes: Floats, confidence: float) -> Share:
    """Directions are independent, so this is Wilson's plain interval."""
    if len(yes) < LATENTS:
        return Share(float(yes.mean()) if len(yes) else float("nan"), len(yes), None, few(len(yes)))
    return Share(float(yes.mean()), len(yes), wilson(int(yes.sum()), len(yes), confidence), "")


def _mean(values: Floats, low: float, confidence: float) -> Share:
    """On a scale from `low` to 1."""
    if len(values) < LATENTS:
        return Share(float(values.mean()) if len(values) else float("nan"), len(values), None, few(len(values)))
    of = counted(values, np.ones(len(values)), Clusters.of(np.arange(len(values))))
    if of.spread.alone <= 1e-24:
        return Share(float(of.value), len(values), None, "all directions alike")
    found = intervals.bounded(of.known, low, 1.0, of.spread.variance, intervals.quantile(of.spread.df, confidence))
    return Share(float(of.value), len(values), Bounds(float(found.low), float(found.high)), "")
