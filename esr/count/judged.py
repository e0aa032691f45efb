"""Simulated studies that two judges grade, whose agreement over all latents is known."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special


@dataclass(frozen=True, slots=True)
class Panel:
    """One kind of study."""

    name: str
    latents: int
    trials: int
    models: int = 1
    """Models whose latents have the same numbers."""
    rate: float = 0.2
    """Of a second attempt, by the first judge."""
    miss: float = 0.08
    """Share of replies in which the other judge sees the opposite, on average over latents."""
    spread: float = 1.0
    """Standard deviation of latents' logits, of restarts and of misses."""


PANELS = (
    Panel("10x10", 10, 10),
    Panel("48x24", 48, 24),
    Panel("10x24, half", 10, 24, rate=0.5),
    Panel("10x10, two models", 10, 10, models=2),
    Panel("24x10, rare", 24, 10, rate=0.06, miss=0.02),
    Panel("10x24, latents alike", 10, 24, spread=0.0),
)
TRUTH = 20_000
"""Latents that stand for all."""


def graded(panel: Panel, rng: np.random.Generator, latents: int | None = None) -> pd.DataFrame:
    """Both judges' view of every reply, side by side."""
    each = latents or panel.latents
    count = each * panel.models
    own, opposite, level = (
        rng.normal(size=count) * panel.spread + at for at in (special.logit(panel.rate), special.logit(panel.miss), 0.0)
    )
    row = np.repeat(np.arange(count), panel.trials)
    n = row.size
    a = rng.random(n) < special.expit(own[row])
    b = a ^ (rng.random(n) < special.expit(opposite[row]))
    score = 35 + 12 * level[row] + rng.normal(0, 15, n)
    first = [np.round(score + rng.normal(0, 10, n)).clip(0, 100) for _ in range(2)]
    more = rng.random(n) < 0.3
    up = rng.random(n) < 0.65
    seen = up ^ (rng.random(n) < special.expit(opposite[row] + 0.5))
    return pd.DataFrame(
        {
            "model": row // each,
            "latent": row % each,
            "multi_a": a,
            "multi_b": b,
            "n_attempts_a": 1 + a * (1 + more),
            "n_attempts_b": 1 + b * (1 + (more ^ (rng.random(n) < 0.1))),
            "corrected_a": a & up,
            "corrected_b": b & seen,
            "first_score_a": first[0],
            "first_score_b": first[1],
        }
    )
