"""Rates along a dose: three stacked panels, multi-attempt, improvement and ESR rate (figure 3)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from esr.show import words
from esr.show.counted import Counted, arms
from esr.show.figures import style
from esr.show.figures.numbers import TITLES, as_json, drawn, methods, paper
from esr.show.paper import reported
from esr.show.recorded import Recorded
from esr.types import Arm

HEADS = {"absolute": "same boosts for all", "relative": "multiples of each latent's own"}
PANELS = ["multi_attempt_rate", "improvement_rate", "esr_rate"]


def ladders(found: Recorded, title: str) -> tuple[Figure, dict[str, object]]:
    """Absolute levels over (boost − m)/σ of the thresholds, and levels relative to each latent's own threshold."""
    counted = {kind: _rungs(arms(found), kind) for kind in ("absolute", "relative")}
    kinds = [kind for kind in counted if counted[kind]]
    data: dict[str, object] = {"title": title, "about": found.about}
    with style.canvas(3, max(len(kinds), 1), 5.2, sharex="col", sharey="row") as (figure, axes):
        for column, kind in zip(axes.T, kinds, strict=False):
            x, label, at = _axis(counted[kind], kind)
            for panel, metric in zip(column, PANELS, strict=True):
                _curve(panel, x, [arm for _, arm in counted[kind]], metric)
                panel.axvline(at, color=style.FAINT, linewidth=0.8, zorder=0)
                if kind == "absolute" and (peak := _peak(found, metric)) is not None:
                    style.mark_paper(panel, *peak)
            column[-1].set_xlabel(label)
            column[0].set_title(HEADS[kind], loc="right", fontsize=7, fontweight="normal")
            levels = [
                {"x": float(v), **as_json(arm, [*PANELS, "first_score_mean"], found.model)}
                for v, (_, arm) in zip(x, counted[kind], strict=True)
            ]
            data[kind] = {"axis": label, "levels": levels}
        for panel, metric in zip(axes[:, 0], PANELS, strict=True):
            panel.set_title(TITLES[metric], loc="left")
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        style.footnote(figure, _foot(found, counted))
    return figure, data | {"paper_peaks": {metric: _peak(found, metric) for metric in PANELS}}


def _peak(found: Recorded, metric: str) -> tuple[float, float] | None:
    """Where the paper's peak lies and how high it is; on the axis of absolute levels."""
    peak = Arm(found.experiment, "peak")
    at, value = reported(peak, found.model, f"{metric}_at"), paper(peak, found.model, metric)
    return None if at is None or value is None else (at, value)


def _rungs(counted: Sequence[Counted], kind: str) -> list[tuple[float, Counted]]:
    """The arms of one kind by their level."""
    levels = [(one.arm.level, one) for one in counted if one.arm.kind == kind]
    return sorted(((level, one) for level, one in levels if level is not None), key=lambda rung: rung[0])


def _axis(rungs: Sequence[tuple[float, Counted]], kind: str) -> tuple[list[float], str, float]:
    """x, its label, and where the thresholds' mean (or the latent's own threshold) lies."""
    levels = [level for level, _ in rungs]
    if kind == "relative":
        return levels, "boost / latent's own threshold", 1.0
    mean, std = rungs[0][1].arm.mean, rungs[0][1].arm.std
    if mean is None or not std:
        return levels, "boost", np.nan
    return [(level - mean) / std for level in levels], f"(boost − m)/σ, m {mean:.3g}, σ {std:.3g}", 0.0


FEW = 5
"""Trials behind a value below which its point is open."""


def _curve(panel: Axes, x: Sequence[float], rungs: Sequence[Counted], metric: str) -> None:
    values = [drawn(arm, metric) for arm in rungs]
    known = [(at, d.value, d.bounds, d.n) for at, d in zip(x, values, strict=True) if d.value is not None]
    panel.plot([k[0] for k in known], [k[1] for k in known], "-", color=style.SHADES[1], linewidth=1.0, zorder=1)
    for at, value, bounds, n in known:
        if bounds is not None:
            panel.plot([at, at], bounds, color=style.FAINT, linewidth=1.6, zorder=2, solid_capstyle="butt")
        full = style.SHADES[0] if n >= FEW else "white"
        panel.plot([at], [value], "o", color=style.SHADES[0], markerfacecolor=full, markersize=4, zorder=3, clip_on=False)
    panel.set_ylim(bottom=0)


def _foot(found: Recorded, counted: dict[str, list[tuple[float, Counted]]]) -> str:
    about = found.about
    parts = []
    for kind, rungs in counted.items():
        if rungs:
            n = [arm.n for _, arm in rungs]
            parts.append(f"{kind}: {len(rungs)} levels, n {min(n)}" + (f" to {max(n)}" if max(n) > min(n) else "") + " each")
    told = (
        f"{found.model}, judge {about['judge']}, scale {about['scale']}; {'; '.join(parts)}. "
        f"Open points rest on fewer than {FEW} trials; a point without a bar has too few latents for an interval. "
        f"Vertical line: the thresholds' mean m (σ: their standard deviation), or the latent's own threshold."
    )
    method = words.method(about["confidence"], methods([arm for rungs in counted.values() for _, arm in rungs], PANELS))
    return f"{style.wrapped(told)}\n{method}" + (" Diamonds: the paper's peaks." if _peak(found, "esr_rate") else "")
