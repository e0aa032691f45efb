"""Rates corrected by people's labels of a stratified sheet: a judge that errs, and a few replies of which the truth is known.

Every trial of the arm lies in a stratum (what the judge said of it, and whether the restart detector saw one), and of each stratum
some trials have a label. The corrected rate is that of the labels in each stratum, weighted by how many trials lie in it; no
judge's error rates stand in a denominator, so it is stable however rare restarts are. Each trial has an influence on it, its
stratum's rate, and where it was labelled its own distance from that times the trials that it stands for; these are summed within
latents and questions like those of any other rate, so that an interval holds the sheet's chance and the latents' together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from esr.count import intervals
from esr.count.clusters import Clusters, Spread
from esr.count.ratios import LATENTS, counted, few
from esr.count.statistics import Bounds
from esr.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
LABELS = {"single": (0.0, 0.0), "multi": (1.0, 0.0), "corrected": (1.0, 1.0)}
"""What a person may say of a reply, as `multi` and `corrected`: one attempt; a second one that is no better; a second one that is."""
METRICS = {"multi_attempt_rate": 0, "esr_rate": 1}
"""The rates that labels speak of, by their place in LABELS."""
PRIOR = 0.07
"""Labels' worth of belief, each way, that a stratum whose labels are all alike holds others: it widens intervals and moves no rate."""
DOUBT = {True: 0.5, False: 0.12}
"""What one label is expected to scatter where judge and detector differ, and where they say the same."""
LEAST = 12
"""Each stratum gets this part of an arm's labels, or all that it has."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its interval, or with the reason why there is none."""

    value: float | None
    interval: Bounds | None
    no_interval: str
    n: int
    """Labels that it rests on."""


@dataclass(frozen=True, slots=True)
class Audited:
    """A rate of one arm, corrected by labels, beside the judge's own."""

    metric: str
    judge: float
    """What the judge's verdicts say, over the same trials."""
    labelled: int
    trials: int
    post_stratified: Share
    ppi: Share
    """By PPI++, which knows of the judge's verdict and of the labels' weights alone."""
    labels_alone: Share
    """By the labels and their weights, as if there were no judge."""
    sensitivity: Share
    """Of replies that people say yes of, the share that the judge does."""
    specificity: Share
    """Of replies that people say no of, the share that the judge does."""


def audited(frame: pd.DataFrame, *, confidence: float = 0.95) -> dict[str, Audited]:
    """Of one arm: a row a trial, with `latent`, `question`, `stratum`, the judge's `multi` and `corrected`, and `label` (None where nobody has said)."""
    label = frame["label"].to_numpy(dtype=object)
    given = np.array([one in LABELS for one in label])
    code = np.unique(frame["stratum"].to_numpy(dtype=str), return_inverse=True)[1].ravel()
    clusters = Clusters.of(frame["latent"].to_numpy(), frame["question"].to_numpy() if "question" in frame else None)
    out = {}
    for metric, place in METRICS.items():
        truth = np.array([LABELS[one][place] if one in LABELS else 0.0 for one in label])
        said = frame["corrected" if place else "multi"].to_numpy(dtype=float)
        out[metric] = _audited(metric, truth, said, given, code, clusters, confidence)
    return out


def _audited(
    metric: str, truth: Floats, said: Floats, given: NDArray[np.bool_], code: Ints, clusters: Clusters, confidence: float
) -> Audited:
    sizes, labelled = np.bincount(code), np.bincount(code, weights=given)
    lacking = int(((sizes > 0) & (labelled == 0)).sum())
    judge, seen = float(said.mean()), int(given.sum())
    if lacking:
        none = Share(None, None, f"{lacking} {'stratum has' if lacking == 1 else 'strata have'} no label", 0)
        return Audited(metric, judge, seen, len(code), none, none, none, none, none)
    weight = np.where(given, (sizes / labelled)[code], 0.0)
    return Audited(
        metric=metric,
        judge=judge,
        labelled=seen,
        trials=len(code),
        post_stratified=post_stratified(truth, given, code, clusters, confidence),
        ppi=_tuned(truth, said, weight, clusters, confidence),
        labels_alone=_tuned(truth, np.zeros_like(said), weight, clusters, confidence),
        sensitivity=_share(said, weight * truth, clusters, confidence, int((given & (truth > 0)).sum())),
        specificity=_share(1 - said, weight * (1 - truth), clusters, confidence, int((given & (truth == 0)).sum())),
    )


