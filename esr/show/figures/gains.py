"""What self-correction gains: a row a model, histogram of last minus first score beside the two rates (figure 2)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from esr.show import words
from esr.show.counted import Counted, arms
from esr.show.figures import style
from esr.show.figures.numbers import TITLES, as_json, drawn, methods, paper
from esr.show.recorded import Recorded

WIDTH = 20 / 3
EDGES = -100 - WIDTH / 2 + WIDTH * np.arange(32)
"""Bins of width 6.67 over ±100, shifted by half a bin so that 0 is in the middle of one."""
RATES = ["multi_attempt_rate", "esr_rate"]


def rows(found: Sequence[Recorded], arm: str, title: str) -> tuple[Figure, dict[str, object]]:
    """One row a model, in the order given: small models first."""
    counted = [(r, next(a for a in arms(r) if a.name == arm)) for r in found]
    with style.canvas(len(counted), 3, 0.9 + 1.25 * len(counted), width_ratios=[2, 1, 1], sharex="col") as (figure, axes):
        data = {r.model: _row(line, r, a) for line, (r, a) in zip(axes, counted, strict=True)}
        for column, metric in zip(axes.T[1:], RATES, strict=True):
            column[0].set_title(TITLES[metric], loc="left", fontsize=7.5)
            column[-1].set_xlim(0, 1.08 * max(_reach(r, a, metric) for r, a in counted) or 1)  # one axis for all: no bar is cut
        axes[0][0].set_title("Gain of second attempts; dark: improved", loc="left", fontsize=7.5)
        axes[-1][0].set_xlabel("last − first score (points)")
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        style.footnote(figure, _foot(counted))
    return figure, {"title": title, "models": data}


def _row(axes: Sequence[Axes], found: Recorded, arm: Counted) -> dict[str, object]:
    gains = arm.rows.loc[arm.rows["multi"] > 0, "gain"].to_numpy()
    better, other = (np.histogram(part, EDGES)[0] / max(gains.size, 1) * 100 for part in (gains[gains > 0], gains[gains <= 0]))
    for share, below, shade in ((other, 0 * other, 6), (better, other, 0)):
        axes[0].bar(EDGES[:-1], share, WIDTH, below, align="edge", color=style.SHADES[shade], edgecolor=style.INK, linewidth=0.4)
    axes[0].axvline(0, color=style.INK, linestyle="--", linewidth=0.8)
    improved = drawn(arm, "improvement_rate")
    said = f"{improved.value:.0f} % improved (n {improved.n})" if improved.value is not None else "no multi-attempt trial"
    axes[0].text(0.02, 0.95, said, transform=axes[0].transAxes, va="top", fontsize=7)
    axes[0].set_ylabel(f"{found.model}\n% of multi")
    axes[0].set_xlim(-103.4, 103.4)
    if not gains.size:
        axes[0].set_ylim(0, 100)
    for panel, metric in zip(axes[1:], RATES, strict=True):
        d = drawn(arm, metric)
        panel.barh([0], [d.value or 0.0], height=0.5, **style.bar_look(style.of_kind(arm.arm.kind)))
        style.error_bar(panel, 0, d.value or 0.0, d.bounds, flat=True)
        published = paper(arm.arm, found.model, metric)
        if published is not None:
            style.mark_paper(panel, 0.38, published, flat=True)
        panel.set_yticks([])
        panel.set_ylim(-0.6, 0.85)
        panel.text(
            0.98, 0.98, f"{d.value or 0.0:.1f} % ({d.k:,}/{d.n:,})", transform=panel.transAxes, ha="right", va="top", fontsize=7
        )
    numbers = as_json(arm, [*RATES, "improvement_rate", "first_score_mean", "gain_all_mean", "gain_multi_mean"], found.model)
    return numbers | {
        "histogram": {"edges": EDGES.tolist(), "improved": better.tolist(), "other": other.tolist(), "n": int(gains.size)}
    }


def _reach(found: Recorded, arm: Counted, metric: str) -> float:
    """How far to the right a rate is drawn, with its interval and the paper's value."""
    d = drawn(arm, metric)
    return max(d.value or 0.0, d.bounds[1] if d.bounds else 0.0, paper(arm.arm, found.model, metric) or 0.0)


def _foot(counted: Sequence[tuple[Recorded, Counted]]) -> str:
    about = counted[0][0].about
    n = "; ".join(
        f"{r.model}: n {a.n:,}, {a.missing} missing, judge {r.about['judge']}, scale {r.about['scale']}" for r, a in counted
    )
    diamonds = any(paper(a.arm, r.model, m) is not None for r, a in counted for m in RATES)
    return f"{style.wrapped(n)}.\n{words.method(about['confidence'], methods([a for _, a in counted], RATES))}" + (
        " Diamonds: the paper." if diamonds else ""
    )
