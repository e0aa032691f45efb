"""The table that closes a run: each arm's n, missing, rates with their intervals, and what differs from the baseline in pairs."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from esr.count import metrics
from esr.count.metrics import Difference, Estimate
from esr.params import Params
from esr.store import Store

BASELINE = ("exp01", "baseline")
SHOWN = ("multi_attempt_rate", "esr_rate")
HEADER = ("arm", "n", "missing", "first score", "multi-attempt", "ESR", "multi − baseline", "ESR − baseline")
NOTE = (
    "In brackets: 95 % intervals, Wilson for rates and percentiles over resampled latents for scores and for differences, "
    "which are taken over pairs of the same latent, question and seed."
)


@dataclass(frozen=True, slots=True)
class Line:
    """One arm."""

    experiment: str
    arm: str
    n: int
    """Graded trials."""
    missing: int
    estimates: Mapping[str, Estimate]
    differences: Mapping[str, Difference]
    """To the baseline; empty for the baseline itself and where it was not run."""

    def cells(self) -> list[str]:
        first = self.estimates.get("first_score_mean")
        return [
            f"{self.experiment}/{self.arm}",
            f"{self.n:,}",
            f"{self.missing:,}",
            _mean(first) if first else "–",
            *(_rate(self.estimates.get(name)) for name in SHOWN),
            *(_points(self.differences.get(name)) for name in SHOWN),
        ]


def lines(store: Store, params: Params, experiment: str, model: str, judge: str) -> list[Line]:
    """The baseline and the experiment's arms, in the order of their names."""
    where = "model = ? and scale = ? and judge = ? and (experiment = ? or (experiment = 'exp01' and arm = 'baseline'))"
    asked = [model, params.scale, judge, experiment]
    counts = store.sql(f"select experiment, arm, n_graded, n_missing from summary where {where}", asked).to_pylist()
    rows = store.sql(f"select * from outcomes where {where}", asked).to_pandas()
    if params.protocol.exclude_degraded and len(rows):
        rows = rows[~rows["degraded"].astype(bool)]
    arms = {(str(e), str(a)): group for (e, a), group in rows.groupby(["experiment", "arm"], observed=True)}
    counts.sort(key=lambda row: ((row["experiment"], row["arm"]) != BASELINE, row["experiment"], _natural(row["arm"])))
    return [_line(row, arms, params) for row in counts]


def _line(row: Mapping[str, object], arms: Mapping[tuple[str, str], pd.DataFrame], params: Params) -> Line:
    key = (str(row["experiment"]), str(row["arm"]))
    draws, confidence = params.protocol.bootstrap_draws, params.protocol.confidence
    found, base = arms.get(key), arms.get(BASELINE)
    estimates = metrics.estimates(found, draws=draws, confidence=confidence, seed=params.seed) if found is not None else {}
    differences = (
        metrics.differences(found, base, draws=draws, confidence=confidence, seed=params.seed)
        if found is not None and base is not None and key != BASELINE
        else {}
    )
    return Line(*key, int(str(row["n_graded"])), int(str(row["n_missing"])), estimates, differences)


def _natural(arm: str) -> tuple[str, float]:
    """`relative-2` before `relative-10`."""
    name, _, number = arm.rpartition("-")
    try:
        return name, float(number)
    except ValueError:
        return arm, 0.0


def _mean(e: Estimate) -> str:
    if e.value is None:
        return "–"
    return f"{e.value:.1f}" + (f" [{e.bootstrap.low:.1f}, {e.bootstrap.high:.1f}]" if e.bootstrap else "")


def _rate(e: Estimate | None) -> str:
    if e is None or e.value is None:
        return "–"
    return f"{100 * e.value:.1f} %" + (f" [{100 * e.wilson.low:.1f}, {100 * e.wilson.high:.1f}]" if e.wilson else "")


def _points(d: Difference | None) -> str:
    if d is None or d.value is None or d.n == 0:
        return ""
    return f"{100 * d.value:+.1f}" + (f" [{100 * d.bootstrap.low:+.1f}, {100 * d.bootstrap.high:+.1f}]" if d.bootstrap else "")


def markdown(found: list[Line]) -> str:
    rows = [HEADER, tuple("---" for _ in HEADER), *(line.cells() for line in found)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n{NOTE}"
