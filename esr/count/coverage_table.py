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


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """By what each is about."""
    designs = found["designs"]
    single = [d for d in designs if "esr_rate" in d["statistics"]]
    names = {name: SHORT[name] for name in SHORT if name in METRICS}
    pairs = {f"Δ {name}": short for name, short in names.items()}
    out = {"estimates": _table(single, {WITHIN: "Wilson at n, multi", **names}, lambda d: str(d["design"]))}
    for what, null in (("nothing changes", True), ("halved", False)):
        chosen = [d for d in designs if d["null"] == null]
        out[what] = _table(chosen, pairs, lambda d: f"{d['design']}, {d['effect']}")
    out["agreement"] = _table(found["agreement"], {name: name for name in AGREEMENT}, lambda d: str(d["design"]))
    return out


def _table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], name: Callable[[Mapping[str, Any]], str]) -> str:
    lines = [["design (latents × trials, rate)", *columns.values()], ["---"] * (len(columns) + 1)]
    lines += [[name(row), *(_cell(row["statistics"][column]) for column in columns)] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(row: Mapping[str, Any]) -> str:
    share = row["told"] / row["studies"]
    if share < SELDOM:
        return "–"
    text = f"{100 * row['coverage']:.1f}"
    return text if share > 0.995 else f"{text} ({100 * share:.0f} %)"
