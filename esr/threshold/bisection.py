"""Probabilistic bisection for the boost at which one latent's mean first-attempt score meets the target.

    search = Bisection(0, 100, 7, 5, target=0.3)
    boost = search.ask()            # the posterior's median
    search.tell(score)              # the authors' update, whatever the number of samples behind the score
    search.tell(score, n=5)         # ours, whose weight follows the number of samples
    search.estimate()

The reference update follows PROTOCOL §3 to the last digit, its Beta-median shift included. Ours is in `esr.threshold.curve` and knows
of one latent alone; many latents, which teach one another, are `esr.threshold.search`'s. The search asks and is told; it never
calls a model.
"""

from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from esr.errors import DataError
from esr.threshold.curve import CurvePosterior
from esr.threshold.pool import Ask

Status = Literal["converged", "never_bites", "always_bites", "unresolved"]
TOLERANCE = 0.5
"""A search has converged when its 95 % interval is narrower than this share of its estimate's distance from the lower bound."""
Floats = NDArray[np.float64]


class Interval(NamedTuple):
    low: float
    high: float


class Bisection:
    """One latent's search on a uniform grid over [lower, upper]."""

    def __init__(
        self,
        lower: float,
        upper: float,
        prior_mean: float | None,
        prior_std: float | None,
        target: float,
        weight: float = 5.0,
        grid: int = 10_000,
    ) -> None:
        if not (np.isfinite([lower, upper]).all() and lower < upper):
            raise DataError(f"a search needs lower < upper and was given {lower!r} and {upper!r}")
        if not 0 < target < 1:
            raise DataError(f"a search needs a target between 0 and 1 and was given {target!r}")
        self.lower, self.upper, self.target, self.weight = float(lower), float(upper), float(target), float(weight)
        self.prior_mean, self.prior_std = prior_mean, prior_std
        self.asks: list[Ask] = []
        self.grid: Floats = np.linspace(self.lower, self.upper, grid)
        self._log = np.zeros(grid) if prior_std is None else -0.5 * ((self.grid - (prior_mean or 0.0)) / prior_std) ** 2
        self._log = self._log - self._log.max()

    def ask(self) -> float:
        """The boost to try next: the posterior's median."""
        return self.estimate()

    def tell(self, score: float, n: int | None = None, *, boost: float | None = None) -> None:
        """What the boost scored (default: the boost last asked for); with `n`, the samples behind it."""
        if not (0.0 <= score <= 1.0):
            raise DataError(f"a search is told scores in [0, 1] and was told {score!r}; divide the judge's score by 100")
        if n is not None and n < 1:
            raise DataError(f"a score rests on at least one sample and was told with n = {n!r}")
        if self.asks and (self.asks[-1].n == 0) != (n is None):
            raise DataError("one search is told with n always or never; it was told both ways")
        at = self.ask() if boost is None else float(boost)
        self.asks.append(Ask(at, float(score), n or 0))
        if n is None:
            self._reference_update(at, float(score))
        else:
            self._curve.tell(at, float(score), n)

    def estimate(self) -> float:
        """The threshold as known so far: the median of the posterior, on the grid."""
        return self._curve.quantile(0.5) if self._adaptive else self._quantile(0.5)

    def interval(self, confidence: float = 0.95) -> Interval:
        """Central posterior interval; an end at a bound says that the bound is not ruled out."""
        tail = (1 - confidence) / 2
        quantile = self._curve.quantile if self._adaptive else self._quantile
        return Interval(quantile(tail), quantile(1 - tail))

    @property
    def status(self) -> Status:
        """`never_bites`: the score stays at or above the target up to the upper bound; `always_bites`: below it from the lower
        bound on. The reference search has no opinion beyond its own asks, so there every ask must have gone one way."""
        if not self.asks:
            return "unresolved"
        if self._adaptive:
            if self._curve.never > 0.9:
                return "never_bites"
            if self._curve.always > 0.9:
                return "always_bites"
        elif all(ask.score >= self.target for ask in self.asks):
            return "never_bites"
        elif all(ask.score < self.target for ask in self.asks):
            return "always_bites"
        return "converged" if self._width() <= TOLERANCE else "unresolved"

    def done(self, early_stop: float = 0.0) -> bool:
        """Whether asking on is pointless: the 95 % interval is narrower than `early_stop` of the estimate, or the latent is known
        never or always to bite, which the reference search cannot know before its end. 0: never."""
        if early_stop <= 0 or not self.asks:
            return False
        known = self._adaptive and self.status in ("never_bites", "always_bites")
        return known or self._width() <= early_stop

    @property
    def _adaptive(self) -> bool:
        return bool(self.asks) and self.asks[-1].n > 0

    @cached_property
    def _curve(self) -> CurvePosterior:
        return CurvePosterior(self.lower, self.upper, self.prior_mean, self.prior_std, self.target)

    def _width(self) -> float:
        low, high = self.interval()
        return (high - low) / max(self.estimate() - self.lower, 1e-12)

    def _quantile(self, q: float) -> float:
        mass = np.cumsum(np.exp(self._log))
        return float(self.grid[min(int(np.searchsorted(mass, q * mass[-1])), len(self.grid) - 1)])

    def _reference_update(self, at: float, score: float) -> None:
        """π(i) times p on the side where the root is believed to be, 1 − p on the other, √(p(1−p)) at the ask itself."""
        below = float(special.betainc(0.5 + self.weight * score, 0.5 + self.weight * (1 - score), self.target))
        right = score >= self.target
        p = 1 - below if right else below
        if p < 0.5:
            right, p = not right, 1 - p
        i = int(np.searchsorted(self.grid, at))
        with np.errstate(divide="ignore"):
            yes, no = np.log(p), np.log1p(-p)
        self._log[:i] += no if right else yes
        self._log[i + 1 :] += yes if right else no
        self._log[i] += 0.5 * (yes + no)
        self._log -= self._log.max()
