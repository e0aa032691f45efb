"""The tables of docs/statistics.md, from docs/benchmarks/coverage.json."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from esr.count.coverage import WITHIN
from esr.count.metrics import METRICS

SELDOM = 0.05
"""Printed in fewer studies than this, an interval's coverage is not told: too few of them to say."""
SHORT = {
    "multi_attempt_rate": "multi",
    "esr_rate": "ESR",
    "improvement_rate": "improvement",
    "gain_all_mean": "gain, all",
    "gain_multi_mean": "gain, multi",
    "first_score_mean": "first score",
    "degraded_rate": "degraded",
    "attempts_mean": "attempts",
}
AGREEMENT = ("multi", "attempts", "kappa", "pabak", "direction", "spearman", "pearson")
Rows = Sequence[Mapping[str, Any]]


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """By what each is about."""
    names = {name: SHORT[name] for name in SHORT if name in METRICS}
    pairs = {f"Δ {name}": short for name, short in names.items()}
    out, summary = {}, []
    for drawn, group in ((False, ""), (True, ", by lot")):
        designs = [d for d in found["designs"] if d["drawn"] == drawn]
        single = [d for d in designs if "esr_rate" in d["statistics"]]
        first = {} if drawn else {WITHIN: "Wilson at n, multi"}
        out[f"estimates{group}"] = _table(single, {**first, **names}, lambda d: str(d["design"]))
        summary.append(_counts(f"rates and means{group}", single, names))
        for what, null in (("nothing changes", True), ("halved", False)):
            chosen = [d for d in designs if d["null"] == null]
            out[f"{what}{group}"] = _table(chosen, pairs, lambda d: f"{d['design']}, {d['effect']}")
            summary.append(_counts(f"differences, {what}{group}", chosen, pairs))
    measures = {name: name for name in AGREEMENT}
    out["agreement"] = _table(found["agreement"], measures, lambda d: str(d["design"]))
    summary.append(_counts("agreement", found["agreement"], measures))
    head = ["", "cells", "below 93", "93 to 97", "above 97", "of these in steps", "lowest", "median", "highest"]
    return {"summary": _lines([head, *summary]), **out}


def _counts(about: str, rows: Rows, columns: Mapping[str, str]) -> list[str]:
    cells = [row["statistics"][column] for row in rows for column in columns]
    shown = [cell for cell in cells if cell["told"] >= SELDOM * cell["studies"]]
    values = sorted(100 * cell["coverage"] for cell in shown)
    low, high = sum(value < 93 for value in values), sum(value > 97 for value in values)
    stepped = sum(cell["coverage"] > 0.97 < cell["least"] for cell in shown)
    ends = [f"{value:.1f}" for value in (values[0], values[len(values) // 2], values[-1])]
    return [about, str(len(values)), str(low), str(len(values) - low - high), str(high), str(stepped), *ends]


def _table(rows: Rows, columns: Mapping[str, str], name: Callable[[Mapping[str, Any]], str]) -> str:
    head = ["design (latents × trials, rate)", *columns.values()]
    return _lines([head, *([name(row), *(_cell(row["statistics"][column]) for column in columns)] for row in rows)])


def _lines(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


def _cell(row: Mapping[str, Any]) -> str:
    share = row["told"] / row["studies"]
    if share < SELDOM:
        return "–"
    text = f"{100 * row['coverage']:.1f}"
    return text if share > 0.995 else f"{text} ({100 * share:.0f} %)"
