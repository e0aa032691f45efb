"""Counting: rates and means with their intervals, paired differences, effect sizes, agreement of judges.

Works on rows of the store's view `outcomes`, which defines `multi`, `corrected`, `degraded` and `gain` (PROTOCOL §1), and never
opens the store. Every metric is a ratio of two sums over trials, so one resampling of latents serves all of them. Trials of one
latent are not independent: the bootstrap draws latents, not trials. None: the denominator is 0, or an interval has no meaning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from esr.count.statistics import Bounds, McNemar, bounds, mcnemar, wilson
from esr.errors import DataError

Floats = NDArray[np.float64]
KEYS = ("experiment", "model", "arm", "judge", "scale")
"""What makes rows comparable; different scales and judges are never pooled."""
PAIRING = ("latent", "question", "seed")
"""What a replay keeps."""


class Ratio(NamedTuple):
    """Σ numerator / Σ denominator over trials."""

    numerator: str
    """Column of `outcomes`."""
    denominator: str
    """`valid` (every graded trial), `multi` (those with two or more attempts) or `known` (those whose text is at hand)."""
    proportion: bool
    """A share of trials, which takes a Wilson interval; else a mean."""


METRICS = {
    "first_score_mean": Ratio("first_score", "valid", False),
    "multi_attempt_rate": Ratio("multi", "valid", True),
    "esr_rate": Ratio("corrected", "valid", True),
    "improvement_rate": Ratio("corrected", "multi", True),
    "gain_all_mean": Ratio("gain", "valid", False),
    "gain_multi_mean": Ratio("gain", "multi", False),
    "degraded_rate": Ratio("degraded", "known", True),
    "attempts_mean": Ratio("n_attempts", "valid", False),
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
    wilson: Bounds | None
    """Of a proportion, as if trials were independent."""
    bootstrap: Bounds | None
    """Percentiles over resampled latents."""
    clusters: int
    """Latents that were resampled."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of one arm minus the same of another, over trials that both have."""

    metric: str
    value: float | None
    bootstrap: Bounds | None
    """Percentiles over resampled latents, both arms of a latent drawn together."""
    n: int
    """Pairs."""
    clusters: int
    mcnemar: McNemar | None
    """Of the yes/no metrics over all trials, multi_attempt_rate and esr_rate; else None."""
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


def estimates(rows: pd.DataFrame, *, draws: int, confidence: float = 0.95, seed: int = 0) -> dict[str, Estimate]:
    """Every metric of one arm's outcomes."""
    _one_arm(rows)
    frame = outcomes_frame(rows)
    sums = _sums(frame)
    total = sums.sum(axis=0)
    values, drawn = _ratios(total), _ratios(_resampled(sums, draws, seed))
    out = {}
    for i, (name, metric) in enumerate(METRICS.items()):
        numerator, n = total[2 * i], round(total[2 * i + 1])
        out[name] = Estimate(
            metric=name,
            value=_number(values[i]),
            n=n,
            k=round(numerator) if metric.proportion else None,
            wilson=wilson(round(numerator), n, confidence) if metric.proportion else None,
            bootstrap=bounds(drawn[:, i], confidence) if len(sums) > 1 and n else None,
            clusters=len(sums),
        )
    return out


def by_arm(
    rows: pd.DataFrame, *, draws: int, confidence: float = 0.95, seed: int = 0
) -> dict[tuple[str, ...], dict[str, Estimate]]:
    """Estimates of each (experiment, model, arm, judge, scale) in the rows."""
    groups = rows.groupby(list(KEYS), sort=True, observed=True)
    return {
        tuple(str(part) for part in key): estimates(group, draws=draws, confidence=confidence, seed=seed)
        for key, group in groups
    }  # fmt: skip


def differences(
    rows: pd.DataFrame, baseline: pd.DataFrame, *, draws: int, confidence: float = 0.95, seed: int = 0
) -> dict[str, Difference]:
    """Every metric of `rows` minus `baseline`, over the (latent, question, seed) that both have."""
    _one_arm(rows)
    _one_arm(baseline)
    a, b = paired(outcomes_frame(rows), outcomes_frame(baseline))
    sums_a, sums_b = _sums(a), _sums(b)
    drawn_a, drawn_b = (_ratios(_resampled(sums, draws, seed)) for sums in (sums_a, sums_b))  # same seed: same latents
    values = _ratios(sums_a.sum(axis=0)) - _ratios(sums_b.sum(axis=0))
    out = {}
    for i, (name, metric) in enumerate(METRICS.items()):
        every = metric.denominator == "valid"
        x, y = a[metric.numerator].to_numpy(), b[metric.numerator].to_numpy()
        out[name] = Difference(
            metric=name,
            value=_number(values[i]),
            bootstrap=bounds(drawn_a[:, i] - drawn_b[:, i], confidence) if len(sums_a) > 1 else None,
            n=len(a),
            clusters=len(sums_a),
            mcnemar=mcnemar(x > 0, y > 0) if every and metric.proportion else None,
            d_paired=cohen_d_paired(x, y) if every else None,
        )
    return out


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


def _sums(frame: pd.DataFrame) -> Floats:
    """[latents, 2 × metrics]: each latent's numerator and denominator of every metric."""
    multi = frame["multi"].to_numpy(dtype=float)
    known = frame["degraded"].notna().to_numpy(dtype=float)
    parts = {"valid": np.ones(len(frame)), "multi": multi, "known": known}
    columns = []
    for metric in METRICS.values():
        part = parts[metric.denominator]
        columns += [frame[metric.numerator].fillna(0.0).to_numpy(dtype=float) * part, part]
    _, cluster = np.unique(frame["latent"].to_numpy(), return_inverse=True)
    out = np.zeros((int(cluster.max()) + 1 if len(frame) else 0, len(columns)))
    np.add.at(out, cluster, np.stack(columns, axis=1))
    return out


def _resampled(sums: Floats, draws: int, seed: int) -> Floats:
    """[draws, 2 × metrics]: sums over as many latents as there are, drawn with replacement."""
    if not len(sums):
        return np.zeros((draws, sums.shape[1]))
    counts = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=draws)
    out: Floats = counts @ sums
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
