"""Rates of one ratio over several trainings: intervals that latents, questions and the seeds of training share.

The same latents are steered on every checkpoint, so a latent's trials over all trainings are one cluster; what trainings differ by beyond
that is added, with as many degrees of freedom as there are trainings less one. With a single training nothing can be said of others, and
the method says so.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from esr.count.clusters import Clusters, Grouping, Spread
from esr.count.metrics import METRICS, PAIRING
from esr.count.ratios import LATENTS, Found, difference, estimate
from esr.count.statistics import Bounds

Floats = NDArray[np.float64]
TRAINING = "training"
"""The column that tells trainings apart."""


@dataclass(frozen=True, slots=True)
class Trainings(Clusters):
    """Latents and questions as ever, and trainings across them."""

    trainings: Grouping
    both: Grouping
    """A latent within a training."""

    @classmethod
    def across(cls, rows: pd.DataFrame) -> "Trainings":
        plain = Clusters.of(rows["latent"].to_numpy(), rows["question"].to_numpy())
        training = np.unique(rows[TRAINING].to_numpy(), return_inverse=True)[1].ravel()
        latent = np.unique(rows["latent"].to_numpy(), return_inverse=True)[1].ravel()
        count = int(training.max()) + 1 if len(training) else 1
        return cls(plain.latents, plain.questions, plain.cells, Grouping.of(training), Grouping.of(latent * count + training))

    def spread(self, residual: Floats, weight: Floats) -> Spread:
        plain, count = Clusters.spread(self, residual, weight), len(self.trainings)
        if count < 2:
            return plain
        whole, cells = self.trainings.sums(residual), self.both.sums(residual)
        more = np.maximum((whole * whole).sum(axis=-1) * count / (count - 1) - (cells * cells).sum(axis=-1), 0.0)
        variance = plain.variance + more
        bottom = plain.variance**2 / np.maximum(plain.df, 1.0) + more**2 / (count - 1)
        df = np.where(more > 0, variance**2 / np.maximum(bottom, 1e-300), plain.df)
        return plain._replace(variance=variance, df=np.maximum(df, 1.0))


@dataclass(frozen=True, slots=True)
class Pooled:
    """One metric over all trainings of a ratio, or what it is above the base."""

    metric: str
    value: float | None
    n: int
    """Trials that it rests on, or pairs."""
    latents: int
    trainings: int
    interval: Bounds | None
    method: str
    """How the interval came about; without one, why there is none."""


def rate(rows: pd.DataFrame, metric: str, *, confidence: float = 0.95) -> Pooled:
    """Of graded trials with a column `training`."""
    ratio = METRICS[metric]
    part = _part(rows, ratio.denominator)
    found = estimate(ratio, rows[ratio.numerator].to_numpy(dtype=float), part, Trainings.across(rows))
    return _told(metric, found, round(part.sum()), rows, confidence)


def above(rows: pd.DataFrame, base: pd.DataFrame, metric: str, *, confidence: float = 0.95) -> Pooled:
    """Rows minus the base's trial of the same latent, question and seed, which stands beside each training's."""
    ratio, keys = METRICS[metric], list(PAIRING)
    theirs = base.set_index(keys)
    mine = rows[rows.set_index(keys).index.isin(theirs.index)].reset_index(drop=True)
    beside = theirs.loc[pd.MultiIndex.from_frame(mine[keys])].reset_index()
    columns = [frame[ratio.numerator].to_numpy(dtype=float) for frame in (mine, beside)]
    parts = [_part(frame, ratio.denominator) for frame in (mine, beside)]
    found = difference(ratio, columns[0], columns[1], parts[0], parts[1], Trainings.across(mine))
    return _told(metric, found, len(mine), mine, confidence)


def _part(rows: pd.DataFrame, denominator: str) -> Floats:
    return rows["multi"].to_numpy(dtype=float) if denominator == "multi" else np.ones(len(rows))


def _told(metric: str, found: Found, n: int, rows: pd.DataFrame, confidence: float) -> Pooled:
    value = None if np.isnan(found.value) else float(found.value)
    latents, count = int(found.latents), int(rows[TRAINING].nunique())
    interval, method = None, f"only {latents} latents"
    if value is not None and latents >= LATENTS and not bool(found.alike):
        interval = Bounds(*(float(bound) for bound in found.interval(confidence)))
        over = f"{count} trainings" if count > 1 else "one training, which says nothing of others,"
        method = f"latents × questions resampled, and {over} beside: Wilson at n/deff, t"
    elif value is not None and latents >= LATENTS:
        method = "all trials alike"
    return Pooled(metric, value, n, latents, count, interval, method)
