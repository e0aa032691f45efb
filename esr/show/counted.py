"""Arms counted: rows of outcomes to estimates and differences, and their numbers as a table."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from esr.count import difficulty, metrics
from esr.count.difficulty import Standardised
from esr.count.metrics import Difference, Estimate
from esr.experiment import arm_of
from esr.show import audited
from esr.show.recorded import Recorded
from esr.types import BASELINE, Arm


@dataclass(frozen=True, slots=True)
class Counted:
    """One arm with everything that is counted of it."""

    arm: Arm
    rows: pd.DataFrame
    planned: int
    missing: int
    estimates: Mapping[str, Estimate]
    differences: Mapping[str, Difference]
    """To the arm that it is compared with; empty where there is none, or it was not run."""
    standardised: Mapping[str, Standardised]
    """The same at equal first scores, of the rates."""
    audited: Mapping[str, audited.Told]
    """What people's labels say of its rates; empty where nobody has labelled."""
    identical: bool = False
    """Whether each of its trials has the scores of its pair in that arm."""

    @property
    def name(self) -> str:
        return self.arm.name

    @property
    def n(self) -> int:
        """Trials that the rates rest on."""
        return len(self.rows)


def arms(found: Recorded) -> list[Counted]:
    """The baseline first, then by experiment, kind and place."""
    about = found.about
    frame = metrics.outcomes_frame(found.outcomes, exclude_degraded=about["exclude_degraded"])
    confidence = about["confidence"]
    groups = {(str(e), str(a)): rows for (e, a), rows in frame.groupby(["experiment", "arm"], observed=True)}
    out = []
    for told in sorted(about["arms"], key=_order):
        arm = arm_from(told)
        rows = groups.get((arm.experiment, arm.name))
        if rows is None:
            continue
        base = groups.get(arm_of(arm.against)) if arm.against else None
        held = metrics.differences(rows, base, confidence=confidence) if base is not None else {}
        alike = difficulty.standardised(rows, base, confidence=confidence) if base is not None else {}
        labels = audited.of(about.get("audited", ()), arm.experiment, arm.name)
        equal = base is not None and _equal(rows, base)
        estimates = metrics.estimates(rows, confidence=confidence)
        out.append(Counted(arm, rows, int(told["n_planned"]), int(told["n_missing"]), estimates, held, alike, labels, equal))
    return out


def _equal(rows: pd.DataFrame, base: pd.DataFrame) -> bool:
    """Every pair has the same number of attempts and the same scores."""
    a, b = metrics.paired(rows, base)
    return len(a) > 0 and all(a[name].equals(b[name]) for name in ("n_attempts", "first_score", "last_score"))


def arm_from(told: Mapping[str, object]) -> Arm:
    """An arm as about.json tells of it."""
    level, mean, std = (None if told[name] is None else float(str(told[name])) for name in ("level", "mean", "std"))
    against = str(told["against"] or "")
    return Arm(str(told["experiment"]), str(told["arm"]), str(told["kind"]), level, int(str(told["place"])), against, mean, std)


def _order(told: Mapping[str, object]) -> tuple[bool, str, str, int, str]:
    arm = arm_from(told)
    return arm.key != BASELINE.key, arm.experiment, arm.kind, arm.order, arm.name


HEADER = (
    "experiment", "arm", "metric", "value", "k", "n", "planned", "missing", "low", "high", "method", "n_effective", "latents",
    "within_low", "within_high", "difference", "difference_low", "difference_high", "difference_method", "pairs", "p", "d_paired",
    "standardised", "standardised_low", "standardised_high", "standardised_method", "covered",
)  # fmt: skip


def numbers(found: Sequence[Counted]) -> str:
    """One line an arm and metric, as CSV; empty where there is no number, and the reason under `method` where there is no interval."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(HEADER)
    for one in found:
        for name, e in one.estimates.items():
            d = one.differences.get(name)
            row = [one.arm.experiment, one.name, name, e.value, e.k, e.n, one.planned, one.missing, *(e.interval or ("", ""))]
            row += [e.method or e.no_interval, e.n_effective, e.latents, *(e.within_latents or ("", ""))]
            row += [d.value, *(d.interval or ("", "")), d.method or d.no_interval, d.n, d.p, d.d_paired] if d else [""] * 7
            s = one.standardised.get(name)
            row += [s.value, *(s.interval or ("", "")), s.method or s.no_interval, s.covered] if s else [""] * 5
            out.writerow([_short(cell) for cell in row])
    return text.getvalue()


def headline(found: Sequence[Counted]) -> dict[str, dict[str, float | None]]:
    """Every metric of every arm, without intervals: what `dvc metrics diff` compares."""
    return {
        one.arm.key: {name: None if e.value is None else float(f"{e.value:.6g}") for name, e in one.estimates.items()}
        | {"n": float(one.n), "missing": float(one.missing)}
        for one in found
    }


def _short(cell: object) -> object:
    return "" if cell is None else f"{cell:.9g}" if isinstance(cell, float) else cell
