"""Replies token by token, laid side by side at the first word of their corrections. Outside a reply there is nothing: NaN, never 0."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def window(values: Floats, at: int, before: int, after: int) -> Floats:
    """The `before` tokens before position `at` and the `after` from it on; NaN where the reply has none. A reply's own tokens only."""
    out = np.full(before + after, np.nan)
    low, high = max(at - before, 0), min(at + after, len(values))
    if low < high:
        out[low - at + before : high - at + before] = values[low:high]
    return out


def region_mean(values: Floats, start: int | None, end: int | None) -> float:
    """The mean over tokens start, …, end − 1; NaN where the region is not there or empty."""
    if start is None or end is None:
        return float("nan")
    part = values[max(start, 0) : end]
    return float(part.mean()) if len(part) else float("nan")


def smoothed(values: Floats, alpha: float = 0.5) -> Floats:
    """y₀ = x₀, y = α x + (1 − α) y of the token before: the authors' smoothing of figure 6."""
    out = np.array(values, dtype=float)
    for t in range(1, len(out)):
        out[t] = alpha * out[t] + (1 - alpha) * out[t - 1]
    return out


def held(values: Floats, hold: int) -> Floats:
    """At each token the least of it and the next `hold` − 1: what a run of `hold` tokens never falls below. Shorter by `hold` − 1."""
    if len(values) < hold:
        return np.zeros(0)
    out: Floats = np.lib.stride_tricks.sliding_window_view(values, hold).min(axis=1)
    return out


def level(windows: Sequence[Floats], error: float, hold: int) -> float | None:
    """What a share `error` of these windows rise above for `hold` tokens running, so that this is how often an onset is seen where there
    is none. None: too few windows to tell."""
    tops = [float(run.max()) for values in windows if len(run := held(values[~np.isnan(values)], hold))]
    if len(tops) * error < 1:
        return None
    return float(np.quantile(tops, 1 - error, method="higher"))


def onset(before: Floats, above: float, hold: int) -> int | None:
    """How many tokens before the end of these values a run of `hold` begins that stays above the level; of several runs the first.
    None: none does."""
    run = held(before, hold)
    over = np.flatnonzero(run > above)
    return len(before) - int(over[0]) if len(over) else None
