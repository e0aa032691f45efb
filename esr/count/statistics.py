"""Intervals and tests that know nothing of the study."""

from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

FEW = 25
"""Discordant pairs below which McNemar's test is taken exactly."""


class Bounds(NamedTuple):
    low: float
    high: float


class McNemar(NamedTuple):
    """Yes/no before and after on the same trials."""

    gained: int
    """Pairs with yes only in the arm."""
    lost: int
    """Pairs with yes only in the baseline."""
    p: float
    """Two-sided: exact binomial below 25 discordant pairs, else χ² with continuity correction."""


def wilson(k: int, n: int, confidence: float = 0.95) -> Bounds | None:
    """Score interval of a proportion; inside [0, 1] and of positive width also at 0 and n."""
    if n == 0:
        return None
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    p, zz = k / n, z * z
    center = (p + zz / (2 * n)) / (1 + zz / n)
    half = z * sqrt(p * (1 - p) / n + zz / (4 * n * n)) / (1 + zz / n)
    return Bounds(0.0 if k == 0 else center - half, 1.0 if k == n else center + half)


def bounds(draws: NDArray[np.float64], confidence: float = 0.95) -> Bounds | None:
    """Percentile interval; draws with a denominator of 0 are left out, and None when most of them are."""
    known = draws[~np.isnan(draws)]
    if known.size * 2 < draws.size or not known.size:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Bounds(float(low), float(high))


def mcnemar(arm: NDArray[np.bool_], baseline: NDArray[np.bool_]) -> McNemar:
    gained, lost = int((arm & ~baseline).sum()), int((~arm & baseline).sum())
    n = gained + lost
    if n < FEW:
        p = min(1.0, 2 * float(stats.binom.cdf(min(gained, lost), n, 0.5))) if n else 1.0
    else:
        p = float(stats.chi2.sf((abs(gained - lost) - 1) ** 2 / n, 1))
    return McNemar(gained, lost, p)
