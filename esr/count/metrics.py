"""Counting: rates and means with their intervals, paired differences, effect sizes, agreement of judges.

Works on rows of the store's view `outcomes`, which defines `multi`, `corrected`, `degraded` and `gain` (PROTOCOL §1), and never
opens the store. Every metric is a ratio of two sums over trials. Trials of one latent are not independent, nor, where questions
differ, are those of one question: an interval says what other latents (and questions) of the same kind would show. None: the
denominator is 0, or an interval has no meaning.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from esr.count.clusters import Clusters
from esr.count.ratios import HOLDERS, LATENTS, Found, Ratio, difference, estimate, few
from esr.count.statistics import Bounds, wilson
from esr.errors import DataError

Floats = NDArray[np.float64]
KEYS = ("experiment", "model", "arm", "judge", "scale")
"""What makes rows comparable; different scales and judges are never pooled."""
PAIRING = ("latent", "question", "seed")
"""What a replay keeps."""


METRICS = {
    "first_score_mean": Ratio("first_score", "valid", "bounded", 0, 100),
    "multi_attempt_rate": Ratio("multi", "valid", "share"),
    "esr_rate": Ratio("corrected", "valid", "share"),
    "improvement_rate": Ratio("corrected", "multi", "share"),
    "gain_all_mean": Ratio("gain", "valid", "rare", 0),
    "gain_multi_mean": Ratio("gain", "multi", "skewed", -100, 100),
    "degraded_rate": Ratio("degraded", "known", "share"),
    "attempts_mean": Ratio("n_attempts", "valid", "count", 1),
}
"""gain_all_mean and gain_multi_mean are the two things called MSI: over all trials, a single attempt counting 0, and over
multi-attempt trials only."""
NAMES = tuple(METRICS)


@dataclass(frozen=True, slots=True)
class Estimate:
    """One metric of one arm."""

    metric: str
    value: float | None
    n: int
    """Denominator: trials the value rests on."""
    k: int | None
    """Numerator of a proportion."""
    interval: Bounds | None
    """Of what other latents of the same kind would show."""
    method: str
    """How the interval came about, what is resampled first; empty without one."""
    no_interval: str
    """Why there is no interval; empty with one."""
    latents: int
    """Latents with a denominator."""
    n_effective: float | None
    """Independent trials that would tell as much; None without an interval."""
    within_latents: Bounds | None
    """Of a proportion: these latents, new seeds, as if trials were independent. Narrower, and not about other latents."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of one arm minus the same of another, over trials that both have."""

    metric: str
    value: float | None
    n: int
    """Pairs."""
    interval: Bounds | None
    method: str
    no_interval: str
    latents: int
    """Latents with a denominator: those of the arm that has fewer."""
    n_effective: float | None
    """Independent pairs that would tell as much; None without an interval."""
    p: float | None
    """Two-sided, of no difference: 1 − the confidence at which the interval would just touch 0. None without an interval."""
    d_paired: float | None
    """Cohen's d of the differences: mean / sd, ddof 1. For metrics over all trials."""


def outcomes_frame(rows: pd.DataFrame, *, exclude_degraded: bool = False) -> pd.DataFrame:
    """The rows with numbers where numbers are needed; with `exclude_degraded`, without degraded replies.

    `degraded` may be unknown, of imported trials without their text: such a trial is in no count of degraded replies.
    """
    lacking = [c for c in ("latent", *(m.numerator for m in METRICS.values())) if c not in rows.columns]
    if lacking:
        raise DataError(f"outcomes lack the columns {lacking}; they have {list(rows.columns)}")
    frame = rows.copy()
    if exclude_degraded:
        frame = frame[frame["degraded"].astype(float) != 1]
    for column in {m.numerator for m in METRICS.values()}:
        frame[column] = frame[column].astype(float)
    if frame[[m.numerator for m in METRICS.values() if m.denominator != "known"]].isna().to_numpy().any():
        raise DataError("outcomes hold graded trials only, and a row without a number was found among them")
    return frame


