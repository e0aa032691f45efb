"""Episodes token by token: one whole with its text, several small, and when what is watched leaves its level (figure 6)."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from esr.show.figures import style
from esr.show.figures.episodes import NAMES
from esr.show.recorded import Recorded
from esr.show.trace_table import DISTRACTOR

Drawn = tuple[Figure, dict[str, Any]]
TINTS = {"prompt": "#e9e9e9", "off-topic": "#f6d9cf", "correction": "#fdf0b8", "on-topic": "#d7e8d4", "": "#ffffff"}
WORDS = {"prompt": "prompt", "off-topic": "off topic", "correction": "correction", "on-topic": "on topic"}
TITLES = {**{kind: f"{name} (sum)" for kind, name in NAMES.items()}, DISTRACTOR: "Distractor"}
LINE = 118
"""Characters of a line of text."""


def trace(found: Recorded, title: str) -> Drawn:
    """Regions, then a row for each list and the distractor, raw and smoothed; the reply itself underneath."""
    rows = found.tables["tokens"]
    rows = rows[rows["place"] == rows["place"].min()]
    names = _series(rows)
    lines = _lines(rows)
    text = 0.16 * len(lines) + 0.1
    ratios = [0.18, *(0.8 for _ in names), text]
    with style.canvas(len(ratios), 1, 1.2 + sum(ratios), gridspec_kw={"height_ratios": ratios}) as (figure, axes):
        column = axes[:, 0]
        _strip(column[0], rows)
        for panel, name in zip(column[1:-1], names, strict=True):
            _shade(panel, rows)
            panel.plot(rows["token"], rows[name], color=style.FAINT, linewidth=0.8, label="raw")
            panel.plot(rows["token"], rows[f"{name} smoothed"], color=style.SHADES[0], linewidth=1.2, label="smoothed")
            panel.set_xlim(-0.5, rows["token"].max() + 0.5)
            panel.set_ylim(0, _top(rows, name))
            panel.set_title(TITLES.get(name, name), loc="left", fontsize=7.5)
            panel.set_ylabel("activation", fontsize=7)
            panel.tick_params(labelbottom=name == names[-1])
            if not rows[name].any():
                panel.set_ylim(0, 1)
                panel.set_yticks([0])
                panel.text(0.99, 0.5, "never active", transform=panel.transAxes, ha="right", va="center", fontsize=7)
        column[1].legend(loc="upper right", ncols=2)
        column[-2].set_xlabel("token of prompt and reply")
        _text(column[-1], lines)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        style.footnote(figure, _foot(found, rows))
    return figure, {"title": title, "about": found.about, "series": names, "tokens": _plain(rows)}


def multiples(found: Recorded, title: str) -> Drawn:
    """A panel an episode: the sum of the detectors and of what backtracks, smoothed, each in units of its largest value there."""
    rows = found.tables["tokens"]
    places = sorted(rows["place"].unique())
    height = -(-len(places) // 2)
    data: dict[str, Any] = {"title": title, "about": found.about, "episodes": []}
    names = [name for name in _series(rows) if name != DISTRACTOR]
    with style.canvas(height, 2, 0.9 + 1.25 * height) as (figure, axes):
        for panel, place in zip(axes.flat, places, strict=False):
            one = rows[rows["place"] == place]
            _shade(panel, one)
            for i, name in enumerate(names):
                values = one[f"{name} smoothed"].to_numpy()
                top = _top(one, name) or values.max() or 1.0
                panel.plot(
                    one["token"],
                    values / top,
                    ("-", "--", ":")[i % 3],
                    color=style.SHADES[(0, 3, 5)[i % 3]],
                    linewidth=1.0,
                    label=f"{NAMES.get(name, name)}",
                )
                data["episodes"].append(
                    {"trial_id": str(one["trial_id"].iloc[0]), "series": name, "largest": float(top), "values": values.tolist()}
                )
            first = one.iloc[0]
            panel.set_title(
                f"{first['label']}: {first['first_score']:.0f} → {first['last_score']:.0f}"[:60], loc="left", fontsize=6.5
            )
            panel.set_yticks([0, 1])
            panel.set_ylim(-0.05, 1.1)
        for panel in list(axes.flat)[len(places) :]:
            panel.set_axis_off()
        for panel in axes[:, 0]:
            panel.set_ylabel("of its largest", fontsize=7)
        for panel in axes[-1]:
            panel.set_xlabel("token of prompt and reply", fontsize=7)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=len(names))
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        tints = "From left to right: prompt (grey), off topic (red), correction (yellow), on topic (green)."
        style.footnote(figure, style.wrapped(f"{found.model}, judge {found.about['judge']}; {len(places)} episodes, one a distractor. {tints} Sums over each list, smoothed, as a share of the largest value there. Titles: the distractor's label; scores of the first and the last attempt."))  # fmt: skip
    return figure, data


def onsets(found: Recorded, title: str) -> Drawn:
    """For each list, how many tokens before the correction an episode's onset lies; and how many episodes have none."""
    rows, timing = found.tables["onsets"], found.tables["timing"]
    steering = "on" if "on" in set(rows["steering"]) else "off"
    rows, timing = rows[rows["steering"] == steering], timing[(timing["steering"] == steering) & (timing["latent"] == -1)]
    lists = [kind for kind in NAMES if kind in set(rows["list"])]
    data: dict[str, Any] = {"title": title, "about": found.about, "steering": steering, "lists": {}}
    if not lists:
        return style.nothing(
            title, f"{found.model} never comes back: there is no correction before which anything could begin"
        ), data
    with style.canvas(1, len(lists), 2.6, sharey=True) as (figure, axes):
        for panel, kind in zip(axes[0], lists, strict=True):
            some, told = rows[rows["list"] == kind], timing[timing["list"] == kind].iloc[0]
            known = some["onset"].dropna().to_numpy()
            edges = np.arange(0.5, max(some["looked_at"].max(), 1) + 1.5)
            panel.hist(known, bins=edges, color=style.SHADES[0])
            panel.invert_xaxis()
            never = int(some["onset"].isna().sum())
            panel.set_title(f"{NAMES[kind]}", loc="left", fontsize=8)
            lines = [
                f"no onset: {never} of {len(some)} ({_percent(told)})",
                f"mean of the others: {_span(told, 'onset')} tokens",
                _level(told),
            ]
            panel.text(0.02, 0.97, "\n".join(lines), transform=panel.transAxes, va="top", fontsize=6.5)
            panel.set_xlabel("tokens before the correction")
            panel.yaxis.set_major_locator(MaxNLocator(integer=True))
            data["lists"][kind] = {
                "onsets": known.tolist(),
                "never": never,
                "n": len(some),
                "told": {str(k): _number(v) for k, v in told.items()},
            }
        axes[0, 0].set_ylabel("episodes")
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        style.footnote(figure, style.wrapped(
            f"{found.model}, judge {found.about['judge']}, scale {found.about['scale']}. An onset is where the mean of the list stays above a level. So few of the "
            f"restart-free steered replies rise above it at the same places as exp09.error of params.yaml says. In brackets: 95 % intervals over distractors and questions; a mean without one rests on too few distractors."
        ))  # fmt: skip
    return figure, data


