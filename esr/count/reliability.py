"""How far any number of judges say the same: Krippendorff's α over all of them, and whether they rank arms or models alike.

Rows are those of `agreement`, one a judge and reply, with `weight`; a reply that only one judge graded says nothing of agreement.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from esr.count import intervals
from esr.count.agreement import KEYS, Measured
from esr.count.clusters import Clusters
from esr.count.intervals import Interval
from esr.count.ratios import LATENTS, counted
from esr.count.statistics import Bounds

Floats = NDArray[np.float64]
DRAWS = 2_000
"""Of latents anew, for the interval of a rank correlation."""


@dataclass(frozen=True, slots=True)
class Alpha:
    """Of one thing that judges say yes or no to."""

    outcome: str
    judges: int
    n: int
    """Replies that two judges or more have graded."""
    alpha: Measured


def alpha(rows: pd.DataFrame, outcome: str, *, confidence: float = 0.95) -> Alpha:
    """Krippendorff's α of a yes-or-no outcome: 1 less the disagreement seen within replies over that of judgements paired at random."""
    known = rows[rows[outcome].notna()]
    units = known.groupby(["model", *KEYS] if "model" in known else KEYS, sort=True).agg(
        yes=(outcome, lambda said: float(said.astype(float).sum())),
        m=("judge", "nunique"),
        weight=("weight", "first"),
        **({"question": ("question", "first")} if "question" in known else {}),
    )
    units = units[units["m"] >= 2].reset_index()
    judges = int(known["judge"].nunique())
    if units.empty:
        return Alpha(outcome, judges, 0, Measured(None, None, "", "nothing to compare", 0))
    yes, m, weight = (units[name].to_numpy(dtype=float) for name in ("yes", "m", "weight"))
    latent = units.groupby(["model", "latent"] if "model" in units else ["latent"]).ngroup().to_numpy()
    clusters = Clusters.of(latent, units["question"].to_numpy() if "question" in units else None)
    seen = counted(2 * yes * (m - yes) / (m * (m - 1)), weight * m, clusters)
    share = counted(yes / m, weight * m, clusters)
    total = float((weight * m).sum() ** 2 / (weight**2 * m).sum())  # judgements at equal weight
    p = float(share.known)
    chance = 2 * p * (1 - p) * total / max(total - 1, 1.0)
    latents = int(seen.spread.latents)
    if chance <= 0:
        return Alpha(outcome, judges, len(units), Measured(None, None, "", "all judges always say the same one thing", latents))
    ratio = float(seen.known) / chance
    if latents < LATENTS:
        return Alpha(outcome, judges, len(units), Measured(1 - ratio, None, "", f"only {latents} latents", latents))
    residual = seen.residual - ratio * 2 * (1 - 2 * p) * share.residual
    spread = clusters.spread(residual, seen.weight)._replace(alone=seen.spread.alone)
    found = intervals.score(seen.known, intervals.effective(spread, seen.crowd), intervals.quantile(spread.df, confidence))
    bounds = Interval(np.maximum(1 - found.high / chance, -1.0), 1 - found.low / chance)
    resampled = "latents × questions resampled" if clusters.questions is not None else "latents resampled"
    told = Bounds(float(bounds.low), float(bounds.high))
    return Alpha(outcome, judges, len(units), Measured(1 - ratio, told, f"{resampled}: Wilson of disagreement, t", "", latents))


@dataclass(frozen=True, slots=True)
class Ranks:
    """Two judges' rates of the same arms, or models."""

    judge: str
    other: str
    outcome: str
    groups: tuple[str, ...]
    rates: tuple[tuple[float, ...], tuple[float, ...]]
    tau: Measured
    """Kendall's τ-b."""


def ranks(rows: pd.DataFrame, outcome: str, by: str, *, seed: int, confidence: float = 0.95) -> list[Ranks]:
    """Of every pair of judges, over the replies that both graded; the interval is of latents drawn anew, percentiles."""
    found, known = [], rows[rows[outcome].notna()]
    for one, two in itertools.combinations(sorted(known["judge"].unique()), 2):
        a, b = (known[known["judge"] == name].drop_duplicates([by, *KEYS]) for name in (one, two))
        both = a.merge(b[[by, *KEYS, outcome]], on=[by, *KEYS], suffixes=("_a", "_b"))
        found.append(_ranked(one, two, outcome, both, by, seed, confidence))
    return found


def _ranked(one: str, two: str, outcome: str, both: pd.DataFrame, by: str, seed: int, confidence: float) -> Ranks:
    groups, place = np.unique(both[by].to_numpy(dtype=str), return_inverse=True)
    names = ["model", "latent"] if "model" in both else ["latent"]
    latent = both.groupby(names).ngroup().to_numpy()
    latents, count = int(latent.max()) + 1 if len(both) else 0, len(groups)
    sums = np.zeros((3, latents, count))
    weight = both["weight"].to_numpy(dtype=float)
    for i, x in enumerate((weight, *(weight * both[f"{outcome}_{side}"].to_numpy(dtype=float) for side in "ab"))):
        np.add.at(sums[i], (latent, place.ravel()), x)
    rates = _rates(sums.sum(axis=1))
    told = (tuple(map(float, rates[0])), tuple(map(float, rates[1])))
    value = _tau(*rates)
    if value is None or latents < LATENTS:
        why = "fewer than two that differ" if value is None else f"only {latents} latents"
        return Ranks(one, two, outcome, tuple(groups), told, Measured(value, None, "", why, latents))
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(latents, np.full(latents, 1 / latents), size=DRAWS).astype(float)
    again = [_tau(*_rates(np.einsum("l,klg->kg", draw, sums))) for draw in draws]
    tail = (1 - confidence) / 2
    low, high = np.quantile([tau for tau in again if tau is not None] or [value], [tail, 1 - tail])
    return Ranks(
        one,
        two,
        outcome,
        tuple(groups),
        told,
        Measured(value, Bounds(float(low), float(high)), "latents resampled: percentiles", "", latents),
    )


def _rates(sums: Floats) -> Floats:
    out: Floats = np.divide(sums[1:], sums[0], out=np.zeros_like(sums[1:]), where=sums[0] > 0)
    return out


def _tau(a: Floats, b: Floats) -> float | None:
    """Kendall's τ-b to scipy's last bit, in a sixth of its time; None where all of one are alike."""
    i, j = np.triu_indices(len(a), 1)
    one, two = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
    differ = np.sqrt(np.count_nonzero(one)), np.sqrt(np.count_nonzero(two))
    return float(min(1.0, max(-1.0, one @ two / differ[0] / differ[1]))) if all(differ) else None
