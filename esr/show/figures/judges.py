"""Judges side by side: what each finds in the arms of a sample, and how far they agree (A.2.2)."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from esr.count import agreement, reliability
from esr.count.agreement import Measured
from esr.show.figures import agreement as pairwise
from esr.show.figures import style
from esr.show.recorded import Recorded
from esr.types import BASELINE

RATES = {"multi_attempt_rate": "Multi-attempt rate (%)", "esr_rate": "ESR rate (%)"}
SEED = 20260206
"""Of the latents drawn anew for rank correlations; any would do."""


def bars(found: Recorded, title: str) -> tuple[Figure, dict[str, object]]:
    """A bar a judge in each arm, weighted: what it would find in all of the arm's replies."""
    return _bars(found.tables["crossed"], "source", title, found.about, "arms")


def across(some: Sequence[Recorded], title: str) -> tuple[Figure, dict[str, object]]:
    """The same of each model's steered baseline, and whether judges rank models alike."""
    rows = pd.concat([found.tables["crossed"] for found in some], ignore_index=True)
    return _bars(rows[rows["source"] == BASELINE.key], "model", title, some[0].about, "models")


def _bars(rows: pd.DataFrame, by: str, title: str, about: dict[str, Any], named: str) -> tuple[Figure, dict[str, object]]:
    confidence = about["confidence"]
    groups, judges = list(dict.fromkeys(rows[by] if by == "model" else sorted(rows[by]))), sorted(rows["judge"].unique())
    drawn: list[dict[str, Any]] = []
    with style.canvas(1, 2, 1.4 + 0.22 * len(groups) * len(judges), sharey=True) as (figure, axes):
        for panel, (metric, name) in zip(axes[0], RATES.items(), strict=True):
            for i, group in enumerate(groups):
                for j, judge in enumerate(judges):
                    some = rows[(rows[by] == group) & (rows["judge"] == judge)]
                    rate = _rate(some, metric, confidence) if len(some) else Measured(None, None, "", "it has graded none", 0)
                    at = i + 0.8 * ((j + 0.5) / len(judges) - 0.5)
                    told = {named.removesuffix("s"): group, "judge": judge, "metric": metric, "n": len(some)}
                    drawn.append({**told, **_json(rate, 100)})
                    if rate.value is None:
                        continue
                    panel.barh([at], [100 * rate.value], height=0.72 / len(judges), **style.bar_look(j))
                    span = rate.interval
                    style.error_bar(panel, at, 100 * rate.value, (100 * span.low, 100 * span.high) if span else None, flat=True)
            panel.set_title(name, loc="left", fontsize=8)
            panel.set_xlim(left=0)
        axes[0][0].set_yticks(range(len(groups)), groups)
        axes[0][0].set_ylim(len(groups) - 0.5, -0.5)
        looks = [(style.SHADES[j % len(style.SHADES)], style.HATCHES[j % len(style.HATCHES)]) for j in range(len(judges))]
        handles = [
            Patch(label=judge, facecolor=shade, hatch=hatch, edgecolor=style.INK)
            for judge, (shade, hatch) in zip(judges, looks, strict=True)
        ]
        axes[0][1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1))
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        graded = [one for one in drawn if one["n"] and one["metric"] == "esr_rate"]
        none = sorted({one["judge"] for one in graded if one["value"] is None})
        ranks = _ranks(rows, by, confidence)
        lines = (_n(rows, by, groups, confidence, none), _said(ranks, named))
        style.footnote(figure, "\n".join(style.wrapped(line) for line in lines))
    return figure, {"title": title, "about": about, "rates": drawn, "ranks": [_rank(one) for one in ranks]}


def matrix(found: Recorded, title: str) -> tuple[Figure, dict[str, object]]:
    """Pairs of judges, and Krippendorff's α of all."""
    rows, confidence = found.tables["crossed"], found.about["confidence"]
    figure, data = pairwise.matrix(agreement.pairs(rows, confidence=confidence), title, confidence)
    alphas = [reliability.alpha(rows, outcome, confidence=confidence) for outcome in ("multi", "corrected")]
    said = "; ".join(
        f"of {one.outcome} {_text(one.alpha)} ({one.judges} judge{'s' * (one.judges != 1)}, n {one.n:,})" for one in alphas
    )
    figure.suptitle(f"{title}\nKrippendorff's α: {said}", fontsize=8.5, x=0.01, ha="left")
    data["alpha"] = [{"outcome": one.outcome, "judges": one.judges, "n": one.n, **_json(one.alpha, 1)} for one in alphas]
    every = {name: {f"{p.judge} | {p.other}": {"n": p.n_multi if name == "direction" else p.n} | _json(getattr(p, name), 1) for p in agreement.pairs(rows, confidence=confidence)}
             for name in agreement.MEASURES}  # fmt: skip
    return figure, {**data, "about": found.about, "measures": every}


def _rate(some: Any, metric: str, confidence: float) -> Measured:
    if some["corrected"].isna().any() and metric == "esr_rate":
        return Measured(None, None, "", "it gives no scores", 0)
    plain = some.assign(corrected=some["corrected"].fillna(0.0))
    return next(rate.share for rate in agreement.rates(plain, confidence=confidence) if rate.metric == metric)


def _ranks(rows: pd.DataFrame, by: str, confidence: float) -> list[reliability.Ranks]:
    return [
        one for outcome in ("multi", "corrected") for one in reliability.ranks(rows, outcome, by, seed=SEED, confidence=confidence)
    ]


def _rank(one: reliability.Ranks) -> dict[str, Any]:
    rates = {group: {"judge": a, "other": b} for group, a, b in zip(one.groups, *one.rates, strict=True)}
    return {"judge": one.judge, "other": one.other, "outcome": one.outcome, "rates": rates, **_json(one.tau, 1)}


def _n(rows: pd.DataFrame, by: str, groups: list[str], confidence: float, none: list[str]) -> str:
    first = rows.drop_duplicates([by, "source", "trial_id", "latent"])
    n = ", ".join(f"{group} {int((first[by] == group).sum()):,}" for group in groups)
    return (
        f"n of the sample: {n}; each reply stands for its stratum of its arm. Bars: {100 * confidence:g} % intervals of what other latents of the same kind would show."
        + (f" No ESR rate by {', '.join(none)}: no scores are given." if none else "")
    )


def _said(ranks: list[reliability.Ranks], named: str) -> str:
    told = [f"{one.judge} and {one.other} ({one.outcome}) {_text(one.tau)}" for one in ranks]
    return f"Kendall's τ of the {named}' rates: {'; '.join(told) or 'fewer than two judges'}."


def _text(found: Measured) -> str:
    if found.value is None:
        return f"– ({found.no_interval})"
    return f"{found.value:.2f}" + (
        f" [{found.interval.low:.2f}, {found.interval.high:.2f}]" if found.interval else f" ({found.no_interval})"
    )


def _json(found: Measured, by: float) -> dict[str, Any]:
    span = found.interval
    value = None if found.value is None else by * found.value
    bounds = [by * span.low, by * span.high] if span else None
    return {"value": value, "bounds": bounds, "method": found.method, "no_interval": found.no_interval, "latents": found.latents}
