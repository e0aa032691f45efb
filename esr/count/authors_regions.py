"""The authors' statistics of appendix A.4, as their code makes them: for comparison with their numbers, not for claims.

The halves of their p-values ignore the sign, their d is unpaired though its pairs are episodes, their groups are tested over latents
and not over episodes, and their curves count what lies outside a reply as 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from esr.count.metrics import cliffs_delta, cohen_d_unpaired
from esr.count.signed_ranks import wilcoxon

Floats = NDArray[np.float64]
ACTIVE = 0.01
"""A region's mean above this counts as active."""
BOXCAR = 5
"""Tokens of their moving average."""


@dataclass(frozen=True, slots=True)
class Region:
    """One latent's means over one region of each episode."""

    mean: float
    std: float
    """ddof 0."""
    median: float
    n: int
    """Episodes whose region is not empty; their files call it n_tokens."""
    n_active: int
    """Of those, with a mean above ACTIVE."""


@dataclass(frozen=True, slots=True)
class Tests:
    """Off topic against on topic; one-sided as they have it."""

    wilcoxon: float
    wilcoxon_p: float
    t: float
    t_p: float
    """The two-sided p halved, whatever the sign."""
    d: float
    """Over the pooled spread; 0 where that is 0."""
    cliffs_delta: float


def region(means: ArrayLike) -> Region:
    """Of the episodes that have it."""
    x = np.asarray(means, dtype=float)
    x = x[~np.isnan(x)]
    if not len(x):
        return Region(0.0, 0.0, 0.0, 0, 0)
    return Region(float(x.mean()), float(x.std()), float(np.median(x)), len(x), int((x > ACTIVE).sum()))


def tests(off: ArrayLike, on: ArrayLike) -> Tests:
    """Of two lists of means. Lists of unequal length raise an error that they catch: statistic 0, p 1."""
    from scipy import stats  # takes most of a second to load, and few runs need it

    a, b = (np.asarray(x, dtype=float) for x in (off, on))
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    w, w_p, t, t_p = 0.0, 1.0, 0.0, 1.0
    if len(a) == len(b) and len(a) > 1:
        if (a != b).any():
            w, w_p = wilcoxon(a - b, "greater")
        paired = stats.ttest_rel(a, b)
        t, t_p = float(paired.statistic), float(paired.pvalue) / 2
    return Tests(w, w_p, t, t_p, cohen_d_unpaired(a, b) or 0.0, cliffs_delta(a, b) or 0.0)


def group(off: Sequence[ArrayLike], on: Sequence[ArrayLike]) -> tuple[Region, Region, Tests]:
    """Of a group of latents: over the latents' means, one number a latent."""
    means = [np.array([region(one).mean for one in some]) for some in (off, on)]
    return region(means[0]), region(means[1]), tests(*means)


@dataclass(frozen=True, slots=True)
class Overlay:
    """Curves over the tokens around the corrections."""

    mean: Floats
    smoothed: Floats
    std: Floats
    """ddof 0."""
    sem: Floats
    """std over the root of the number of episodes; their band is the smoothed mean ± this."""


def overlay(sequences: Sequence[Floats], corrections: Sequence[int], reach: int = 150) -> Overlay:
    """Of whole sequences, prompts included, each cut at the position of its correction and filled with 0 outside."""
    rows = np.zeros((len(sequences), 2 * reach))
    for row, values, at in zip(rows, sequences, corrections, strict=True):
        low, high = max(at - reach, 0), min(at + reach, len(values))
        row[low - at + reach : high - at + reach] = values[low:high]
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    return Overlay(mean, np.convolve(mean, np.ones(BOXCAR) / BOXCAR, mode="same"), std, std / np.sqrt(len(rows)))
