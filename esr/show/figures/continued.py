"""Continuations from a beginning: what is noticed of off-topic text, and what a prefix does for what follows it."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from esr.count import metrics
from esr.count.metrics import Difference
from esr.show import words
from esr.show.counted import Counted, arms
from esr.show.figures import style
from esr.show.figures.numbers import as_json, drawn, methods
from esr.show.figures.style import FAINT, INK
from esr.show.recorded import Recorded

RESTARTS, SUCCESS, SCORE = "multi_attempt_rate", "improvement_rate", "first_score_mean"
LABELS = {"off": "steering off", "on": "steering on"}
MARKS = ("o", "s", "^", "D")


def detection(found: Recorded, title: str) -> tuple[Figure, dict[str, object]]:
    """How often each condition restarts and how often that succeeds, by where the beginning was cut; what each condition adds to the one
    that it is held against, in pairs."""
    counted = [one for one in arms(found) if one.arm.experiment == found.experiment]
    conditions = {kind: [one for one in counted if one.arm.kind == kind] for kind in dict.fromkeys(one.arm.kind for one in counted)}
    cuts = [name for _, name in sorted({(one.arm.order, _cut(one)) for one in counted})]
    with style.canvas(1, 3, 2.9, width_ratios=[1, 1, 1.1]) as (figure, axes):
        for i, (kind, some) in enumerate(sorted(conditions.items(), key=lambda item: _place(item[0]))):
            for panel, metric in zip(axes[0], (RESTARTS, SUCCESS), strict=False):
                _points(panel, cuts, some, metric, i, len(conditions), kind)
            _pairs(axes[0][2], cuts, some, i, len(conditions))
        for panel, name in zip(
            axes[0], ("Restart rate (%)", "Restarts that succeed (%)", "Restart rate, in pairs (points)"), strict=True
        ):
            panel.set_title(name, loc="left", fontsize=8)
            panel.set_xticks(range(len(cuts)), cuts, fontsize=6.5)
            panel.set_xlabel("beginning cut at (characters)")
        for panel in axes[0][:2]:
            panel.set_ylim(bottom=0)
        if not any(one.estimates[SUCCESS].n for one in counted):
            axes[0][1].text(0.5, 0.5, "nothing restarts", transform=axes[0][1].transAxes, ha="center", color=INK, fontsize=7)
            axes[0][1].set_yticks([])
        axes[0][2].axhline(0, color=FAINT, linewidth=0.8, zorder=0)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=len(conditions))
        style.footnote(figure, "\n".join(style.wrapped(line, 130) for line in _foot(found, counted)))
    return figure, {
        "title": title,
        "about": found.about,
        "arms": [as_json(one, [RESTARTS, SUCCESS], found.model) for one in counted],
    }


def _place(kind: str) -> int:
    known = ("off", "on", "detectors", "matched")
    return known.index(kind) if kind in known else len(known)


def _cut(one: Counted) -> str:
    return one.name.removeprefix(f"{one.arm.kind}-")


def _at(cuts: Sequence[str], one: Counted, i: int, n: int) -> float:
    return cuts.index(_cut(one)) + (i - (n - 1) / 2) * 0.16


def _points(panel: Axes, cuts: Sequence[str], some: Sequence[Counted], metric: str, i: int, n: int, kind: str) -> None:
    label: str | None = LABELS.get(kind, kind)
    for one in some:
        d, x = drawn(one, metric), _at(cuts, one, i, n)
        if d.value is None:
            continue
        style.error_bar(panel, x, d.value, d.bounds)
        panel.plot(
            [x],
            [d.value],
            MARKS[i % 4],
            color=style.SHADES[style.of_kind(kind)],
            markeredgecolor=INK,
            markersize=5,
            zorder=5,
            label=label,
            linestyle="none",
        )
        label = None


def _pairs(panel: Axes, cuts: Sequence[str], some: Sequence[Counted], i: int, n: int) -> None:
    for one in some:
        d, x = one.differences.get(RESTARTS), _at(cuts, one, i, n)
        if d is None or d.value is None or not d.n:
            continue
        bounds = (100 * d.interval.low, 100 * d.interval.high) if d.interval else None
        style.error_bar(panel, x, 100 * d.value, bounds)
        panel.plot(
            [x],
            [100 * d.value],
            MARKS[i % 4],
            color=style.SHADES[style.of_kind(one.arm.kind)],
            markeredgecolor=INK,
            markersize=5,
            zorder=5,
        )


def _foot(found: Recorded, counted: Sequence[Counted]) -> list[str]:
    about = found.about
    cuts = ", ".join(dict.fromkeys(_cut(one) for one in sorted(counted, key=lambda one: one.arm.order)))
    held = {one.arm.kind: one.arm.against.partition("/")[2].rpartition("-")[0] for one in counted if one.arm.against}
    return [
        f"{found.model}, judge {about['judge']}, scale {about['scale']}; n at {cuts}: {_sizes(counted)}.",
        "In pairs of latent, question and seed, at the same cut: " + ", ".join(f"{a} − {b}" for a, b in held.items()) + ". "
        "The continuation alone is graded; one that opens with a restart takes up its beginning.",
        "A point without a bar rests on too few latents for an interval. "
        + words.method(about["confidence"], methods(counted, [RESTARTS, SUCCESS])),
    ]


def _sizes(counted: Sequence[Counted]) -> str:
    by_kind: dict[str, list[str]] = {}
    for one in sorted(counted, key=lambda one: (_place(one.arm.kind), one.arm.order)):
        by_kind.setdefault(one.arm.kind, []).append(f"{one.n:,}" + (f" (+{one.missing} missing)" if one.missing else ""))
    return "; ".join(f"{kind} {', '.join(sizes)}" for kind, sizes in by_kind.items())


PAIRS = (("own", "none"), ("on-topic", "none"), ("shuffled", "none"), ("own", "on-topic"), ("on-topic", "shuffled"))
"""What is held against what after a prefix."""


def matched(found: Recorded, title: str) -> tuple[Figure, dict[str, object]]:
    """The score of what follows each prefix, and what one prefix adds to another in pairs."""
    counted = sorted((one for one in arms(found) if one.arm.experiment == found.experiment), key=lambda one: one.arm.order)
    held = differences(counted, found.about["confidence"])
    with style.canvas(1, 2, 2.6) as (figure, axes):
        for i, one in enumerate(counted):
            d = drawn(one, SCORE)
            if d.value is not None:
                axes[0][0].barh([i], [d.value], height=0.7, **style.bar_look(style.of_kind(one.arm.kind)))
                style.error_bar(axes[0][0], i, d.value, d.bounds, flat=True)
        axes[0][0].set_yticks(range(len(counted)), [one.name for one in counted])
        axes[0][0].set_title("Score of the continuation's first attempt", loc="left", fontsize=8)
        for i, gap in enumerate(held.values()):
            if gap.value is not None:
                style.error_bar(
                    axes[0][1], i, gap.value, (gap.interval.low, gap.interval.high) if gap.interval else None, flat=True
                )
                axes[0][1].plot([gap.value], [i], "o", color=INK, markersize=4, zorder=5)
        axes[0][1].axvline(0, color=FAINT, linewidth=0.8, zorder=0)
        axes[0][1].set_yticks(range(len(held)), list(held))
        axes[0][1].set_ylim(-0.5, len(held) - 0.5)
        axes[0][1].set_title("Differences in pairs (points)", loc="left", fontsize=8)
        for panel in axes[0]:
            panel.invert_yaxis()
            panel.tick_params(axis="y", length=0)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        style.footnote(figure, "\n".join(style.wrapped(line, 130) for line in _said(found, counted, held)))
    told = {name: {"value": d.value, "bounds": d.interval, "pairs": d.n, "p": d.p, "method": d.method} for name, d in held.items()}
    return figure, {
        "title": title,
        "about": found.about,
        "arms": [as_json(one, [SCORE], found.model) for one in counted],
        "differences": told,
    }


def differences(counted: Sequence[Counted], confidence: float) -> dict[str, Difference]:
    """Of the first scores, by what is held against what; where both arms were run."""
    named = {one.name: one for one in counted}
    return {
        f"{a} − {b}": metrics.differences(named[a].rows, named[b].rows, confidence=confidence)[SCORE]
        for a, b in PAIRS
        if a in named and b in named
    }


def _said(found: Recorded, counted: Sequence[Counted], held: Mapping[str, Difference]) -> list[str]:
    about = found.about
    n = ", ".join(f"{one.name} {one.n:,}" + (f" (+{one.missing} missing)" if one.missing else "") for one in counted)
    return [
        f"{found.model}, judge {about['judge']}, scale {about['scale']}; n: {n}. Steering acts on the prefix too, but for the unsteered answers.",
        "In pairs of latent, question and seed: "
        + "; ".join(f"{name} {words.difference(d)} ({d.n:,} pairs)" for name, d in held.items())
        + ".",
        words.method(about["confidence"], methods(counted, [SCORE])),
    ]
