"""The one list of numbers from which macros, Markdown and JSON are written; each as it was counted, with its n and interval.

Nothing is counted here. A number comes from the number table beside a figure, from the numbers drawn in it, or from an exported
table that holds values with intervals.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from esr.count.metrics import METRICS
from esr.show import words
from esr.show.counted import arm_from
from esr.show.paper import reported

WHOLE = -1
"""The latent that stands for a list of them."""
COUNTS = ("n", "planned", "missing")
"""Of an arm: trials that its rates rest on, trials that were planned, those without a valid grade."""
OVER_ALL = "multi_attempt_rate"
"""A metric over all graded trials."""


@dataclass(frozen=True, slots=True)
class Number:
    place: tuple[str, ...]
    """What it is of, from the experiment to the metric: the macro's name is made of these."""
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    """What it rests on: trials, pairs, or latents where nothing else is told; None: it is a count itself."""
    form: str
    """`.1f`, `+.1f` of a difference, `.3g` of what has no unit, `,.0f` of a count."""
    unit: str
    """` %` or empty."""
    method: str
    """How the interval came about."""
    why: str
    """Why there is no value or no interval; empty with both."""
    paper: float | None = None
    """What the paper reports, in the same unit."""

    def text(self) -> str:
        """The value alone, `18.6`; empty where there is none."""
        return "" if self.value is None else format(self.value, self.form)

    def interval(self) -> str:
        """`[13.0, 25.8]`; empty where there is none."""
        if self.value is None or self.low is None or self.high is None:
            return ""
        return f"[{format(self.low, self.form)}, {format(self.high, self.form)}]"

    def whole(self) -> str:
        """`18.6 % [13.0, 25.8], n = 1,152`: nothing is said without its n."""
        if self.n is None or not self.text():
            return self.text()
        return f"{self.text()}{self.unit}{f' {self.interval()}' if self.interval() else ''}, n = {self.n:,}"


def of_arms(table: str, about: Mapping[str, Any], title: str) -> list[Number]:
    """From an experiment's number table: its own arms' metrics, what differs in pairs, what differs at equal first scores."""
    arms = {(one["experiment"], one["arm"]): arm_from(one) for one in about["arms"]}
    found: dict[tuple[str, ...], Number] = {}
    for row in csv.DictReader(io.StringIO(table)):
        if row["experiment"] != about["experiment"]:
            continue
        place, metric = (row["experiment"], title, row["arm"]), row["metric"]
        for count in COUNTS if metric == OVER_ALL else ():
            found[(*place, count)] = Number((*place, count), float(row[count]), None, None, None, ",.0f", "", "", "")
        by, unit = words.scale(metric), " %" if METRICS[metric].proportion else ""
        known = reported(arms[row["experiment"], row["arm"]], str(about["model"]), metric)
        for kind, keys in KINDS.items():
            value, low, high = (_number(row[key], by) for key in keys[:3])
            if kind and not row[keys[3]]:
                continue  # it is held against nothing
            method = row[keys[3]]
            spanned = low is not None
            form, sign = ("+.1f", "") if kind else (".1f", unit)
            own = (*place, metric, *([kind] if kind else []))
            n = int(row[keys[4]])
            paper = None if kind or known is None else by * known
            found[own] = Number(
                own, value, low, high, n, form, sign, method if spanned else "", "" if spanned else method or NOTHING, paper
            )
    return list(found.values())


KINDS = {
    "": ("value", "low", "high", "method", "n"),
    "difference": ("difference", "difference_low", "difference_high", "difference_method", "pairs"),
    "at equal score": ("standardised", "standardised_low", "standardised_high", "standardised_method", "pairs"),
}
"""Columns of the number table: value, bounds, how they came about, n."""
NOTHING = "nothing to rest on"


def of_drawing(data: Any, place: tuple[str, ...]) -> list[Number]:
    """What a figure drew that is of no arm: agreement of judges, means by region, differences that it took itself."""
    return list(_walked(data, place, None))


NAMED_BY = ("arm", "judge", "other", "outcome", "metric", "region", "list")


def _walked(data: Any, place: tuple[str, ...], n: int | None) -> Iterator[Number]:
    if isinstance(data, list):
        for one in data:
            if isinstance(one, dict):
                yield from _walked(one, (*place, *(one[key] for key in NAMED_BY if isinstance(one.get(key), str))), n)
    elif isinstance(data, dict) and "planned" not in data:  # an arm with its counts stands in the number table
        own = next((data[key] for key in ("n", "pairs", "latents") if isinstance(data.get(key), int)), n)
        if "value" in data and "bounds" in data and "no_interval" in data:
            low, high = data["bounds"] or (None, None)
            metric = METRICS.get(data.get("metric", ""))
            form, unit = (".1f", " %" if metric.proportion else "") if metric else (".3g", "")
            yield Number(place, data["value"], low, high, own, form, unit, data.get("method", ""), data["no_interval"])
        for key, part in data.items():
            if isinstance(part, dict | list) and key != "about":
                yield from _walked(part, (*place, key), own)


def of_table(rows: pd.DataFrame, place: tuple[str, ...]) -> list[Number]:
    """Of an exported table whose rows hold values with intervals, of lists of latents as a whole; a curve is no number of a text."""
    if "token" in rows or rows.empty:
        return []
    some = rows[rows["latent"] == WHOLE] if "latent" in rows else rows
    names = [name for name in ("steering", "list", "one", "other") if name in rows]
    out = []
    for row in some.to_dict("records"):
        about = (*place, *(str(row[name]) for name in names))
        for part in (str(column).removesuffix("low") for column in rows.columns if str(column).endswith("low")):
            value = next((row[part + name] for name in ("value", "area") if part + name in row), None)
            n = next((row[part + name] for name in ("n", "latents") if part + name in row), None)
            if value is None or n is None:
                continue
            value, low, high = (_known(cell) for cell in (value, row[f"{part}low"], row[f"{part}high"]))
            own = (*about, part.strip("_")) if part else about
            why = str(row.get(f"{part}no_interval") or NOTHING) if low is None else ""
            out.append(Number(own, value, low, high, int(_known(n) or 0), ".3g", "", "", why))
    return out


def _known(cell: Any) -> float | None:
    return None if cell is None or pd.isna(cell) else float(cell)


def _number(cell: str, by: float) -> float | None:
    return by * float(cell) if cell else None
