"""Bounds, and the interval of a share of independent trials."""

from math import sqrt
from typing import NamedTuple

from scipy import special


class Bounds(NamedTuple):
    low: float
    high: float


def wilson(k: int, n: int, confidence: float = 0.95) -> Bounds | None:
    """Score interval of a proportion; inside [0, 1] and of positive width also at 0 and n."""
    if n == 0:
        return None
    z = float(special.ndtri(0.5 + confidence / 2))
    p, zz = k / n, z * z
    center = (p + zz / (2 * n)) / (1 + zz / n)
    half = z * sqrt(p * (1 - p) / n + zz / (4 * n * n)) / (1 + zz / n)
    return Bounds(0.0 if k == 0 else center - half, 1.0 if k == n else center + half)
