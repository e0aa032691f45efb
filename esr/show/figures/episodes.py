"""What latents do around the first word of a correction, and in its regions beside three controls (figures A.15 and A.16)."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from esr.count import contrasts
from esr.show.figures import style
from esr.show.recorded import Recorded

Drawn = tuple[Figure, dict[str, Any]]
NAMES = {"detectors": "Detectors", "by-label": "Backtracking, by label", "by-contrast": "Backtracking, by contrast"}
REPLIES = {
    "episodes": ("episodes", style.SHADES[0], "-"),
    "restart-free": ("steered, no restart", style.SHADES[3], "--"),
    "unsteered": ("unsteered", style.SHADES[7], ":"),
}
REGIONS = {
    "off-topic": "off topic", "correction": "correction", "on-topic": "on topic", "restart-free": "steered,\nno restart", "unsteered": "unsteered",
}  # fmt: skip
FEWEST = 10
"""Replies behind a point below which a curve is not drawn."""


def curves(found: Recorded, title: str) -> Drawn:
    """A panel a list: the mean of its latents token by token, in episodes and at the same places of both controls."""
    rows, steering = _first(found.tables["curves"])
    lists = [kind for kind in NAMES if kind in set(rows["list"])]
    data: dict[str, Any] = {"title": title, "about": found.about, "steering": steering, "lists": {}}
    if not lists:
        return style.nothing(title, f"{found.model} never comes back: there is no correction to lay replies side by side at"), data
    with style.canvas(len(lists), 1, 1.1 + 1.7 * len(lists), sharex=True) as (figure, axes):
        for panel, kind in zip(axes[:, 0], lists, strict=True):
            data["lists"][kind] = {
                name: _curve(panel, rows[(rows["list"] == kind) & (rows["reply"] == name)], name) for name in REPLIES
            }
            panel.axvline(0, color=style.INK, linewidth=0.8)
            panel.set_title(f"{NAMES[kind]}: {_about(found, kind, steering)}", loc="left", fontsize=8)
            panel.set_ylim(bottom=0)
        axes[0, 0].legend(loc="upper right")
        axes[-1, 0].set_xlabel("tokens from the first word of the correction")
        for panel in axes[:, 0]:
            panel.set_ylabel("mean activation")
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        style.footnote(figure, _foot(found, rows, steering, f"A curve ends where fewer than {FEWEST} replies have the token."))
    return figure, data


def _curve(panel: Axes, rows: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    label, colour, line = REPLIES[name]
    rows = rows[rows["n"] >= FEWEST]
    x = rows["token"].to_numpy()
    panel.plot(x, rows["value"], line, color=colour, linewidth=1.2, label=label)
    told = rows.dropna(subset=["low", "high"])
    panel.fill_between(told["token"], told["low"], told["high"], color=colour, alpha=0.18, linewidth=0)
    return _plain(rows[["token", "value", "low", "high", "n"]])


def regions(found: Recorded, title: str) -> Drawn:
    """A panel a list: its mean over each region of the episodes and over both controls, with intervals over distractors and questions."""
    rows, steering = _first(found.tables["regions"])
    lists = [kind for kind in NAMES if kind in set(rows["list"])]
    data: dict[str, Any] = {"title": title, "about": found.about, "steering": steering, "lists": {}}
    with style.canvas(1, len(lists), 3.0) as (figure, axes):
        for panel, kind in zip(axes[0], lists, strict=True):
            some, drawn = rows[rows["list"] == kind], []
            for i, region in enumerate(REGIONS):
                told = contrasts.mean(some[region], some["distractor"], some["question"], confidence=found.about["confidence"])
                drawn.append(
                    {"region": region, "value": told.value, "bounds": told.interval, "n": told.n, "no_interval": told.no_interval}
                )
                if told.value is None:
                    continue
                panel.bar(i, told.value, width=0.7, **style.bar_look({"restart-free": 3, "unsteered": 7}.get(region, 0)))
                style.error_bar(panel, i, told.value, told.interval)
            sizes = [f"{name}\nn {one['n']}" for name, one in zip(REGIONS.values(), drawn, strict=True)]
            panel.set_xticks(range(len(REGIONS)), sizes, fontsize=6.5)
            panel.set_ylim(bottom=0)
            panel.set_title(NAMES[kind], loc="left", fontsize=8)
            data["lists"][kind] = drawn
        axes[0, 0].set_ylabel("mean activation")
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        style.footnote(figure, _foot(found, rows, steering, "Right, hatched: the controls; the restart-free reply as far as the episode is off topic."))  # fmt: skip
    return figure, data


def _first(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """What was read under the first protocol."""
    steering = "on" if "on" in set(rows["steering"]) else "off"
    return rows[rows["steering"] == steering], steering


def _about(found: Recorded, kind: str, steering: str) -> str:
    """What the list's timing says, in words."""
    rows = found.tables["timing"]
    rows = rows[(rows["list"] == kind) & (rows["latent"] == -1) & (rows["steering"] == steering)]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    said = {
        "leads": "lead restarts",
        "follows": "follow the text, no more before a restart",
        "falls": "fall",
        "neither": "neither lead nor follow",
    }
    label = "1 latent" if row["label"] == "1 latents" else row["label"]
    return f"{label}, {said.get(row['kind'], 'too few distractors to tell')}"


def _foot(found: Recorded, rows: pd.DataFrame, steering: str, more: str) -> str:
    regions_ = found.tables["regions"]
    returning = regions_["on-topic"].notna()
    n, distractors = regions_[returning]["trial_id"].nunique(), regions_["distractor"].nunique()
    astray = regions_[~returning]["trial_id"].nunique()
    told = {"on": "read under the trial's own steering", "off": "read without steering"}[steering]
    beside = f" and {astray} replies that stay off topic" if astray else ""
    about, half = found.about, "by-contrast" in set(rows["list"])
    return style.wrapped(
        f"{found.model}, judge {about['judge']}, scale {about['scale']}; {n} episodes{beside} under {distractors} distractors, {told}. "
        f"{100 * about['confidence']:g} % intervals, {contrasts.METHOD}. {more}"
        + (" Latents by contrast were found on the episodes of every other distractor, which are among these." if half else "")
    )


def _plain(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(key): None if isinstance(value, float) and np.isnan(value) else value for key, value in row.items()}
        for row in rows.to_dict("records")
    ]
