"""What is known of many latents' thresholds together: the posterior of each under a prior and a scatter learnt from all.

    known = Pool(family).posterior(answers)     # one list of (boost, score, n) a latent
    known.estimates, known.low, known.high      # one a latent
    known.place(k)                              # where k more replies tell most

The posterior follows from the answers alone, whatever the order they came in: nothing is carried from one step to the next, so a search
done again from stored answers asks the same.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from esr.threshold.family import Family, Floats, Singles
from esr.threshold.prior import Prior
from esr.threshold.scatter import LEVELS, Scatter

ROUNDS = (8, 8, 16)
"""Steps of learning the prior, between which the scatter is learnt."""
DRAWS = 16
"""Curves of each latent against which its answers' scatter is measured."""
Z95 = 1.96
TAIL = 0.1


class Ask(NamedTuple):
    """One question that was put and answered."""

    boost: float
    score: float
    """Mean first-attempt score, in [0, 1]."""
    n: int
    """Samples behind the score; 0: told without a count, hence the reference update."""


class Pool:
    def __init__(self, family: Family) -> None:
        self.family = family
        self.means = family.means(family.candidates)
        self.heights = _heights(self.means)
        self._asked: dict[float, NDArray[np.uint8]] = dict(zip(family.candidates.tolist(), self.heights, strict=True))

    def posterior(self, answers: Sequence[Sequence[Ask]]) -> "Known":
        """Of each latent, given every latent's answers. Latents without an answer teach nothing and get the learnt prior."""
        boosts = sorted({ask.boost for asks in answers for ask in asks})
        prior, scatter = Prior(self.family), Scatter.unknown()
        if not boosts:
            return Known(self, np.tile(prior.weights(), (len(answers), 1)), scatter)
        heights = self._columns(boosts)
        sums, counts = _totals(answers, boosts)
        told = counts.sum(axis=1) > 0
        for turn, steps in enumerate(ROUNDS):
            log = sums @ scatter.slope[heights] - counts @ scatter.cost[heights]
            log -= log.max(axis=1, keepdims=True)
            likelihood = np.exp(np.maximum(log, -75))
            prior.learn(likelihood[told], steps)
            mass = likelihood * prior.weights()
            mass /= mass.sum(axis=1, keepdims=True)
            if turn < len(ROUNDS) - 1:
                scatter = self._scatter(mass, answers, boosts, heights)
        return Known(self, mass, scatter)

    def _columns(self, boosts: Sequence[float]) -> NDArray[np.uint8]:
        new = [boost for boost in boosts if boost not in self._asked]
        if new:
            self._asked |= dict(zip(new, _heights(self.family.means(new)), strict=True))
        return np.stack([self._asked[boost] for boost in boosts])

    def _scatter(self, mass: Singles, answers: Sequence[Sequence[Ask]], boosts: list[float], heights: NDArray[np.uint8]) -> Scatter:
        """Distances to curves drawn evenly from each posterior, so that what is not known of a curve counts as its scatter no more
        than it must."""
        row = {boost: i for i, boost in enumerate(boosts)}
        levels, squares = [], []
        quantiles = (np.arange(DRAWS) + 0.5) / DRAWS
        for total, asks in zip(np.cumsum(mass, axis=1), answers, strict=True):
            if asks:
                cells = np.minimum(np.searchsorted(total, quantiles * total[-1]), len(total) - 1)
                told = np.array(asks)
                at = (heights[[row[ask.boost] for ask in asks]][:, cells] + 0.5) / LEVELS
                levels.append(at.ravel())
                squares.append((told[:, 2:] * (told[:, 1:2] - at) ** 2).ravel())
        seen = np.concatenate(levels)
        return Scatter.learnt(seen, np.concatenate(squares), np.full(len(seen), 1 / DRAWS))


