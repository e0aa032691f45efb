"""Do judges agree? Pairs of judges on the replies both graded, with intervals, also from a sample enriched in restarts.

Restarts are rare, so a sample for other judges takes all of them and few others; each row then carries a weight, the number of
replies that it stands for, and every share here is a share of the replies stood for, not of the sample. Intervals resample latents.
Ranks are taken once, on the whole sample, and not again in each draw.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from esr.count.statistics import Bounds, bounds
from esr.errors import DataError

Floats = NDArray[np.float64]
KEYS = ["trial_id", "latent"]


@dataclass(frozen=True, slots=True)
class Measured:
    value: float | None
    interval: Bounds | None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two judges on the replies that both graded."""

    judge: str
    other: str
    n: int
    """Replies of the sample that both graded."""
    n_missing: int
    """Replies of the sample that one of them graded and the other did not."""
    n_multi: int
    """Replies that both call multi-attempt."""
    multi: Measured
    """Share on which they agree whether there are two or more attempts."""
    attempts: Measured
    """Share on which they count the same number of attempts."""
    kappa: Measured
    """Cohen's, of `multi`."""
    pabak: Measured
    """2 · multi − 1."""
    direction: Measured
    """Among those that both call multi-attempt, share on which they agree whether the last attempt is better than the first."""
    spearman: Measured
    """Of the first attempts' scores."""
    pearson: Measured


MEASURES = ("multi", "attempts", "kappa", "pabak", "direction", "spearman", "pearson")


def pairs(outcomes: pd.DataFrame, *, draws: int, confidence: float = 0.95, seed: int = 0) -> list[Pair]:
    """Every pair of judges in rows of the view `outcomes`; a column `weight` says how many replies each row stands for."""
    judges = sorted(outcomes["judge"].unique())
    return [pair(outcomes, a, b, draws=draws, confidence=confidence, seed=seed) for a, b in itertools.combinations(judges, 2)]


def pair(outcomes: pd.DataFrame, judge: str, other: str, *, draws: int, confidence: float = 0.95, seed: int = 0) -> Pair:
    one, two = (outcomes[outcomes["judge"] == name].drop_duplicates(KEYS) for name in (judge, other))
    both = one.merge(two, on=KEYS, suffixes=("_a", "_b"))
    sums, latents = _terms(both), both["latent"].to_numpy()
    whole = _measures(sums.sum(axis=0, keepdims=True))
    drawn = _measures(_resampled(sums, latents, draws, seed))
    measured = {
        name: Measured(_number(whole[name][0]), bounds(drawn[name], confidence) if len(both) else None) for name in MEASURES
    }
    each = (both["multi_a"].astype(bool) & both["multi_b"].astype(bool)).sum() if len(both) else 0
    return Pair(judge, other, n=len(both), n_missing=len(one) + len(two) - 2 * len(both), n_multi=int(each), **measured)


def _terms(both: pd.DataFrame) -> Floats:
    """[rows, 16]: everything that the measures are ratios of, times the row's weight."""
    weight = both["weight_a"].to_numpy(dtype=float) if "weight_a" in both else np.ones(len(both))
    if len(both) and not (np.isfinite(weight).all() and (weight > 0).all()):
        raise DataError("a weight is the number of replies that a row stands for; it is above 0")
    a, b = (both[f"multi_{side}"].to_numpy(dtype=float) for side in "ab")
    same = (both["n_attempts_a"].to_numpy(dtype=int) == both["n_attempts_b"].to_numpy(dtype=int)).astype(float)
    up = (both["corrected_a"].to_numpy(dtype=bool) == both["corrected_b"].to_numpy(dtype=bool)).astype(float)
    x, y = (both[f"first_score_{side}"].to_numpy(dtype=float) for side in "ab")
    r, s = _ranks(x, weight), _ranks(y, weight)
    ones = np.ones(len(both))
    columns = [ones, a * b + (1 - a) * (1 - b), a, b, same, a * b, a * b * up, x, y, x * x, y * y, x * y, r, s, r * r, s * s, r * s]
    terms: Floats = np.stack(columns, axis=1) * weight[:, None]
    return terms


def _ranks(values: Floats, weight: Floats) -> Floats:
    """Weighted midranks, in units of the whole weight."""
    if not values.size:
        return values
    distinct, inverse = np.unique(values, return_inverse=True)
    mass = np.bincount(inverse, weights=weight, minlength=distinct.size)
    middle = np.cumsum(mass) - mass / 2
    return np.asarray(middle[inverse] / mass.sum(), dtype=float)


def _resampled(terms: Floats, latents: NDArray[np.generic], draws: int, seed: int) -> Floats:
    """[draws, terms]: sums over as many latents as there are, drawn with replacement."""
    distinct, inverse = np.unique(latents, return_inverse=True)
    if not distinct.size:
        return np.zeros((draws, terms.shape[1]))
    per_latent = np.zeros((distinct.size, terms.shape[1]))
    np.add.at(per_latent, inverse, terms)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(distinct.size, np.full(distinct.size, 1 / distinct.size), size=draws)
    return np.asarray(counts @ per_latent, dtype=float)


