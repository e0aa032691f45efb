"""The family of falling score curves on one grid: every threshold × slope × floor × ceiling, and the two edge hypotheses.

    m(b) = f + (c − f) · σ(a − (b − θ)/w)      with a such that m(θ) = target

The edges are curves that never fall to the target within the bounds, and curves that lie below it from the lower bound on. The last
`EDGES` cells are theirs; the others run over θ first, then over the shapes (w, f, c).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
"""Arrays over cells are single precision: they are large, and a likelihood needs no more."""

SLOPES = np.geomspace(0.03, 1.2, 7)
"""w in units of the prior's standard deviation."""
FLOORS = (0.05, 0.4, 0.7)
"""f as a share of the target."""
CEILINGS = (0.95, 0.75)
"""c as a share of the way from the target to 1."""
NEVER = (0.95, 0.75, 0.5, 0.25)
"""Level of a score that never falls to the target, as a share of the way from the target to 1."""
ALWAYS = (0.05, 0.35, 0.65, 0.85)
"""Level of a score that is always below it, as a share of the target."""
EDGES = len(NEVER) + len(ALWAYS)
FINE = 40
"""Thresholds on the grid per standard deviation of the prior, out to three of them."""
GROWTH = 0.04
"""Beyond, the distance between two thresholds as a share of their distance from the lower bound."""


class Family:
    def __init__(self, lower: float, upper: float, mean: float | None, std: float | None, target: float) -> None:
        self.lower, self.upper, self.target = float(lower), float(upper), float(target)
        self.std = (upper - lower) / 4 if std is None else float(std)
        self.mean = (lower + upper) / 2 if mean is None else float(mean)
        self.thetas = _thetas(self.lower, self.upper, self.mean, self.std)
        w, f, c = np.meshgrid(
            SLOPES * self.std, np.array(FLOORS) * target, target + np.array(CEILINGS) * (1 - target), indexing="ij"
        )
        self._w, self._f, self._c = (x.ravel().astype(np.float32) for x in (w, f, c))
        share = (target - self._f) / (self._c - self._f)
        self._offset = np.log(share / (1 - share))
        self._levels = np.concatenate([target + np.array(NEVER) * (1 - target), np.array(ALWAYS) * target]).astype(np.float32)
        self.candidates: Floats = np.unique(np.concatenate([self.thetas[::2], [self.lower, self.upper]]))
        """Boosts that may be asked for."""

    @property
    def shapes(self) -> int:
        return len(self._w)

    @property
    def cells(self) -> int:
        return len(self.thetas) * self.shapes + EDGES

    @property
    def spacing(self) -> Floats:
        """What each θ stands for on the axis; sums to the range of the bounds, roughly."""
        return np.asarray(np.gradient(self.thetas), np.float64)

    def means(self, boosts: Sequence[float] | Floats) -> Singles:
        """Mean score of every cell at each boost: boosts × cells."""
        at = np.asarray(boosts, np.float32)
        z = (at[:, None, None] - self.thetas.astype(np.float32)[None, :, None]) / self._w - self._offset
        inner = self._f + (self._c - self._f) / (1 + np.exp(np.clip(z, -30, 30)))
        edges = np.broadcast_to(self._levels, (len(at), EDGES))
        return np.asarray(np.concatenate([inner.reshape(len(at), -1), edges], axis=1), np.float32)

    def values(self) -> Singles:
        """θ of every cell; the edges stand at the bounds."""
        ends = [np.full(len(NEVER), self.upper), np.full(len(ALWAYS), self.lower)]
        return np.asarray(np.concatenate([np.repeat(self.thetas, self.shapes), *ends]), np.float32)

    def over_theta(self, mass: Singles) -> Floats:
        """Latents × cells summed to latents × (always, θ…, never)."""
        inner = mass[:, :-EDGES].reshape(len(mass), len(self.thetas), self.shapes).sum(axis=2)
        never, always = mass[:, -EDGES : -len(ALWAYS)].sum(axis=1), mass[:, -len(ALWAYS) :].sum(axis=1)
        return np.asarray(np.concatenate([always[:, None], inner, never[:, None]], axis=1), np.float64)


def _thetas(lower: float, upper: float, mean: float, std: float) -> Floats:
    """Evenly spaced where the prior has its mass, and ever wider apart beyond."""
    step = std / FINE
    low, high = max(lower, mean - 4 * std), min(upper, mean + 3 * std)
    out = list(np.linspace(low, high, max(round((high - low) / step), 2) + 1))
    while out[-1] < upper:
        out.append(min(out[-1] + max(step, GROWTH * (out[-1] - lower)), upper))
    while out[0] > lower:
        out.insert(0, max(out[0] - 4 * step, lower))
    return np.array(out)