OUTSIZED = 5.0
"""Times the reply's largest value: what the prompt has above it is beyond the axis. The first token of a sequence is such."""


def _top(rows: pd.DataFrame, name: str) -> float | None:
    """Where the axis ends, if the prompt would hide the reply."""
    inside = float(rows.loc[rows["region"] != "prompt", name].max())
    return 1.1 * inside if 0 < OUTSIZED * inside < rows[name].max() else None


def _series(rows: pd.DataFrame) -> list[str]:
    return [name for name in (*NAMES, DISTRACTOR) if name in rows.columns and rows[name].notna().any()]


def _runs(rows: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Stretches of one region: kind, first and last token."""
    out: list[tuple[str, int, int]] = []
    for token, kind in zip(rows["token"], rows["region"], strict=True):
        if out and out[-1][0] == kind:
            out[-1] = (kind, out[-1][1], int(token))
        else:
            out.append((str(kind), int(token), int(token)))
    return out


def _shade(panel: Axes, rows: pd.DataFrame) -> None:
    for kind, low, high in _runs(rows):
        panel.axvspan(low - 0.5, high + 0.5, color=TINTS.get(kind, "#ffffff"), linewidth=0, zorder=0)


def _strip(panel: Axes, rows: pd.DataFrame) -> None:
    _shade(panel, rows)
    for kind, low, high in _runs(rows):
        if kind in WORDS:
            panel.text((low + high) / 2, 0.5, WORDS[kind], ha="center", va="center", fontsize=6, clip_on=True)
    panel.set_xlim(-0.5, rows["token"].max() + 0.5)
    panel.set_ylim(0, 1)
    panel.set_axis_off()


Line = tuple[int, list[tuple[str, str]]]


def _lines(rows: pd.DataFrame) -> list[Line]:
    """The reply broken into lines at its tokens: the first token's number, and each token's text with its region."""
    out: list[Line] = []
    width = LINE
    for row in rows[rows["in_reply"] >= 0].to_dict("records"):
        text = str(row["text"]).replace("\n", "⏎")
        if width + len(text) > LINE:
            out.append((int(row["token"]), []))
            width = 0
        out[-1][1].append((text, str(row["region"])))
        width += len(text)
    return out


def _text(panel: Axes, lines: list[Line]) -> None:
    panel.set_xlim(0, LINE + 6)
    panel.set_ylim(len(lines), 0)
    panel.set_axis_off()
    for i, (number, pieces) in enumerate(lines):
        panel.text(3.5, i + 0.5, str(number), fontsize=5, color="#777777", ha="right", va="center", family="DejaVu Sans Mono")
        at = 4.5
        for text, region in pieces:
            panel.axvspan(
                at, at + len(text), 1 - (i + 1) / len(lines), 1 - i / len(lines), color=TINTS.get(region, "#ffffff"), linewidth=0
            )
            for k, character in enumerate(text):
                panel.text(
                    at + k + 0.5,
                    i + 0.5,
                    character.replace("$", r"\$"),
                    fontsize=5.6,
                    ha="center",
                    va="center",
                    family="DejaVu Sans Mono",
                )
            at += len(text)


def _foot(found: Recorded, rows: pd.DataFrame) -> str:
    one = rows.iloc[0]
    asked = f"“{one['question']}”, distractor {one['latent']} ({one['label']}), boost {one['boost']:.3g}, seed {one['seed']}"
    scores = "" if pd.isna(one["first_score"]) else f", scores {one['first_score']:.0f} → {one['last_score']:.0f}"
    return style.wrapped(
        f"{found.model}, judge {found.about['judge']}; trial {one['trial_id'][:12]}: {asked}{scores}. Numbers left of the text: the line's first token."
        + (" Where the prompt's first tokens would hide the reply, the axis ends at the reply's largest value." if any(_top(rows, name) for name in _series(rows)) else "")
    )  # fmt: skip


def _level(told: "pd.Series[Any]") -> str:
    return "" if pd.isna(told["level"]) else f"level {told['level']:.3g}"


def _percent(told: "pd.Series[Any]") -> str:
    if pd.isna(told["never_value"]):
        return "–"
    span = "" if pd.isna(told["never_low"]) else f" [{100 * told['never_low']:.0f}, {100 * told['never_high']:.0f}]"
    return f"{100 * told['never_value']:.0f} %{span}"


def _span(told: "pd.Series[Any]", name: str) -> str:
    if pd.isna(told[f"{name}_value"]):
        return "–"
    low, high = told[f"{name}_low"], told[f"{name}_high"]
    return f"{told[f'{name}_value']:.1f}" + ("" if pd.isna(low) else f" [{low:.1f}, {high:.1f}]")


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value.item() if isinstance(value, np.generic) else value


def _plain(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): _number(value) for key, value in row.items()} for row in rows.to_dict("records")]
