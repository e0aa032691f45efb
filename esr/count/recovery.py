"""Mean recovery without words of one arm, with intervals like those of every other mean."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from esr.count.clusters import Clusters
from esr.count.ratios import LATENTS, Ratio, estimate, few
from esr.count.statistics import Bounds

RATIO = Ratio("recovery", "valid", "bounded", -100, 100)


@dataclass(frozen=True, slots=True)
class Mean:
    """In points of relevance, −100 to 100."""

    value: float | None
    interval: Bounds | None
    no_interval: str
    n: int
    latents: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """Of one arm."""

    every: Mean
    sound: Mean
    """Of replies that are not degraded."""
    wordless: Mean
    """Of those, the ones in which the restart detector sees no restart."""
    missing: int


def recovery(rows: pd.DataFrame, *, confidence: float = 0.95) -> Recovery:
    """Of one arm's rows of the view `recovered`."""
    known = rows[rows["recovery"].notna()]
    sound = known[known["degraded"].astype(float) == 0]
    wordless = sound[sound["restarts"].astype(float) == 0]
    every, steady, quiet = (mean(part, confidence) for part in (known, sound, wordless))
    return Recovery(every, steady, quiet, missing=len(rows) - len(known))


def mean(rows: pd.DataFrame, confidence: float) -> Mean:
    if not len(rows):
        return Mean(None, None, "no reply to rest on", 0, 0)
    clusters = Clusters.of(rows["latent"].to_numpy(), rows["question"].to_numpy())
    found = estimate(RATIO, rows["recovery"].to_numpy(dtype=float), np.ones(len(rows)), clusters)
    latents, value = int(found.latents), float(found.value)
    if latents < LATENTS:
        return Mean(value, None, few(latents), len(rows), latents)
    if found.alike:
        return Mean(value, None, "all trials alike", len(rows), latents)
    low, high = (float(bound) for bound in found.interval(confidence))
    return Mean(value, Bounds(low, high), "", len(rows), latents)
