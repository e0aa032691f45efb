"""Means of one thing against another over episodes: intervals over latents and questions, tests by rank, effect sizes named apart.

An episode is one trial, so what is paired is two numbers of one reply (off topic, on topic) or of two replies that belong together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from esr.count.clusters import Clusters
from esr.count.metrics import cliffs_delta, cohen_d_paired, cohen_d_unpaired
from esr.count.ratios import LATENTS, Found, Ratio, difference, estimate
from esr.count.signed_ranks import wilcoxon
from esr.count.statistics import Bounds

Floats = NDArray[np.float64]
MEAN = Ratio("value", "valid", "bounded")
"""A mean of what has no upper end; its interval is θ ± t √V."""
SHARE = Ratio("value", "valid", "share")
METHOD = "latents × questions resampled: θ ± t √V"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """The mean of one minus the mean of the other over the pairs that have both."""

    value: float | None
    n: int
    """Pairs."""
    latents: int
    """Latents that these were steered with."""
    one: float | None
    """Mean of the first over the pairs."""
    other: float | None
    interval: Bounds | None
    """Of what other latents of the same kind would show."""
    no_interval: str
    """Why there is none; empty with one."""
    p: float | None
    """The interval turned round: below 0.05 exactly when the 95 % interval leaves out 0."""
    p_signed_rank: float | None
    """Wilcoxon's, two-sided, as if no two episodes shared a latent."""
    p_signed_rank_by_latent: float | None
    """The same ranks summed by latent, which are what is independent."""
    d_paired: float | None
    """Mean of the differences over their own spread."""
    d_unpaired: float | None
    """Difference of the means over the pooled spread."""
    cliffs_delta: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean, or a share, over episodes."""

    value: float | None
    n: int
    latents: int
    interval: Bounds | None
    no_interval: str


def contrast(
    one: ArrayLike, other: ArrayLike, latent: ArrayLike, question: ArrayLike | None = None, *, confidence: float = 0.95
) -> Contrast:
    """Of pairs; those that lack either number (NaN) are left out."""
    a, b = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    both = ~(np.isnan(a) | np.isnan(b))
    a, b, codes = a[both], b[both], np.asarray(latent)[both]
    clusters = Clusters.of(codes, None if question is None else np.asarray(question)[both])
    ones = np.ones(len(a))
    empty = not len(a)
    found = difference(MEAN, a, b, ones, ones, clusters)
    told, why = _told(found, len(set(codes.tolist())), confidence, "pair")
    return Contrast(
        value=None if empty else float(found.value), n=len(a), latents=len(set(codes.tolist())),
        one=None if empty else float(a.mean()), other=None if empty else float(b.mean()),
        interval=told, no_interval=why, p=float(found.p()) if told else None,
        p_signed_rank=signed_rank(a - b), p_signed_rank_by_latent=signed_rank(a - b, codes),
        d_paired=None if empty else cohen_d_paired(a, b), d_unpaired=cohen_d_unpaired(a, b), cliffs_delta=cliffs_delta(a, b),
    )  # fmt: skip


def mean(values: ArrayLike, latent: ArrayLike, question: ArrayLike | None = None, *, confidence: float = 0.95) -> Mean:
    """Of the episodes that have a number."""
    return _of(MEAN, values, latent, question, confidence)


def share(values: ArrayLike, latent: ArrayLike, question: ArrayLike | None = None, *, confidence: float = 0.95) -> Mean:
    """Of yes and no, by the interval of every other share."""
    return _of(SHARE, values, latent, question, confidence)


def _of(ratio: Ratio, values: ArrayLike, latent: ArrayLike, question: ArrayLike | None, confidence: float) -> Mean:
    x = np.asarray(values, dtype=float)
    known = ~np.isnan(x)
    x, codes = x[known], np.asarray(latent)[known]
    clusters = Clusters.of(codes, None if question is None else np.asarray(question)[known])
    if ratio is MEAN:
        found = difference(ratio, x, np.zeros(len(x)), np.ones(len(x)), np.ones(len(x)), clusters)
    else:
        found = estimate(ratio, x, np.ones(len(x)), clusters)
    told, why = _told(found, len(set(codes.tolist())), confidence, "episode")
    value = float(found.value) if len(x) else None
    return Mean(value=value, n=len(x), latents=len(set(codes.tolist())), interval=told, no_interval=why)


def _told(found: Found, latents: int, confidence: float, what: str) -> tuple[Bounds | None, str]:
    if bool(found.told):
        bounds = found.interval(confidence)
        return Bounds(float(bounds.low), float(bounds.high)), ""
    if not latents:
        return None, f"no {what}"
    return None, f"only {latents} latents" if latents < LATENTS else f"no {what} differs from another"


def signed_rank(differences: ArrayLike, latent: ArrayLike | None = None) -> float | None:
    """Wilcoxon's two-sided p of differences that lie about 0; zeros are left out. With `latent` the signed ranks of a latent are
    summed first, and the sums are held against their own spread with as many degrees of freedom as latents less one (Datta and
    Satten's design, in its plainest form). None: nothing to rank."""
    d = np.asarray(differences, dtype=float)
    codes = None if latent is None else np.asarray(latent)[~np.isnan(d)]
    d = d[~np.isnan(d)]
    if not (d != 0).any():
        return None
    if codes is None:
        return wilcoxon(d)[1]
    from scipy import stats  # takes most of a second to load, and few runs need it

    codes, d = codes[d != 0], d[d != 0]
    ranks = np.sign(d) * stats.rankdata(np.abs(d))
    _, group = np.unique(codes, return_inverse=True)
    sums = np.bincount(group.ravel(), weights=ranks)
    if len(sums) < 2:
        return None
    t = abs(sums.sum()) / np.sqrt((sums**2).sum())
    return float(2 * special.stdtr(len(sums) - 1, -t))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Each p among the others (Holm): the smallest times their number, the next times one less, never falling. None stays None."""
    known = sorted((value, i) for i, value in enumerate(p) if value is not None)
    out: list[float | None] = [None] * len(p)
    least = 0.0
    for rank, (value, i) in enumerate(known):
        least = max(least, min(1.0, value * (len(known) - rank)))
        out[i] = least
    return out


__all__ = ["METHOD", "Contrast", "Mean", "contrast", "holm", "mean", "share", "signed_rank"]
