"""Whether what is read at a token tells a kind of token: the area under the curve within a latent, and over latents its interval.

Two tokens are compared only where the same distractor steered both replies, so that a latent that pushes harder cannot pass for one
that is noticed. Latents are weighted by their positive tokens; the interval is of what other latents would show.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esr.count import intervals
from esr.count.clusters import Clusters
from esr.count.ratios import LATENTS, Found
from esr.count.statistics import Bounds

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Codes = NDArray[np.generic]
RIDGE = 0.1
"""Share of the mean variance that is added to each latent's own, so that those that hardly fire cannot rule the direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """P(a positive token reads higher than a negative one) + ½ P(they read alike)."""

    value: float | None
    positives: int
    """Tokens."""
    negatives: int
    latents: int
    """Distractors with tokens of both kinds; the others are left out."""
    interval: Bounds | None
    no_interval: str
    p: float | None
    """That it is 0.5: below 0.05 exactly when the 95 % interval leaves that out."""


def area(score: Floats, positive: Flags, latent: Codes, question: Codes | None = None, *, confidence: float = 0.95) -> Area:
    """Of tokens: what is read at each, which kind it is, and which distractor and question its reply belongs to."""
    both = [code for code in np.unique(latent) if len(set(positive[latent == code].tolist())) == 2]
    keep = np.isin(latent, both)
    score, positive, latent = score[keep], positive[keep], latent[keep]
    n = {"positives": int(positive.sum()), "negatives": int((~positive).sum()), "latents": len(both)}
    if not both:
        return Area(value=None, **n, interval=None, no_interval="no latent has tokens of both kinds", p=None)
    place, own, weight = np.zeros(len(score)), np.zeros(len(score)), np.zeros(len(score))
    for code in both:
        inside = latent == code
        share = positive[inside].sum() / positive.sum()
        placed = _placements(score[inside], positive[inside])
        value = float(placed[positive[inside]].mean())
        kinds = np.where(positive[inside], positive[inside].sum(), (~positive[inside]).sum())
        place[inside] = share * (placed - value) / kinds
        own[inside], weight[inside] = value, share / inside.sum()
    whole = np.asarray((weight * own).sum())
    residual = place + weight * (own - whole)
    clusters = Clusters.of(latent, None if question is None else question[keep])
    spread = clusters.spread(residual, weight)

    def bounds(t: Floats) -> intervals.Interval:
        found = intervals.bounded(whole, 0.0, 1.0, spread.variance, t)
        return intervals.Interval(found.low - 0.5, found.high - 0.5)

    found = Found(whole - 0.5, bounds, np.asarray(spread.alone <= 1e-24), spread.latents, spread.latents, spread.df, spread.n)
    if not bool(found.told):
        why = f"only {len(both)} latents" if len(both) < LATENTS else "no token differs from another"
        return Area(value=float(whole), **n, interval=None, no_interval=why, p=None)
    told = found.interval(confidence)
    span = Bounds(float(told.low) + 0.5, float(told.high) + 0.5)
    return Area(value=float(whole), **n, interval=span, no_interval="", p=float(found.p()))


def _placements(score: Floats, positive: Flags) -> Floats:
    """Of each positive token the share of negative ones below it, of each negative the share of positive ones above; ties count half."""
    out = np.zeros(len(score))
    for kind, sign in ((True, 1.0), (False, -1.0)):
        mine, others = sign * score[positive == kind], np.sort(sign * score[positive != kind])
        out[positive == kind] = (np.searchsorted(others, mine, "left") + np.searchsorted(others, mine, "right")) / (2 * len(others))
    return out


def left_out(values: Floats, positive: Flags, latent: Codes) -> Floats:
    """A score of each token from several latents' values [tokens, latents]: the direction that parts the two kinds best over all other
    distractors (Fisher's, each value in units of its spread there). NaN where the others lack one of the kinds."""
    out = np.full(len(values), np.nan)
    for code in np.unique(latent):
        rest = latent != code
        one, two = values[rest & positive], values[rest & ~positive]
        if not len(one) or not len(two):
            continue
        within = np.concatenate([one - one.mean(axis=0), two - two.mean(axis=0)])
        spread = np.atleast_2d(within.T @ within / max(len(within) - 2, 1))
        scale = float(np.trace(spread)) / len(spread)
        if scale <= 0:
            continue
        direction = np.linalg.solve(spread + RIDGE * scale * np.eye(len(spread)), one.mean(axis=0) - two.mean(axis=0))
        out[~rest] = values[~rest] @ direction
    return out
