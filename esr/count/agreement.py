"""Do judges agree? Pairs of judges on the replies both graded, with intervals, also from a sample enriched in restarts.

Restarts are rare, so a sample for other judges takes all of them and few others; each row then carries a weight, the number of
replies that it stands for, and every share here is a share of the replies stood for, not of the sample. Intervals are over latents
(and questions), a latent of one model being another than that of the same number in another model.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from esr.count import intervals
from esr.count.clusters import Clusters
from esr.count.intervals import Interval
from esr.count.ratios import LATENTS, counted, few
from esr.count.statistics import Bounds
from esr.errors import DataError

Floats = NDArray[np.float64]
KEYS = ["trial_id", "latent"]


@dataclass(frozen=True, slots=True)
class Measured:
    value: float | None
    interval: Bounds | None
    """Of what other latents of the same kind would show."""
    method: str
    """How the interval came about; empty without one."""
    no_interval: str
    """Why there is none; empty with one."""
    latents: int
    """Pairs of model and latent that the value rests on."""


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


def pairs(outcomes: pd.DataFrame, *, confidence: float = 0.95) -> list[Pair]:
    """Every pair of judges in rows of the view `outcomes`; a column `weight` says how many replies each row stands for."""
    judges = sorted(outcomes["judge"].unique())
    return [pair(outcomes, a, b, confidence=confidence) for a, b in itertools.combinations(judges, 2)]


def pair(outcomes: pd.DataFrame, judge: str, other: str, *, confidence: float = 0.95) -> Pair:
    one, two = (outcomes[outcomes["judge"] == name].drop_duplicates(KEYS) for name in (judge, other))
    beside = [name for name in ("model", "question", "weight") if name in one]
    both = one.merge(two.drop(columns=beside), on=KEYS, suffixes=("_a", "_b"))
    measured = measures(both, confidence)
    each = (both["multi_a"].astype(bool) & both["multi_b"].astype(bool)).sum() if len(both) else 0
    return Pair(judge, other, n=len(both), n_missing=len(one) + len(two) - 2 * len(both), n_multi=int(each), **measured)


def _clusters(rows: pd.DataFrame) -> Clusters:
    """A latent is one of its model."""
    latent = rows.groupby(["model", "latent"] if "model" in rows else ["latent"], observed=True).ngroup().to_numpy()
    return Clusters.of(latent, rows["question"].to_numpy() if "question" in rows else None)


def _weights(rows: pd.DataFrame) -> Floats:
    weight = rows["weight"].to_numpy(dtype=float) if "weight" in rows else np.ones(len(rows))
    if len(rows) and not (np.isfinite(weight).all() and (weight > 0).all()):
        raise DataError("a weight is the number of replies that a row stands for; it is above 0")
    return weight


def measures(both: pd.DataFrame, confidence: float) -> dict[str, Measured]:
    """Of replies with both judges' view of each, `…_a` and `…_b`."""
    weight, clusters = _weights(both), _clusters(both)
    a, b = (both[f"multi_{side}"].to_numpy(dtype=float) for side in "ab")
    counts = (both["n_attempts_a"].to_numpy(dtype=int) == both["n_attempts_b"].to_numpy(dtype=int)).astype(float)
    moved = [both[f"corrected_{side}"].astype(float).to_numpy(dtype=float) for side in "ab"]
    up = (moved[0] == moved[1]).astype(float)
    x, y = (both[f"first_score_{side}"].to_numpy(dtype=float) for side in "ab")
    scored = not (np.isnan(x) | np.isnan(y)).any()  # a judge that counts restarts alone gives neither scores nor directions
    unscored = Measured(None, None, "", "one of them gives no scores", 0)
    multi = _share((a == b).astype(float), weight, clusters, confidence)
    return {
        "multi": multi,
        "attempts": _share(counts, weight, clusters, confidence),
        "kappa": _kappa(a, b, weight, clusters, confidence),
        "pabak": _doubled(multi),
        "direction": _share(up, weight * a * b, clusters, confidence) if scored else unscored,
        "spearman": _correlation(x, y, weight, clusters, confidence, ranked=True) if scored else unscored,
        "pearson": _correlation(x, y, weight, clusters, confidence, ranked=False) if scored else unscored,
    }


