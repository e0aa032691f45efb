"""Wilcoxon's signed ranks, as scipy tells them, and soon where differences are few and some are alike."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

FEW = 13
"""Differences among which scipy goes through all signs where some are alike or 0. It asks for the statistic of each of these 8,192
outcomes by itself, which takes seconds; here they are summed together."""


def wilcoxon(d: NDArray[np.float64], alternative: Literal["two-sided", "greater"] = "two-sided") -> tuple[float, float]:
    """Statistic and p of differences of which some are not 0."""
    from scipy import stats  # takes most of a second to load, and few runs need it

    moved = d[d != 0]
    if len(d) > FEW or len(np.unique(np.abs(moved))) == len(d):
        found = stats.wilcoxon(d, alternative=alternative)
        return float(found.statistic), float(found.pvalue)
    ranks = stats.rankdata(np.abs(moved))
    outcomes = np.zeros(1)
    for rank in ranks:
        outcomes = np.concatenate([outcomes, outcomes + rank])
    seen = float(ranks[moved > 0].sum())
    greater, less = float((outcomes >= seen).mean()), float((outcomes <= seen).mean())
    if alternative == "greater":
        return seen, greater
    return min(seen, float(ranks.sum()) - seen), min(1.0, 2 * min(less, greater))
