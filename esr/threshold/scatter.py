"""How much replies scatter about their curve, as a function of the curve's height: learnt from every latent's answers.

Judges that say 20 or 85 scatter much halfway and hardly at the ends, judges that say 0 or 100 like coin flips, graded ones evenly. The
variance is V(m) = φ(m) · m(1 − m), with φ a smooth average of what was seen, and the evidence of n replies of mean y is the
quasi-likelihood n ∫ (y − t)/V(t) dt up to m, which for two-valued replies is the likelihood itself.
"""

from typing import Self

import numpy as np

from esr.threshold.family import Floats, Singles

LEVELS = 256
"""Heights told apart."""
KNOTS: Floats = np.linspace(0, 1, 41)
BANDWIDTH = 0.08
"""Over which φ is averaged, in score."""
PRIOR, STRENGTH = 1.0, 6.0
"""φ before any answer (coin flips), and how many answers that is worth at each height."""
LEAST = 0.002
"""Added to m(1 − m), so that no reply at the end of the scale rules a curve out."""


class Scatter:
    def __init__(self, phi: Floats) -> None:
        heights = (np.arange(LEVELS) + 0.5) / LEVELS
        variance = np.interp(heights, KNOTS, phi) * (heights * (1 - heights) + LEAST)
        self.variance: Singles = variance.astype(np.float32)
        self.slope: Singles = (np.cumsum(1 / variance) / LEVELS).astype(np.float32)
        """∫ dt/V(t): what the sum of the scores is multiplied by."""
        self.cost: Singles = (np.cumsum(heights / variance) / LEVELS).astype(np.float32)
        """∫ t dt/V(t): what the number of replies is multiplied by."""
        self.second: Singles = (variance + heights**2).astype(np.float32)

    @classmethod
    def unknown(cls) -> Self:
        return cls(np.full(len(KNOTS), PRIOR))

    @classmethod
    def learnt(cls, heights: Floats, squares: Floats, weights: Floats) -> Self:
        """From squared distances to the curve, each times its number of replies."""
        prior = STRENGTH * (KNOTS * (1 - KNOTS) + LEAST)
        near = np.exp(-0.5 * ((KNOTS[:, None] - heights) / BANDWIDTH) ** 2) * weights
        phi = (PRIOR * prior + near @ squares) / (prior + near @ (heights * (1 - heights) + LEAST))
        return cls(np.clip(phi, 0.02, 2.0))