def _told(value: float, bounds: Interval | None, latents: int, clusters: Clusters, rule: str, alike: str = "") -> Measured:
    """With an interval, or with the reason why there is none."""
    if np.isnan(value):
        return Measured(None, None, "", "nothing to compare", latents)
    if latents < LATENTS or alike or bounds is None:
        return Measured(float(value), None, "", few(latents) if latents < LATENTS else alike, latents)
    resampled = "latents × questions resampled" if clusters.questions is not None else "latents resampled"
    return Measured(float(value), Bounds(float(bounds.low), float(bounds.high)), f"{resampled}: {rule}", "", latents)


def _share(x: Floats, weight: Floats, clusters: Clusters, confidence: float) -> Measured:
    of = counted(x, weight, clusters)
    n = intervals.effective(of.spread, of.crowd)
    t = intervals.quantile(intervals.known(of.spread.df, of.spread.n / n), confidence)
    bounds = intervals.score(of.known, n, t)
    return _told(float(of.value), bounds, int(of.spread.latents), clusters, "Wilson at n/deff, t")


def _doubled(multi: Measured) -> Measured:
    bounds = Bounds(2 * multi.interval.low - 1, 2 * multi.interval.high - 1) if multi.interval else None
    value = None if multi.value is None else 2 * multi.value - 1
    return Measured(value, bounds, multi.method, multi.no_interval, multi.latents)


def _kappa(a: Floats, b: Floats, weight: Floats, clusters: Clusters, confidence: float) -> Measured:
    """1 − κ is disagreement over the disagreement that chance makes: Wilson's interval of the first, as wide as both make it."""
    differ = counted((a != b).astype(float), weight, clusters)
    one, two = counted(a, weight, clusters), counted(b, weight, clusters)
    p, q = one.known, two.known
    chance = p * (1 - q) + q * (1 - p)
    if not len(a) or chance <= 0:
        return _told(np.nan, None, int(differ.spread.latents), clusters, "")
    ratio = differ.known / chance
    residual = differ.residual - ratio * ((1 - 2 * q) * one.residual + (1 - 2 * p) * two.residual)
    spread = clusters.spread(residual, differ.weight)._replace(alone=differ.spread.alone)
    t = intervals.quantile(spread.df, confidence)
    found = intervals.score(differ.known, intervals.effective(spread, differ.crowd), t)
    bounds = Interval(np.maximum(1 - found.high / chance, -1.0), 1 - found.low / chance)
    return _told(float(1 - ratio), bounds, int(spread.latents), clusters, "Wilson of disagreement, t")


def _correlation(x: Floats, y: Floats, weight: Floats, clusters: Clusters, confidence: float, *, ranked: bool) -> Measured:
    """Linearised, on Fisher's scale; where one side does not vary there is none."""
    share = weight / weight.sum() if len(weight) else weight
    r, s = (_ranks(v, share) for v in (x, y)) if ranked else (x, y)
    u, v = r - (share * r).sum(), s - (share * s).sum()
    vx, vy = (share * u * u).sum(), (share * v * v).sum()
    latents = int((clusters.latents.sums(share) > 0).sum())
    if vx <= 1e-12 or vy <= 1e-12:
        return _told(np.nan, None, latents, clusters, "")
    covariance = (share * u * v).sum()
    value = float(np.clip(covariance / np.sqrt(vx * vy), -1.0, 1.0))
    moved, moved_x, moved_y = u * v - covariance, u * u - vx, v * v - vy
    if ranked:  # a reply also moves the ranks of all others
        moved = moved + _moves(x, r, share, v) + _moves(y, s, share, u)
        moved_x, moved_y = moved_x + 2 * _moves(x, r, share, u), moved_y + 2 * _moves(y, s, share, v)
    residual = share * (moved / np.sqrt(vx * vy) - value / 2 * (moved_x / vx + moved_y / vy))
    if abs(value) > 1 - 1e-12:
        return _told(value, None, latents, clusters, "", "all replies on one line")
    spread = clusters.spread(residual, share)
    t = intervals.quantile(spread.df, confidence)
    few = (spread.units / np.maximum(spread.units - 1, 0.5)) ** 2  # the moments beneath a correlation come from the same latents
    center, half = np.arctanh(value), t * np.sqrt(few * spread.variance) / (1 - value * value)
    return _told(value, Interval(np.tanh(center - half), np.tanh(center + half)), latents, clusters, "Fisher's z, t")


