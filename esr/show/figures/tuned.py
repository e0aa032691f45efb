"""Rates by the share of masked examples in fine-tuning, with the base beside (figure 7), and told against fine-tuned (its companion)."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from esr.count import trainings
from esr.count.trainings import Pooled
from esr.show import words
from esr.show.counted import Counted, arms
from esr.show.figures import style
from esr.show.figures.numbers import TITLES, as_json, drawn, methods
from esr.show.recorded import Recorded

PANELS = ["multi_attempt_rate", "improvement_rate", "esr_rate"]
ALARMS = "multi_attempt_rate"
ASIDE = 1.5
"""How far beside its ratio a training under live steering is drawn."""
HALF = 50.0
"""The ratio that stands for fine-tuning beside a meta-prompt."""


def pooled(counted: list[Counted], kind: str) -> dict[float, pd.DataFrame]:
    """All trainings' trials of each ratio, the training beside them."""
    found: dict[float, list[pd.DataFrame]] = {}
    for one in counted:
        if one.arm.kind == kind and one.arm.level:
            found.setdefault(one.arm.level, []).append(one.rows.assign(**{trainings.TRAINING: one.arm.order}))
    return {ratio: pd.concat(some, ignore_index=True) for ratio, some in sorted(found.items())}


def curves(found: Recorded, title: str) -> tuple[Figure, dict[str, object]]:
    """Three panels over the ratio, and a fourth: second attempts where nothing steers."""
    counted, confidence = arms(found), found.about["confidence"]
    named = {one.name: one for one in counted}
    steered, quiet = pooled(counted, "tuned"), pooled(counted, "unsteered")
    live, live_quiet = pooled(counted, "tuned-live"), pooled(counted, "unsteered-live")
    data: dict[str, Any] = {"title": title, "about": found.about, "arms": [as_json(one, PANELS, found.model) for one in counted]}
    with style.canvas(4, 1, 6.4, sharex=True) as (figure, axes):
        for panel, metric in zip(axes[:3, 0], PANELS, strict=True):
            rates = {ratio: trainings.rate(rows, metric, confidence=confidence) for ratio, rows in steered.items()}
            _curve(panel, rates, named.get("base"), metric)
            panel.set_title(TITLES[metric], loc="left")
            data[metric] = {f"{ratio:g}": asdict(one) for ratio, one in rates.items()}
            data[f"{metric}_live"] = _beside(panel, live, metric, confidence)
        alarms = {ratio: trainings.rate(rows, ALARMS, confidence=confidence) for ratio, rows in quiet.items()}
        _curve(axes[3, 0], alarms, named.get("base-unsteered"), ALARMS)
        data["false_alarms_live"] = _beside(axes[3, 0], live_quiet, ALARMS, confidence)
        axes[3, 0].set_title("False alarms: multi-attempt rate without steering (%)", loc="left")
        axes[3, 0].set_xlim(0, 100)
        axes[3, 0].set_xlabel("masked self-correction examples in fine-tuning (%)")
        data["false_alarms"] = {f"{ratio:g}": asdict(one) for ratio, one in alarms.items()}
        data["above_base"] = _above(steered, named.get("base"), confidence)
        data["above_base_live"] = _above(live, named.get("base"), confidence)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        style.footnote(figure, _foot(found, counted, data["above_base"]))
    return figure, data


def _above(steered: Mapping[float, pd.DataFrame], base: Counted | None, confidence: float) -> dict[str, dict[str, Any]]:
    """In pairs of latent, question and seed."""
    if base is None:
        return {}
    return {
        metric: {
            f"{ratio:g}": asdict(trainings.above(rows, base.rows, metric, confidence=confidence)) for ratio, rows in steered.items()
        }
        for metric in ("multi_attempt_rate", "esr_rate")
    }


def _curve(panel: Axes, rates: Mapping[float, Pooled], base: Counted | None, metric: str) -> None:
    by = words.scale(metric)
    known = [(ratio, one) for ratio, one in rates.items() if one.value is not None]
    panel.plot(
        [ratio for ratio, _ in known], [by * (one.value or 0.0) for _, one in known], "-", color=style.SHADES[1], linewidth=1.0
    )
    for ratio, one in known:
        if one.interval is not None:
            panel.plot([ratio, ratio], [by * one.interval.low, by * one.interval.high], color=style.FAINT, linewidth=1.6, zorder=1)
        panel.plot([ratio], [by * (one.value or 0.0)], "o", color=style.SHADES[0], markersize=4, zorder=3, clip_on=False)
    level = drawn(base, metric).value if base is not None else None
    if level is not None:
        panel.axhline(level, color=style.INK, linewidth=0.8, linestyle="--", zorder=0)
    panel.set_ylim(bottom=0)


