"""Steering along directions: first score and restarts over the dose, other modes and positions beside, and what dose bites."""

from collections.abc import Sequence
from dataclasses import asdict

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from esr.count.trend import Share, Trend
from esr.count.trend import trend as falling
from esr.show import words
from esr.show.counted import Counted, arms
from esr.show.figures import style
from esr.show.figures.numbers import TITLES, as_json, drawn, methods
from esr.show.recorded import Recorded

SHOWN = ["first_score_mean", "multi_attempt_rate", "esr_rate"]


def panels(found: Recorded, title: str) -> tuple[Figure, dict[str, object]]:
    """Rates over multiples of each direction's threshold; arms at the threshold; the thresholds as doses."""
    counted = [one for one in arms(found) if one.arm.experiment == found.experiment]
    steered = [one for one in counted if one.arm.kind == "steered"]
    rungs = sorted(
        [(1.0, one) for one in steered] + [(one.arm.level or 0.0, one) for one in counted if one.arm.kind == "relative"],
        key=lambda rung: rung[0],
    )
    others = steered + [one for one in counted if one.arm.kind in ("mode", "scope")]
    told = found.tables["directions"]
    trend = falling([(level, one.rows) for level, one in rungs], confidence=found.about["confidence"]) if len(rungs) > 1 else None
    with style.canvas(2, 3, 4.6) as (figure, axes):
        for panel, metric in zip(axes[0], SHOWN, strict=True):
            curve(panel, rungs, metric)
        for panel, metric in zip(axes[1], SHOWN[:2], strict=False):
            bars(panel, others, metric)
        axes[1][1].tick_params(labelleft=False)
        axes[1][2].hist(told["dose"], bins=12, color=style.SHADES[2], edgecolor=style.INK, linewidth=0.6)
        axes[1][2].set_title("Directions by threshold", loc="left", fontsize=8)
        axes[1][2].set_xlabel("threshold / length of the stream")
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        style.footnote(figure, "\n".join(style.wrapped(line, 130) for line in _foot(found, counted, trend)))
    data = [as_json(one, SHOWN, found.model) for one in counted]
    drawn_too = {"doses": told["dose"].tolist(), "trend": asdict(trend) if trend else None}
    return figure, {"title": title, "about": found.about, "arms": data, **drawn_too}


def curve(panel: Axes, rungs: Sequence[tuple[float, Counted]], metric: str) -> None:
    known = [(x, d.value, d.bounds) for x, one in rungs if (d := drawn(one, metric)).value is not None]
    panel.plot([x for x, _, _ in known], [value for _, value, _ in known], "-", color=style.SHADES[1], linewidth=1.0, zorder=1)
    for x, value, bounds in known:
        style.error_bar(panel, x, value or 0.0, bounds)
        panel.plot([x], [value], "o", color=style.SHADES[0], markersize=4, zorder=5)
    panel.axvline(1, color=style.FAINT, linewidth=0.8, zorder=0)
    panel.set_ylim(bottom=0)
    panel.set_title(TITLES[metric], loc="left", fontsize=8)
    panel.set_xlabel("boost / direction's own threshold")


def bars(panel: Axes, some: Sequence[Counted], metric: str) -> None:
    for i, one in enumerate(some):
        d = drawn(one, metric)
        if d.value is not None:
            panel.barh([i], [d.value], height=0.7, **style.bar_look(style.of_kind(one.arm.kind)))
            style.error_bar(panel, i, d.value, d.bounds, flat=True)
    panel.set_yticks(range(len(some)), [one.name for one in some])
    panel.set_ylim(len(some) - 0.5, -0.5)
    panel.set_title(TITLES[metric], loc="left", fontsize=8)
    panel.set_xlabel("at the threshold")


def fall(trend: Trend) -> str:
    """How the first score goes from each multiple to the next, in a few sentences."""
    steps = "; ".join(f"to {one.high:g} {words.difference(one.change)}" for one in trend.steps)
    counts = ", ".join(f"{_count(one.falls)} and {_count(one.rises)}" for one in trend.steps)
    within, start = trend.within, trend.steps[0].low
    return (
        f"First score from each multiple to the next, in points, from {start:g} {steps}. Of {within.monotone.n} directions the mean is lower and higher "
        f"there in {counts}; it rises at no step in {_count(within.monotone)} ({_told(within.monotone, 100)} %). Within a direction: Kendall's τ of "
        f"multiple and score {_told(within.tau, 1)}, variance between multiples that a falling curve explains {_told(within.falling, 100)} %."
    )


def _count(found: Share) -> int:
    return round(found.value * found.n)


def _told(found: Share, by: float) -> str:
    digits = 2 if by == 1 else 1
    span = (
        f"[{by * found.interval.low:.{digits}f}, {by * found.interval.high:.{digits}f}]"
        if found.interval
        else f"({found.no_interval})"
    )
    return f"{by * found.value:.{digits}f} {span}"


def _foot(found: Recorded, counted: Sequence[Counted], trend: Trend | None) -> list[str]:
    about, told = found.about, found.tables["directions"]
    n = ", ".join(f"{one.name} {one.n:,}" + (f" (+{one.missing} missing)" if one.missing else "") for one in counted)
    first = told.iloc[0]
    return [
        f"{found.model}, judge {about['judge']}, scale {about['scale']}; n: {n}.",
        f"Directions {first['set']} ({len(told)} steered, sha256 {first['sha256'][:12]}), after block {first['layers']}; the stream is {first['norm']:.4g} long "
        f"there, thresholds are {told['dose'].min():.2f} to {told['dose'].max():.2f} of that, {told['dose'].median():.2f} in the median.",
        *([fall(trend)] if trend else []),
        words.method(about["confidence"], methods(counted, SHOWN)),
    ]