class Known:
    """The posterior of each latent: latents × cells."""

    def __init__(self, pool: Pool, mass: Singles, scatter: Scatter) -> None:
        self._pool, self._family, self._mass, self._scatter = pool, pool.family, mass, scatter

    @cached_property
    def low(self) -> Floats:
        """Lower end of the central 95 % interval; at a bound: the bound is not ruled out."""
        return self._quantile(0.025)

    @cached_property
    def high(self) -> Floats:
        return self._quantile(0.975)

    @cached_property
    def estimates(self) -> Floats:
        """The boost at which the expected score is the target. The median lies lower where curves are steep: a miss to the left costs
        more score than one to the right saves, so the mean first-attempt score would come out above the target."""
        falling = np.minimum.accumulate(self._expected, axis=1)
        roots = [np.interp(-self._family.target, -row, self._family.candidates) for row in falling]
        return np.clip(np.array(roots), self.low, self.high)

    @property
    def never(self) -> Floats:
        """Probability that the score stays above the target up to the upper bound."""
        return np.asarray(self._theta[:, -1])

    @property
    def always(self) -> Floats:
        """Probability that it is below from the lower bound on."""
        return np.asarray(self._theta[:, 0])

    @cached_property
    def score_widths(self) -> Floats:
        """Width of the 95 % interval of the score at the estimate."""
        spread = np.sqrt(np.maximum(self._mass @ (self._pool.means**2).T - self._expected**2, 0))
        rows = zip(self.estimates, spread, strict=True)
        return np.array([2 * Z95 * np.interp(at, self._family.candidates, row) for at, row in rows])

    def place(self, k: int) -> Floats:
        """The boost at which the mean of k replies takes most off the variance of θ, where the outer tenths of θ count as no further
        out than their beginning: a far tail is not worth more than the middle. Gains are compared to four digits, the lower boost
        before the higher."""
        low, high = (self._quantile(q)[:, None].astype(np.float32) for q in (TAIL, 1 - TAIL))
        unit = (np.clip(self._family.values(), low, high) - low) / np.maximum(high - low, 1e-6)
        weighted = self._mass * unit
        covariance = weighted @ self._pool.means.T - self._expected * weighted.sum(axis=1, keepdims=True)
        second = self._mass @ self._scatter.second[self._pool.heights].T
        variance = second - self._expected**2
        if k > 1:
            known = self._mass @ (self._pool.means**2).T - self._expected**2
            variance = (variance - known) / k + known
        gain = covariance**2 / np.maximum(variance, 1e-6)
        rounded = np.round(gain / np.maximum(gain.max(axis=1, keepdims=True), 1e-30), 4)
        return np.asarray(self._family.candidates[rounded.argmax(axis=1)])

    @cached_property
    def _expected(self) -> Singles:
        """Expected score: latents × candidates."""
        return np.asarray(self._mass @ self._pool.means.T)

    @cached_property
    def _theta(self) -> Floats:
        return self._family.over_theta(self._mass)

    def _quantile(self, q: float) -> Floats:
        thetas = self._family.thetas
        ends = np.concatenate([thetas[:1], (thetas[1:] + thetas[:-1]) / 2, thetas[-1:]])
        totals = np.cumsum(self._theta, axis=1)
        return np.array([np.interp(q, total[:-1] / total[-1], ends) for total in totals])


def _heights(means: Singles) -> NDArray[np.uint8]:
    return np.minimum(means * LEVELS, LEVELS - 1).astype(np.uint8)


def _totals(answers: Sequence[Sequence[Ask]], boosts: list[float]) -> tuple[Singles, Singles]:
    """Sum of scores and number of replies: latents × boosts."""
    row = {boost: i for i, boost in enumerate(boosts)}
    sums, counts = np.zeros((2, len(answers), len(boosts)), np.float32)
    for latent, asks in enumerate(answers):
        for ask in asks:
            sums[latent, row[ask.boost]] += ask.n * ask.score
            counts[latent, row[ask.boost]] += ask.n
    return sums, counts