def _beside(panel: Axes, live: Mapping[float, pd.DataFrame], metric: str, confidence: float) -> dict[str, dict[str, Any]]:
    """What was trained under live steering, an open mark to the right of its ratio."""
    by, rates = words.scale(metric), {ratio: trainings.rate(rows, metric, confidence=confidence) for ratio, rows in live.items()}
    for ratio, one in rates.items():
        if one.interval is not None:
            panel.plot(
                [ratio + ASIDE] * 2, [by * one.interval.low, by * one.interval.high], color=style.FAINT, linewidth=1.6, zorder=1
            )
        if one.value is not None:
            panel.plot([ratio + ASIDE], [by * one.value], "D", color=style.INK, markersize=4, markerfacecolor="white", zorder=3)
    return {f"{ratio:g}": asdict(one) for ratio, one in rates.items()}


def _foot(found: Recorded, counted: list[Counted], above: Mapping[str, Mapping[str, Any]]) -> str:
    about = found.about
    tuned = [one for one in counted if one.arm.kind == "tuned"]
    seeds = len({one.arm.order for one in tuned})
    n = [one.n for one in tuned] or [0]
    base = next((one.n for one in counted if one.name == "base"), 0)
    told = [
        f"{found.model}, judge {about['judge']}, scale {about['scale']}; {len(tuned)} checkpoint{'s' * (len(tuned) != 1)} of {seeds} training{'s' * (seeds != 1)} a ratio, "
        f"n {min(n)}" + (f" to {max(n)}" if max(n) > min(n) else "") + f" each; base n {base}, dashed."
    ]
    held = above.get("multi_attempt_rate", {})
    parts = [f"{ratio} %: {_points(one)}" for ratio, one in held.items() if one["value"] is not None]
    if parts:
        told.append("Multi-attempt rate minus base in pairs of latent, question and seed, points: " + "; ".join(parts) + ".")
    lived = [one for one in counted if one.arm.kind == "tuned-live"]
    if lived:
        told.append(f"Open: trained under live steering, n {min(one.n for one in lived)} each.")
    percent = f"{100 * about['confidence']:g}"
    told.append(
        f"Bars: {percent} % intervals over latents × questions and, where there are several, trainings; none where fewer than ten latents tell."
    )
    return "\n".join(style.wrapped(line) for line in told)


def _points(one: Mapping[str, Any]) -> str:
    value = f"{100 * one['value']:+.1f}"
    return value + (f" [{100 * one['interval'][0]:.1f}, {100 * one['interval'][1]:.1f}]" if one["interval"] else "")


def companions(found: Recorded, title: str) -> tuple[Figure, dict[str, object]]:
    """ESR rate and multi-attempt rate of the base, of the base told to watch itself, and of the model fine-tuned at half."""
    counted, confidence = arms(found), found.about["confidence"]
    named, steered = {one.name: one for one in counted}, pooled(counted, "tuned")
    half = min(steered, key=lambda ratio: abs(ratio - HALF), default=None)
    shown = ["base", "self_monitor"]
    labels = ["base", "told to watch itself"] + ([] if half is None else [f"fine-tuned, {half:g} %"])
    data: dict[str, Any] = {"title": title, "about": found.about, "ratio": half}
    with style.canvas(1, 2, 2.9) as (figure, axes):
        for panel, metric in zip(axes[0], ("esr_rate", "multi_attempt_rate"), strict=True):
            by, bars = words.scale(metric), []
            for name in shown:
                d = drawn(named[name], metric) if name in named else None
                bars.append((d.value, d.bounds) if d else (None, None))
            if half is not None:
                one = trainings.rate(steered[half], metric, confidence=confidence)
                span = (by * one.interval.low, by * one.interval.high) if one.interval else None
                bars.append((None if one.value is None else by * one.value, span))
            for i, (value, bounds) in enumerate(bars):
                if value is not None:
                    panel.bar(
                        [i], [value], width=0.7, **style.bar_look((style.of_kind("base"), style.of_kind("meta-prompt"), 5)[i])
                    )
                    style.error_bar(panel, i, value, bounds)
            panel.set_title(TITLES[metric], loc="left")
            panel.set_xticks(np.arange(len(labels)), labels)
            panel.set_ylim(bottom=0)
            data[metric] = [
                {"bar": label, "value": value, "bounds": bounds} for label, (value, bounds) in zip(labels, bars, strict=True)
            ]
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        n = ", ".join(
            f"{one.name} {one.n:,}" for one in counted if one.name in shown or (one.arm.kind == "tuned" and one.arm.level == half)
        )
        about = found.about
        lines = [
            f"{found.model}, judge {about['judge']}, scale {about['scale']}; n: {n}.",
            words.method(confidence, methods(counted, PANELS)),
        ]
        style.footnote(figure, "\n".join(style.wrapped(line) for line in lines))
    return figure, data
