"""How well each latent tells pairs of a question and another's reply from pairs of a question and its own: the area under the curve.

Pairs share questions and replies, so they are not independent: the interval is of what other questions would show. Each question is
left out in turn with every pair that it is in, asked or answered (the jackknife over the nodes of a graph whose edges are pairs). As
with rates, few errors tell too little of how they crowd into questions, so that the variance is drawn towards the worst.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from esr.count import intervals
from esr.count.ratios import LATENTS

Floats = NDArray[np.float64]
Values = NDArray[np.floating]
Codes = NDArray[np.intp]
Flags = NDArray[np.bool_]
ROOM = 1 << 24
"""Comparisons that are held at once."""


class Areas(NamedTuple):
    """Of each latent; arrays [latents]."""

    value: Floats
    """P(a mismatched pair reads higher than a matched one) + ½ P(they read alike)."""
    low: Floats
    """NaN, as `high` is, where fewer than ten questions were asked."""
    high: Floats


def areas(values: Values, question: Codes, reply: Codes, *, confidence: float = 0.95) -> Areas:
    """Of what latents read in pairs, `values` [pairs, latents]; which question each pair asks, and which one its reply answers."""
    matched = question == reply
    known, own = np.unique(question[matched], return_inverse=True)
    touched = (question[~matched] == known[:, None]) | (reply[~matched] == known[:, None])
    found = [_part(values[:, some], matched, own, touched) for some in _chunks(values.shape[1], touched.size)]
    value, variance = (np.concatenate(each) for each in zip(*found, strict=True))
    n = len(known)
    if n < LATENTS:
        unknown = np.full_like(value, np.nan)
        return Areas(value, unknown, unknown)
    single = value * (1 - value)
    errors = 2 * single * n  # questions' worth of them
    seen = np.divide(variance, single, out=np.zeros_like(value), where=single > 0)
    drawn = (errors * seen + intervals.PRIOR / n) / (errors + intervals.PRIOR)
    bounds = intervals.score(value, 1 / drawn, intervals.quantile(np.asarray(n - 1.0), confidence))
    return Areas(value, bounds.low, bounds.high)


def _chunks(latents: int, each: int) -> Iterator[slice]:
    step = max(ROOM // max(each, 1), 1)
    return (slice(start, start + step) for start in range(0, latents, step))


def _part(values: Values, matched: Flags, own: Codes, touched: Flags) -> tuple[Floats, Floats]:
    """Area and variance of some latents. `own`: the question of each matched pair; `touched`: whether a mismatched pair has a question."""
    n, others = touched.shape
    wins = np.zeros((n, others, values.shape[1]), np.float32)
    for question, mine in zip(own, values[matched], strict=True):
        wins[question] += (values[~matched] > mine) + np.float32(0.5) * (values[~matched] == mine)
    each, total = np.bincount(own, minlength=n).astype(float), wins.sum(axis=1, dtype=np.float64)
    value = total.sum(axis=0) / (each.sum() * others)
    without = []
    for out, some in enumerate(touched):
        left = total - wins[:, some].sum(axis=1, dtype=np.float64)
        pairs = (each.sum() - each[out]) * (~some).sum()
        without.append((left.sum(axis=0) - left[out]) / pairs if pairs else value)
    parts = np.stack(without)
    return value, (n - 1) / n * np.square(parts - parts.mean(axis=0)).sum(axis=0)
