"""One look for every figure, readable in grey, and one way to save it: PDF, PNG and a JSON of every number drawn.

Arms differ in lightness and hatching, never in hue alone. The same numbers give the same bytes: no dates, no tool names.
"""

import io
import json
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from esr.show.recorded import anew

WIDTH = 7.0
"""Inches: the text width of the paper."""
LINE = 0.115
"""Inches that a line of the footnote takes."""
SHADES = ("#1b3a5b", "#e8a04c", "#7fb3c8", "#c8553d", "#b9c7a5", "#5f4b66", "#f1dcb1", "#8a8a8a")
HATCHES = ("", "///", "", "xx", "...", "\\\\\\", "", "++")
KINDS = {
    "baseline": 0, "base": 0, "on": 0, "none": 0, "ablated": 1, "detectors": 1, "meta-prompt": 2, "recalibrated": 3, "matched": 4,
    "matched-recalibrated": 5, "uniform": 6, "unsteered": 7, "off": 7,
}  # fmt: skip
"""An arm's look by its kind, the same in every figure."""
PLAIN = 2
"""The look of every other kind: the axis names its arms."""
INK, SOFT, FAINT = "#222222", "#777777", "#bbbbbb"
LOOK: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 160,
}

NAMELESS: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
"""Metadata that is left out."""


@contextmanager
def canvas(rows: int, columns: int, height: float, **grid: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure in the house look with rows × columns axes (always a 2-d array); nothing global is changed."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, height))
        yield figure, figure.subplots(rows, columns, squeeze=False, **grid)


def nothing(title: str, why: str) -> Figure:
    """In place of a figure of what a study has none of."""
    with canvas(1, 1, 1.2) as (figure, axes):
        axes[0, 0].set_axis_off()
        axes[0, 0].text(0.0, 0.5, wrapped(why), transform=axes[0, 0].transAxes, va="center", fontsize=8)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        drawn: Figure = figure
    return drawn


def save(figure: Figure, data: dict[str, Any], files: Sequence[Path]) -> None:
    """As PNG, PDF and the JSON of every number drawn."""
    png, pdf, numbers = files
    for file in (png, pdf):
        anew(file, image(figure, file.suffix[1:]))
    anew(numbers, (json.dumps(_rounded(data), indent=1, sort_keys=True) + "\n").encode())


def image(figure: Figure, kind: str) -> bytes:
    """As `png` or `pdf`."""
    drawn = io.BytesIO()
    with mpl.rc_context(LOOK):
        figure.savefig(drawn, format=kind, metadata=NAMELESS[kind])
    return drawn.getvalue()


def footnote(figure: Figure, text: str) -> None:
    """What n is and how the intervals were made, under the figure."""
    figure.supxlabel(text, fontsize=6.5, color=INK, x=0.01, ha="left")


def wrapped(text: str, width: int = 150) -> str:
    return "\n".join(textwrap.wrap(text, width))


def of_kind(kind: str) -> int:
    """The number of a kind's look."""
    return KINDS.get(kind, PLAIN)


def bar_look(i: int) -> dict[str, Any]:
    return {"color": SHADES[i % len(SHADES)], "hatch": HATCHES[i % len(HATCHES)], "edgecolor": INK, "linewidth": 0.6}


def error_bar(axes: Axes, at: float, value: float, bounds: tuple[float, float] | None, *, flat: bool = False) -> None:
    """An interval around a value; nothing where there is none."""
    if bounds is None:
        return
    arms = [[max(value - bounds[0], 0.0)], [max(bounds[1] - value, 0.0)]]
    x, y, across, along = (value, at, arms, None) if flat else (at, value, None, arms)
    for colour, width in (("white", 2.6), (INK, 0.9)):  # a light casing, so that the bar is seen on a dark one
        axes.errorbar([x], [y], along, across, "none", ecolor=colour, elinewidth=width, capsize=2, capthick=width, zorder=4)


def mark_paper(axes: Axes, at: float, value: float, *, flat: bool = False) -> None:
    """The paper's value beside ours: an open diamond."""
    x, y = (value, at) if flat else (at, value)
    axes.plot(
        [x],
        [y],
        marker="D",
        markersize=4.5,
        markerfacecolor="white",
        markeredgecolor=INK,
        linestyle="none",
        zorder=5,
        clip_on=False,
    )


def _rounded(data: Any) -> Any:
    """Floats to 9 significant digits, so that the last bit of a sum does not make another file."""
    if isinstance(data, float):
        return float(f"{data:.9g}")
    if isinstance(data, dict):
        return {str(key): _rounded(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_rounded(value) for value in data]
    return data