def estimates(rows: pd.DataFrame, *, confidence: float = 0.95) -> dict[str, Estimate]:
    """Every metric of one arm's outcomes."""
    _one_arm(rows)
    frame = outcomes_frame(rows)
    total = _sums(frame).sum(axis=0)
    values, clusters, parts = _ratios(total), _clusters(frame), _denominators(frame)
    out = {}
    for i, (name, metric) in enumerate(METRICS.items()):
        numerator, n = total[2 * i], round(total[2 * i + 1])
        x = frame[metric.numerator].fillna(0.0).to_numpy(dtype=float)
        told = _told(estimate(metric, x, parts[metric.denominator], clusters), metric, clusters, confidence, paired=False)
        out[name] = Estimate(
            metric=name,
            value=_number(values[i]),
            n=n,
            k=round(numerator) if metric.proportion else None,
            interval=told.interval,
            method=told.method,
            no_interval=told.no_interval,
            latents=told.latents,
            n_effective=told.n_effective,
            within_latents=wilson(round(numerator), n, confidence) if metric.proportion else None,
        )
    return out


def by_arm(rows: pd.DataFrame, *, confidence: float = 0.95) -> dict[tuple[str, ...], dict[str, Estimate]]:
    """Estimates of each (experiment, model, arm, judge, scale) in the rows."""
    groups = rows.groupby(list(KEYS), sort=True, observed=True)
    return {tuple(str(part) for part in key): estimates(group, confidence=confidence) for key, group in groups}


def differences(rows: pd.DataFrame, baseline: pd.DataFrame, *, confidence: float = 0.95) -> dict[str, Difference]:
    """Every metric of `rows` minus `baseline`, over the (latent, question, seed) that both have."""
    _one_arm(rows)
    _one_arm(baseline)
    a, b = paired(outcomes_frame(rows), outcomes_frame(baseline))
    values = _ratios(_sums(a).sum(axis=0)) - _ratios(_sums(b).sum(axis=0))
    clusters, of_a, of_b = _clusters(a), _denominators(a), _denominators(b)
    out = {}
    for i, (name, metric) in enumerate(METRICS.items()):
        every, part = metric.denominator == "valid", metric.denominator
        x, y = (frame[metric.numerator].fillna(0.0).to_numpy(dtype=float) for frame in (a, b))
        found = difference(metric, x, y, of_a[part], of_b[part], clusters)
        told = _told(found, metric, clusters, confidence, paired=True)
        out[name] = Difference(
            metric=name,
            value=_number(values[i]),
            n=len(a),
            interval=told.interval,
            method=told.method,
            no_interval=told.no_interval,
            latents=told.latents,
            n_effective=told.n_effective,
            p=float(found.p()) if told.interval else None,
            d_paired=cohen_d_paired(x, y) if every else None,
        )
    return out


@dataclass(frozen=True, slots=True)
class _Told:
    """An interval in words and numbers."""

    interval: Bounds | None
    method: str
    no_interval: str
    latents: int
    n_effective: float | None


def _told(found: Found, metric: Ratio, clusters: Clusters, confidence: float, *, paired: bool) -> _Told:
    latents, holders = int(found.latents), int(found.holders)
    if np.isnan(found.value):
        return _Told(None, "", "no pairs" if paired and not latents else "no trials to rest on", latents, None)
    if latents < LATENTS:
        some = " with a second attempt" if metric.denominator == "multi" else ""
        return _Told(None, "", few(latents) + some, latents, None)
    if found.alike:
        return _Told(None, "", "all pairs alike" if paired else "all trials alike", latents, None)
    if holders < HOLDERS:
        showing = "whose pairs differ" if paired else "with a second attempt"
        return _Told(None, "", f"{few(holders)} {showing}", latents, None)
    low, high = (float(bound) for bound in found.interval(confidence))
    rule = {
        "share": "Wilson at n/deff, t",
        "bounded": "Wilson on the scale, t",
        "skewed": "t, skewness",
        "rare": "Wilson of what is rare, t",
        "count": "Wilson of what is rare, t",
    }[metric.kind]
    if paired:
        several = "Wilson of both arms, t" if metric.denominator == "multi" else "Wilson of won and lost, t"
        rule = "t" if metric.kind in ("bounded", "skewed") else several
    resampled = "latents × questions resampled" if clusters.questions is not None else "latents resampled"
    return _Told(Bounds(low, high), f"{resampled}: {rule}", "", latents, float(found.n_effective))