def _ranks(values: Floats, share: Floats) -> Floats:
    """Weighted midranks, in units of the whole weight."""
    if not values.size:
        return values
    distinct, inverse = np.unique(values, return_inverse=True)
    mass = np.bincount(inverse, weights=share, minlength=distinct.size)
    middle = np.cumsum(mass) - mass / 2
    return np.asarray(middle[inverse] / mass.sum(), dtype=float)


def _moves(values: Floats, ranks: Floats, share: Floats, other: Floats) -> Floats:
    """By how much more weight on each row moves Σ rank · other, through the ranks of all rows."""
    distinct, inverse = np.unique(values, return_inverse=True)
    mass = np.bincount(inverse, weights=share * other, minlength=distinct.size)
    above = mass.sum() - np.cumsum(mass)
    return np.asarray((above + mass / 2)[inverse] - (share * other * ranks).sum(), dtype=float)


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of the replies that a judge's sample stands for."""

    model: str
    judge: str
    metric: str
    n: int
    share: Measured

    @property
    def value(self) -> float | None:
        return self.share.value

    @property
    def interval(self) -> Bounds | None:
        return self.share.interval


def rates(outcomes: pd.DataFrame, *, confidence: float = 0.95) -> list[Rate]:
    """Multi-attempt, ESR and improvement rates by model and judge, weighted: what the whole would show, not the enriched sample."""
    found: list[Rate] = []
    for (model, judge), rows in outcomes.groupby(["model", "judge"]):
        weight, clusters = _weights(rows), _clusters(rows)
        multi, corrected = (rows[name].to_numpy(dtype=float) for name in ("multi", "corrected"))
        for metric, x, of in (
            ("multi_attempt_rate", multi, weight),
            ("esr_rate", corrected, weight),
            ("improvement_rate", corrected, weight * multi),
        ):
            n = len(rows) if metric != "improvement_rate" else int(multi.sum())
            found.append(Rate(str(model), str(judge), metric, n, _share(x, of, clusters, confidence)))
    return found


def enriched(outcomes: pd.DataFrame, *, size: int, per_model: int, seed: int) -> pd.DataFrame:
    """A sample for other judges: every multi-attempt reply, at least `per_model` replies of each model, then at random; `size` in all at most.

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
    per_model = min(per_model, size // max(1, len({model for model, _ in sizes})))
    multi = {key: n for key, n in sizes.items() if key[1]}
    share = min(1.0, size / max(1, sum(multi.values())))
    taken = {key: (max(1, int(n * share)) if key[1] else 0) for key, n in sizes.items()}
    for model in sorted({key[0] for key in sizes}):
        key, has = (model, False), sum(n for other, n in taken.items() if other[0] == model)
        taken[key] = min(sizes.get(key, 0), max(0, per_model - has, 1))  # a stratum without a row could not be stood for
    left = {key: sizes.get(key, 0) - n for key, n in taken.items() if not key[1]}
    room = max(0, size - sum(taken.values()))
    fill = min(1.0, room / max(1, sum(left.values())))
    found = {key: n + (int(left[key] * fill) if key in left else 0) for key, n in taken.items()}
    while sum(found.values()) > size:
        found[max(found, key=lambda key: (found[key], key))] -= 1  # of a sample that is smaller than one of each
    return found


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