def post_stratified(truth: Floats, given: NDArray[np.bool_], code: Ints, clusters: Clusters, confidence: float) -> Share:
    """The labels' rate of each stratum, weighted by the trials in it."""
    sizes, n = np.bincount(code).astype(float), np.bincount(code, weights=given)
    k = np.bincount(code, weights=truth * given)
    share, rate = sizes / len(code), k / n
    value = float((share * rate).sum())
    few = np.sqrt(n / np.maximum(n - 1, 0.5))  # labels scatter about a mean of their own
    residual = rate[code] - value + np.where(given, (sizes / n * few)[code] * (truth - rate[code]), 0.0)
    smooth = (k + PRIOR) / (n + 2 * PRIOR)
    unseen = np.where((k == 0) | (k == n), smooth * (1 - smooth) / n, 0.0)
    return _told(
        value, float((share * smooth).sum()), residual, float((share**2 * unseen).sum()), clusters, confidence, int(n.sum())
    )


def _tuned(truth: Floats, said: Floats, weight: Floats, clusters: Clusters, confidence: float) -> Share:
    """PPI++: λ · mean said + mean weighted (truth − λ · said), with the λ that varies least; without a judge, λ is nothing."""
    seen, moved = weight * truth, said * (1 - weight)
    spread = float(((moved - moved.mean()) ** 2).sum())
    best = -float(((seen - seen.mean()) * (moved - moved.mean())).sum()) / spread if spread > 0 else 0.0
    each = seen + float(np.clip(best, 0.0, 1.0)) * moved
    value = float(each.mean())
    return _told(value, value, each - value, 0.0, clusters, confidence, int((weight > 0).sum()))


def _told(value: float, sizing: float, residual: Floats, more: float, clusters: Clusters, confidence: float, labels: int) -> Share:
    """Wilson's interval at the sample size that makes the variance of residuals and `more`."""
    equal = np.full(residual.shape, 1.0 / len(residual))
    spread: Spread = clusters.spread(residual * equal, equal)
    latents = int(spread.latents)
    if latents < LATENTS:
        return Share(value, None, few(latents), labels)
    variance = float(spread.variance) + more
    if variance <= 0 or not 0 < sizing < 1:
        return Share(value, None, "all labels alike", labels)
    n = np.asarray(sizing * (1 - sizing) / variance)
    t = intervals.quantile(spread.df, confidence)
    low, high = intervals.score(np.asarray(min(max(value, 0.0), 1.0)), n, t)
    return Share(value, Bounds(float(low), float(high)), "", labels)


def _share(x: Floats, denominator: Floats, clusters: Clusters, confidence: float, labels: int) -> Share:
    of = counted(x, denominator, clusters)
    if np.isnan(of.value):
        return Share(None, None, "no label to rest on", labels)
    latents = int(of.spread.latents)
    if latents < LATENTS:
        return Share(float(of.value), None, few(latents), labels)
    t = intervals.quantile(of.spread.df, confidence)
    low, high = intervals.score(of.known, intervals.effective(of.spread, of.crowd), t)
    return Share(float(of.value), Bounds(float(low), float(high)), "", labels)


def stratum(multi: bool, corrected: bool, restart: bool) -> str:
    """`corrected+restart`, `single`: what the judge says, and whether the restart detector sees one."""
    said = "corrected" if corrected else "multi" if multi else "single"
    return f"{said}+restart" if restart else said


def doubtful(name: str) -> bool:
    """Whether judge and detector differ, or the judge has seen a restart at all."""
    return name != "single"


def allocation(sizes: Mapping[str, int], n: int) -> dict[str, int]:
    """How many of each stratum are labelled: by its size times how far a label scatters there, none below a part of n, all where there are fewer."""
    if n < len(sizes):
        raise DataError(f"{n} labels cannot stand for {len(sizes)} strata; ask for {len(sizes)} an arm or more")
    floor = {name: min(size, max(1, n // LEAST)) for name, size in sizes.items()}
    wanted = {name: size * DOUBT[doubtful(name)] for name, size in sizes.items()}
    taken, left = dict(floor), n - sum(floor.values())
    while left > 0:
        open_ = {name: wanted[name] / (taken[name] + 1) for name in sizes if taken[name] < sizes[name]}
        if not open_:
            break
        best = max(open_, key=lambda name: (open_[name], name))
        taken[best] += 1
        left -= 1
    return taken


def weights(frame: pd.DataFrame, strata: Sequence[str] = ("stratum",)) -> pd.Series:
    """How many trials of its stratum each labelled trial stands for; 0 for the others."""
    given = frame["label"].notna()
    groups = frame.groupby(list(strata))
    return (groups["label"].transform("size") / groups["label"].transform("count").where(given)).fillna(0.0)