def _measures(sums: Floats) -> dict[str, Floats]:
    w, agree, a, b, same, each, up, x, y, xx, yy, xy, r, s, rr, ss, rs = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        multi, p, q = agree / w, a / w, b / w
        chance = p * q + (1 - p) * (1 - q)
        return {
            "multi": multi,
            "attempts": same / w,
            "kappa": np.where(chance < 1, (multi - chance) / (1 - chance), np.nan),
            "pabak": 2 * multi - 1,
            "direction": np.where(each > 0, up / each, np.nan),
            "spearman": _correlation(w, r, s, rr, ss, rs),
            "pearson": _correlation(w, x, y, xx, yy, xy),
        }


def _correlation(w: Floats, x: Floats, y: Floats, xx: Floats, yy: Floats, xy: Floats) -> Floats:
    """From weighted sums; NaN where one side does not vary."""
    vx, vy = xx / w - (x / w) ** 2, yy / w - (y / w) ** 2
    varies = (vx > 1e-12) & (vy > 1e-12)
    value: Floats = np.where(varies, (xy / w - x * y / w**2) / np.sqrt(np.where(varies, vx * vy, 1.0)), np.nan)
    return value.clip(-1.0, 1.0)


def _number(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of the replies that a judge's sample stands for."""

    model: str
    judge: str
    metric: str
    n: int
    value: float | None
    interval: Bounds | None


def rates(outcomes: pd.DataFrame, *, draws: int, confidence: float = 0.95, seed: int = 0) -> list[Rate]:
    """Multi-attempt, ESR and improvement rates by model and judge, weighted: what the whole would show, not the enriched sample."""
    found: list[Rate] = []
    for (model, judge), rows in outcomes.groupby(["model", "judge"]):
        weight = rows["weight"].to_numpy(dtype=float) if "weight" in rows else np.ones(len(rows))
        multi, corrected = (rows[name].to_numpy(dtype=float) for name in ("multi", "corrected"))
        terms = np.stack([np.ones(len(rows)), multi, corrected], axis=1) * weight[:, None]
        whole = terms.sum(axis=0, keepdims=True)
        drawn = _resampled(terms, rows["latent"].to_numpy(), draws, seed)
        for metric, (top, bottom) in {"multi_attempt_rate": (1, 0), "esr_rate": (2, 0), "improvement_rate": (2, 1)}.items():
            with np.errstate(divide="ignore", invalid="ignore"):
                value, spread = whole[0, top] / whole[0, bottom], drawn[:, top] / drawn[:, bottom]
            n = len(rows) if bottom == 0 else int(multi.sum())
            found.append(Rate(str(model), str(judge), metric, n, _number(value), bounds(spread, confidence)))
    return found


def enriched(outcomes: pd.DataFrame, *, size: int, per_model: int, seed: int) -> pd.DataFrame:
    """A sample for other judges: every multi-attempt reply, at least `per_model` replies of each model, then up to `size` at random.

    The rows of one judge come in; they go out with `weight`. Strata are (model, multi); within one, every reply is as likely as any.
    """
    rows = outcomes.drop_duplicates(KEYS).sort_values(["model", *KEYS]).reset_index(drop=True)
    strata: dict[tuple[str, bool], list[int]] = {}
    for i, (model, multi) in enumerate(zip(rows["model"], rows["multi"], strict=True)):
        strata.setdefault((str(model), bool(multi)), []).append(i)
    taken = _allocation({key: len(index) for key, index in strata.items()}, size, per_model)
    rng = random.Random(seed)
    chosen: list[int] = []
    weights: list[float] = []
    for key in sorted(strata):
        if taken[key]:
            chosen += rng.sample(strata[key], taken[key])
            weights += [len(strata[key]) / taken[key]] * taken[key]
    return rows.loc[chosen].assign(weight=weights).reset_index(drop=True)


def _allocation(sizes: dict[tuple[str, bool], int], size: int, per_model: int) -> dict[tuple[str, bool], int]:
    """How many of each stratum: restarts first, then each model's quota, then in proportion to what is left."""
    multi = {key: n for key, n in sizes.items() if key[1]}
    share = min(1.0, size / max(1, sum(multi.values())))
    taken = {key: (max(1, int(n * share)) if key[1] else 0) for key, n in sizes.items()}
    for model in sorted({key[0] for key in sizes}):
        key, has = (model, False), sum(n for other, n in taken.items() if other[0] == model)
        taken[key] = min(sizes.get(key, 0), max(0, per_model - has, 1))  # a stratum without a row could not be stood for
    left = {key: sizes.get(key, 0) - n for key, n in taken.items() if not key[1]}
    room = max(0, size - sum(taken.values()))
    fill = min(1.0, room / max(1, sum(left.values())))
    return {key: n + (int(left[key] * fill) if key in left else 0) for key, n in taken.items()}


def ranking(found: Sequence[Rate], metric: str = "esr_rate") -> dict[str, list[str]]:
    """Models by each judge's rate, highest first: whether all judges rank them alike."""
    judges = sorted({rate.judge for rate in found})
    return {
        judge: [
            rate.model
            for rate in sorted(
                (r for r in found if r.judge == judge and r.metric == metric and r.value is not None),
                key=lambda r: (-(r.value or 0.0), r.model),
            )
        ]
        for judge in judges
    }


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's τ-b of two judges' rates of the same models."""
    if len(a) < 2:
        return None
    value = stats.kendalltau(a, b).statistic
    return None if np.isnan(value) else float(value)
