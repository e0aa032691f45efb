"""How far a ratio of sums varies when its latents, and its questions, are drawn anew.

Every statistic is Σ numerator / Σ denominator over trials; its linearised residuals are summed within a latent, within a question
and within a (latent, question), and the squares of those sums make its variance (Cameron, Gelbach and Miller's two ways). Each
square is scaled so that its expectation is right where the latents' means vary alike (Bell and McCaffrey's CR2), which gives
degrees of freedom by Satterthwaite: few latents, a few that hold most of the trials, or a few that make most of the variance, make
them few (how few is read from the squares, as if the latents that make it were normal). Arrays may have leading axes, one element
a study, so that a simulation runs the very code that a table runs.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
QUESTIONS = 8
"""Fewer questions than this are taken as given, not as drawn: their own spread cannot be told."""


class Spread(NamedTuple):
    """The sampling variance of a statistic; arrays, one element a study."""

    variance: Floats
    alone: Floats
    """The same were every trial a latent of its own."""
    skewness: Floats
    """Of the statistic, from the latents' third powers."""
    df: Floats
    """Satterthwaite's degrees of freedom; 2 at least."""
    n: Floats
    """Trials at equal weight."""
    units: Floats
    """Latents at equal weight."""
    latents: Floats
    """Latents with a denominator."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which trials belong together, as an order that puts them side by side and where each group starts."""

    order: Ints | slice
    """A slice where they lie so already."""
    starts: Ints

    @classmethod
    def of(cls, codes: NDArray[np.generic]) -> Self:
        """From one code a trial."""
        order = np.argsort(codes, kind="stable")
        arranged = codes[order]
        first = np.ones(len(codes), dtype=bool)
        first[1:] = arranged[1:] != arranged[:-1]
        lying = bool((order == np.arange(len(order))).all())
        return cls(slice(None) if lying else order, np.flatnonzero(first))

    def __len__(self) -> int:
        return len(self.starts)

    def sums(self, values: Floats) -> Floats:
        """[..., trials] to [..., groups]."""
        if not len(self.starts):
            return np.zeros((*values.shape[:-1], 0))
        out: Floats = np.add.reduceat(values[..., self.order], self.starts, axis=-1)
        return out


@dataclass(frozen=True, slots=True)
class Clusters:
    """The latents, the questions and the cells of both that trials belong to."""

    latents: Grouping
    questions: Grouping | None
    """None: taken as given, being none or few."""
    cells: Grouping | None
    """None: each holds one trial."""

    @classmethod
    def of(cls, latent: NDArray[np.generic], question: NDArray[np.generic] | None = None) -> Self:
        one = np.unique(latent, return_inverse=True)[1].ravel()
        if question is None:
            return cls(Grouping.of(one), None, None)
        two = np.unique(question, return_inverse=True)[1].ravel()
        count = int(two.max()) + 1 if len(two) else 0
        if count < QUESTIONS:
            return cls(Grouping.of(one), None, None)
        cells = Grouping.of(one * count + two)
        return cls(Grouping.of(one), Grouping.of(two), cells if len(cells) < len(one) else None)

    def spread(self, residual: Floats, weight: Floats) -> Spread:
        """Of a statistic whose trials have these linearised residuals (their sum is 0) and weights (their sum is 1)."""
        w, r = self.latents.sums(weight), self.latents.sums(residual)
        alone, each, whole = (residual * residual).sum(axis=-1), (weight * weight).sum(axis=-1), (w * w).sum(axis=-1)
        n, units, latents = (
            _ratio(np.ones(each.shape), each),
            _ratio(np.ones(each.shape), whole),
            (w > 0).sum(axis=-1).astype(float),
        )
        size = np.where(w > 0, w * n[..., None], 1.0)
        variance, df = _one_way(r, w, 1.0 / size)
        rho = np.clip(_ratio(_ratio(variance, alone) - 1.0, whole * n - 1.0), 0.0, 1.0)[..., None]
        variance, df = _one_way(r, w, rho + (1.0 - rho) / size)
        squares = r * r
        skewness = _ratio((squares * r).sum(axis=-1) * _third(w), variance**1.5)
        crowded = _ratio((squares * squares).sum(axis=-1), squares.sum(axis=-1) ** 2)  # of k normal latents 3 / (k + 2)
        uneven = 3.0 * crowded / (3.0 - 2.0 * crowded) - _ratio(np.ones(latents.shape), latents)
        df = np.minimum(df, 2.0 / np.maximum(uneven, 1e-9))
        if self.questions is not None:
            q = self.questions.sums(weight)
            by_question, df_question = _one_way(self.questions.sums(residual), q, np.ones_like(q))
            by_cell = alone if self.cells is None else (self.cells.sums(residual) ** 2).sum(axis=-1)
            more = np.maximum(by_question - by_cell, 0.0)
            both = variance + more
            df = np.where(more > 0, _ratio(both**2, _ratio(variance**2, df) + _ratio(more**2, df_question)), df)
            variance = both
        return Spread(variance, alone, skewness, np.maximum(df, 2.0), n, units, latents)

    def crowd(self, events: Floats) -> Floats:
        """Latents that hold the events, at equal numbers of them: (Σ k)² / Σ k²; 0 without events."""
        k = self.latents.sums(events)
        return _ratio(k.sum(axis=-1) ** 2, (k * k).sum(axis=-1))

    def holders(self, events: Floats) -> Floats:
        """Latents that hold any of the events."""
        out: Floats = (self.latents.sums(events) > 0).sum(axis=-1).astype(float)
        return out


def _one_way(residual: Floats, w: Floats, omega: Floats) -> tuple[Floats, Floats]:
    """Variance and degrees of freedom, from one residual, one weight and one relative variance a group."""
    total = (w * w * omega).sum(axis=-1, keepdims=True)
    left = omega * (1.0 - 2.0 * w) + total
    a = np.where((w > 0) & (w < 1 - 1e-9), omega / np.maximum(left, 1e-300), 0.0)
    variance = (residual * residual * a).sum(axis=-1)
    d = w * w * a
    s = d.sum(axis=-1)

    def inner(x: Floats, y: Floats) -> Floats:
        out: Floats = (x * y * omega).sum(axis=-1)
        return out

    one = np.ones_like(d)
    do, dw, ww, dd = inner(d, one), inner(d, w), inner(w, w), inner(d, d)
    trace = do - 2 * dw + s * ww
    own = (d * d * omega * omega).sum(axis=-1)
    cross, mixed = (d * d * w * omega * omega).sum(axis=-1), (d * w * w * omega * omega).sum(axis=-1)
    square = own + 2 * dd * ww + s * s * ww * ww - 4 * cross + 2 * s * mixed + 2 * dw * dw - 4 * s * dw * ww
    return variance, _ratio(trace * trace, square)


def _third(w: Floats) -> Floats:
    """What a sum of third powers of residuals is multiplied by, so that its expectation is right where latents vary alike: their mean was
    taken from them, which for n latents of equal weight takes away all but (n − 1)(n − 2) / n² of it. At most what it is for three."""
    cubes = w**3
    whole = cubes.sum(axis=-1)
    left = (cubes * ((1.0 - w) ** 3 - (whole[..., None] - cubes))).sum(axis=-1)
    return _ratio(whole, np.maximum(left, whole * 2 / 9))


def _ratio(top: Floats, bottom: Floats) -> Floats:
    out: Floats = np.divide(top, bottom, out=np.zeros(np.shape(bottom)), where=bottom > 1e-300)
    return out
