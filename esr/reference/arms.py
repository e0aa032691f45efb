"""The thresholds that a boost sweep of the authors was laid over: their mean and σ, as the files record them or from the levels."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from esr.reference.scores import Row, number, whole

LEVELS, RANGE = 10, 3.0
"""What the authors' program takes when nothing is asked: levels, and σ to either side."""

FILES = """
SELECT f.model, f.scale, f.sha256, e.item, e.content
FROM (
    SELECT DISTINCT m.model, m.scale, p.sha256
    FROM members m JOIN provenance p ON p.relation = 'trials' AND p.id = m.trial_id
    WHERE m.plan = 'reference' AND m.experiment = 'exp02'
) f JOIN findings e ON e.sha256 = f.sha256 AND e.kind = 'results'
WHERE e.item IN ('threshold_cache_stats', 'boost_levels', 'n_boost_levels', 'boost_range_std')
ORDER BY ALL
"""
"""What each imported sweep says of its levels."""

IMPORTED = """
SELECT experiment, model, arm, scale, kind, level, against
FROM current_arms SEMI JOIN (SELECT * FROM current_members WHERE plan = 'reference') USING (experiment, model, arm, scale)
ORDER BY ALL
"""
"""The arms that stand as they were imported. Their order follows from kind and level, whatever is imported later."""

Spread = tuple[float, float]
"""Mean and σ, ddof 0."""


def rows(imported: Sequence[Row], told: Sequence[Row]) -> list[Row]:
    """Rows of `arms` without their time, from the answers to IMPORTED and FILES. m and σ are averaged over the files of a model, as the authors do."""
    by_file: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for row in told:
        by_file[row["model"], row["scale"]][row["sha256"]][row["item"]] = json.loads(row["content"])
    found = {key: known for key, files in by_file.items() if (known := _average([spread(said) for said in files.values()]))}
    out = []
    for row in imported:
        of = found.get((row["model"], row["scale"])) if row["experiment"] == "exp02" and row["kind"] == "absolute" else None
        out.append({**row, "mean": of[0] if of else None, "std": of[1] if of else None})
    return out


def _average(found: Sequence[Spread | None]) -> Spread | None:
    known = [one for one in found if one is not None]
    return (fmean(mean for mean, _ in known), fmean(std for _, std in known)) if known else None


def spread(said: Mapping[str, Any]) -> Spread | None:
    """Of one file: as it records them, else from its levels."""
    stats = said.get("threshold_cache_stats")
    if isinstance(stats, Mapping):
        mean, std = number(stats.get("mean")), number(stats.get("std"))
        if mean is not None and std is not None and std > 0:
            return mean, std
    levels = said.get("boost_levels")
    known = sorted({level for item in levels if (level := number(item)) is not None}) if isinstance(levels, list) else []
    return spacing(known, whole(said.get("n_boost_levels")) or LEVELS, number(said.get("boost_range_std")) or RANGE)


def spacing(levels: Sequence[float], count: int, range_std: float) -> Spread | None:
    """From ascending, evenly spaced levels; None: they are not even.

    The lowest may have been clipped at 0, the top ones never are: top = m + range·σ, spacing = 2·range·σ / (count − 1).
    """
    top = [level for level in levels if level > 0]
    if len(top) < 2 or count < 2:
        return None
    steps = [b - a for a, b in pairwise(top)]
    step = steps[-1]
    if step <= 0 or any(abs(s - step) > 1e-3 * step for s in steps):
        return None
    std = step * (count - 1) / (2 * range_std)
    return top[-1] - range_std * std, std