def paired(rows: pd.DataFrame, baseline: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trials that both have, in the same order."""
    keys = list(PAIRING)
    for frame in (rows, baseline):
        if frame.duplicated(keys).any():
            raise DataError(f"an arm holds one trial per {PAIRING} and this one holds several; compare arm with arm")
    a, b = rows.set_index(keys).sort_index(), baseline.set_index(keys).sort_index()
    both = a.index.intersection(b.index, sort=True)
    return a.loc[both].reset_index(), b.loc[both].reset_index()


def _one_arm(rows: pd.DataFrame) -> None:
    """Numbers of different arms, judges or scales are never pooled by accident."""
    for key in KEYS:
        if key in rows.columns and rows[key].nunique() > 1:
            raise DataError(f"outcomes of several values of {key!r} were given as one arm: {sorted(rows[key].unique())[:5]}")


def _clusters(frame: pd.DataFrame) -> Clusters:
    return Clusters.of(frame["latent"].to_numpy(), frame["question"].to_numpy() if "question" in frame else None)


def _denominators(frame: pd.DataFrame) -> dict[str, Floats]:
    known = frame["degraded"].notna().to_numpy(dtype=float)
    return {"valid": np.ones(len(frame)), "multi": frame["multi"].to_numpy(dtype=float), "known": known}


def _sums(frame: pd.DataFrame) -> Floats:
    """[latents, 2 × metrics]: each latent's numerator and denominator of every metric."""
    parts = _denominators(frame)
    columns = []
    for metric in METRICS.values():
        part = parts[metric.denominator]
        columns += [frame[metric.numerator].fillna(0.0).to_numpy(dtype=float) * part, part]
    _, cluster = np.unique(frame["latent"].to_numpy(), return_inverse=True)
    out = np.zeros((int(cluster.max()) + 1 if len(frame) else 0, len(columns)))
    np.add.at(out, cluster, np.stack(columns, axis=1))
    return out


def _ratios(sums: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        out: Floats = sums[..., 0::2] / sums[..., 1::2]
    return out


def _number(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)


def cohen_d_paired(x: ArrayLike, y: ArrayLike) -> float | None:
    """Mean of x − y over its own standard deviation (ddof 1)."""
    d = np.asarray(x, dtype=float) - np.asarray(y, dtype=float)
    sd = float(d.std(ddof=1)) if d.size > 1 else 0.0
    return float(d.mean()) / sd if sd > 0 else None


def cohen_d_unpaired(x: ArrayLike, y: ArrayLike) -> float | None:
    """Difference of means over the pooled standard deviation (ddof 1)."""
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if a.size + b.size < 3 or not a.size or not b.size:
        return None
    squares = ((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()
    sd = float(np.sqrt(squares / (a.size + b.size - 2)))
    return float(a.mean() - b.mean()) / sd if sd > 0 else None


def cliffs_delta(x: ArrayLike, y: ArrayLike) -> float | None:
    """P(x > y) − P(x < y) over all pairs, in [−1, 1]."""
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if not a.size or not b.size:
        return None
    ordered = np.sort(b)
    greater, less = np.searchsorted(ordered, a, "left").sum(), (b.size - np.searchsorted(ordered, a, "right")).sum()
    return float(greater - less) / (a.size * b.size)


def kappa(a: Sequence[object] | NDArray[np.generic], b: Sequence[object] | NDArray[np.generic]) -> float | None:
    """Cohen's κ = (p_o − p_e) / (1 − p_e); None without pairs, or when chance alone makes them agree fully."""
    x, y = np.asarray(a), np.asarray(b)
    if not x.size:
        return None
    categories = np.unique(np.concatenate([x, y]))
    observed = float((x == y).mean())
    chance = float(sum((x == c).mean() * (y == c).mean() for c in categories))
    return (observed - chance) / (1 - chance) if chance < 1 else None


def pabak(
    a: Sequence[object] | NDArray[np.generic], b: Sequence[object] | NDArray[np.generic], categories: int = 2
) -> float | None:
    """(c · p_o − 1) / (c − 1) for c categories."""
    x, y = np.asarray(a), np.asarray(b)
    return (categories * float((x == y).mean()) - 1) / (categories - 1) if x.size else None
