"""What is known of a latent's threshold, from a family of falling score curves.

    m(b) = f + (c − f) · σ(a − (b − θ)/w)      with a such that m(θ) = target

θ is the threshold; the slope w and the pair (floor f, ceiling c) are nuisances and summed out. Two further hypotheses, that the
score never falls to the target within the bounds and that it lies below from the start, are what the status is read from. The
evidence of a score is the binomial log likelihood times its number of samples, divided by a dispersion that the data
themselves set: a judge's scores of 20 and 85 scatter less than coin flips, scores of 0 and 100 do not.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GRID = 2_000
SLOPES = np.geomspace(0.03, 1.0, 5)
"""w in units of the prior's standard deviation."""
LEVELS = ((0.05, 0.98), (0.4, 0.9), (0.7, 0.85))
"""(floor as a share of the target, ceiling)."""
WIDE = 0.1
"""Prior weight of a threshold anywhere between the bounds, against the prior's bell."""
EDGE = 0.02
"""Prior weight of each of the hypotheses `never` and `always`."""
DISPERSION, STRENGTH = 1.0, 4.0
"""Prior dispersion of the scores, and how many observed steps it is worth."""


class CurvePosterior:
    """Axes: θ (two edge hypotheses at the ends) × slope × level."""

    def __init__(self, lower: float, upper: float, mean: float | None, std: float | None, target: float) -> None:
        self.grid: Floats = np.linspace(lower, upper, GRID)
        scale = (upper - lower) / 4 if std is None else std
        self._w = (SLOPES * scale)[None, :, None]
        self._floor = (np.array([f for f, _ in LEVELS]) * target)[None, None, :]
        self._ceiling = np.array([max(c, (1 + target) / 2) for _, c in LEVELS])[None, None, :]
        share = (target - self._floor) / (self._ceiling - self._floor)
        self._offset = np.log(share / (1 - share))
        bell = np.ones(GRID) if std is None else np.exp(-0.5 * ((self.grid - (mean or 0.0)) / std) ** 2) + 1e-300
        inside = (1 - WIDE) * bell / bell.sum() + WIDE / GRID
        theta = np.concatenate([[EDGE], (1 - 2 * EDGE) * inside, [EDGE]])
        shape = (GRID + 2, len(SLOPES), len(LEVELS))
        self._prior: Floats = np.broadcast_to(np.log(theta)[:, None, None], shape) - np.log(shape[1] * shape[2])
        self._likelihood: Floats = np.zeros(shape)
        self._told: list[tuple[float, float, int]] = []

    def tell(self, boost: float, score: float, n: int) -> None:
        m = self._mean(boost)
        self._likelihood += n * (score * np.log(m) + (1 - score) * np.log1p(-m))
        self._told.append((boost, score, n))
        self.__dict__.pop("_theta", None)

    def quantile(self, q: float) -> float:
        """Of θ; the edge hypotheses count as the bounds."""
        at = int(np.searchsorted(np.cumsum(self._theta), q)) - 1
        return float(self.grid[min(max(at, 0), GRID - 1)])

    @property
    def always(self) -> float:
        """Probability that the score is below the target from the lower bound on."""
        return float(self._theta[0])

    @property
    def never(self) -> float:
        """Probability that the score stays above the target up to the upper bound."""
        return float(self._theta[-1])

    def _mean(self, boost: float) -> Floats:
        z = self._offset - (boost - self.grid[:, None, None]) / self._w
        inner = self._floor + (self._ceiling - self._floor) / (1 + np.exp(np.clip(-z, -60, 60)))
        edges = np.broadcast_to(self._floor, (1, *inner.shape[1:])), np.broadcast_to(self._ceiling, (1, *inner.shape[1:]))
        return np.concatenate([edges[0], inner, edges[1]])

    @cached_property
    def _theta(self) -> Floats:
        """Posterior over θ, summed over slopes and levels."""
        log = self._prior + self._likelihood / self._dispersion()
        mass = np.exp(log - log.max()).sum(axis=(1, 2))
        out: Floats = mass / mass.sum()
        return out

    def _dispersion(self) -> float:
        """Pearson's statistic at the best curve, shrunk to the prior's."""
        if not self._told:
            return 1.0
        best = np.unravel_index(int(np.argmax(self._prior + self._likelihood / DISPERSION)), self._prior.shape)
        total = DISPERSION * STRENGTH
        for boost, score, n in self._told:
            m = float(self._mean_at(boost, best))
            total += n * (score - m) ** 2 / (m * (1 - m))
        return min(max(total / (STRENGTH + len(self._told)), 0.2), 2.0)

    def _mean_at(self, boost: float, cell: tuple[np.intp, ...]) -> float:
        theta, slope, level = (int(i) for i in cell)
        floor, ceiling = float(self._floor[0, 0, level]), float(self._ceiling[0, 0, level])
        if theta in (0, GRID + 1):
            return floor if theta == 0 else ceiling
        z = float(self._offset[0, 0, level]) - (boost - float(self.grid[theta - 1])) / float(self._w[0, slope, 0])
        return floor + (ceiling - floor) / (1 + float(np.exp(min(max(-z, -60), 60))))
