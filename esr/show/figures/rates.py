"""Bars of arms side by side: first-attempt score, multi-attempt rate, ESR rate (figures 4 and 5, A.3.1, A.3.3)."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from esr.show import words
from esr.show.counted import Counted, arms
from esr.show.figures import style
from esr.show.figures.numbers import TITLES, as_json, drawn, methods, paper
from esr.show.recorded import Recorded

PANELS = ["first_score_mean", "multi_attempt_rate", "esr_rate"]
BASELINE = "baseline"


def panels(found: Recorded, title: str) -> tuple[Figure, dict[str, object]]:
    """Three panels, a bar for each arm; counts underneath, the paper's values as diamonds."""
    counted = arms(found)
    with style.canvas(1, 3, 2.4 + 0.12 * max(len(name) for name in names(counted)) * (len(counted) > 3)) as (figure, axes):
        for panel, metric in zip(axes[0], PANELS, strict=True):
            bars(panel, counted, metric, found.model)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        style.footnote(figure, foot(found, counted))
    return figure, {"title": title, "about": found.about, "arms": [as_json(arm, PANELS, found.model) for arm in counted]}


def bars(panel: Axes, counted: Sequence[Counted], metric: str, model: str) -> None:
    top = 0.0
    for i, arm in enumerate(counted):
        d = drawn(arm, metric)
        if d.value is None:
            panel.text(i, 0, "none", ha="center", va="bottom", fontsize=6)
            continue
        panel.bar([i], [d.value], width=0.72, **style.bar_look(look(arm, i)))
        style.error_bar(panel, i, d.value, d.bounds)
        ours = paper(arm.arm, model, metric)
        if ours is not None:
            style.mark_paper(panel, i + 0.22, ours)
        top = max(top, d.value, d.bounds[1] if d.bounds else 0.0, ours or 0.0)
    panel.set_title(TITLES[metric], loc="left")
    panel.set_ylim(0, top * 1.08 if top else 1)
    panel.set_xticks(range(len(counted)), [_under(arm, metric, name) for arm, name in zip(counted, names(counted), strict=True)])
    if len(counted) > 3:
        panel.tick_params(axis="x", labelrotation=90, labelsize=6.5)


def look(arm: Counted, i: int) -> int:
    """Baseline plain dark, sets of one kind alike, everything else by its place."""
    kinds = {"baseline": 0, "ablated": 1, "matched": 2, "uniform": 4, "unsteered": 2}
    return kinds.get(arm.arm.kind, 1 + (i - 1) % 7)


def names(counted: Sequence[Counted]) -> list[str]:
    return [arm.name.replace("_", " ") for arm in counted]


def _under(arm: Counted, metric: str, name: str) -> str:
    d = drawn(arm, metric)
    count = f"({d.k}/{d.n})" if d.k is not None else f"(n {d.n})"
    return f"{name}\n{count}"


def foot(found: Recorded, counted: Sequence[Counted]) -> str:
    """n, missing, method, and the paired difference of the ESR rate to the baseline."""
    about = found.about
    n = ", ".join(f"{arm.name} {arm.n:,}" + (f" (+{arm.missing} missing)" if arm.missing else "") for arm in counted[:10])
    lines = [
        f"{found.model}, judge {about['judge']}, scale {about['scale']}; n: {n}.",
        words.method(about["confidence"], methods(counted, PANELS)),
    ]
    paired = []
    for arm in counted[:9]:
        d = arm.differences.get("esr_rate")
        if d and d.value is not None and d.n:
            paired.append(f"{arm.name} {words.difference(d)}" + (f" (p {d.p:.2g})" if d.p is not None else ""))
    if paired:
        lines.append("ESR rate minus baseline in pairs of latent, question and seed, points: " + "; ".join(paired) + ".")
    if any(paper(a.arm, found.model, m) is not None for a in counted for m in PANELS):
        lines.append("Diamonds: the paper.")
    return "\n".join(style.wrapped(line) for line in lines)


def by_model(found: Sequence[Recorded], variant: str, title: str) -> tuple[Figure, dict[str, object]]:
    """Models side by side, small to large, baseline hatched and the variant solid (figure 4)."""
    counted = {r.model: {arm.name: arm for arm in arms(r)} for r in found}
    with style.canvas(1, 3, 2.8) as (figure, axes):
        for panel, metric in zip(axes[0], PANELS, strict=True):
            for i, (model, named) in enumerate(counted.items()):
                for offset, name, shade in ((-0.2, BASELINE, 1), (0.2, variant, 0)):
                    if name in named:
                        _one(panel, i + offset, named[name], metric, model, shade)
            panel.set_title(TITLES[metric], loc="left")
            panel.set_xticks(range(len(counted)), list(counted))
            panel.set_ylim(bottom=0)
        handles = [Patch(facecolor=style.SHADES[i], hatch=style.HATCHES[i], edgecolor=style.INK) for i in (1, 0)]
        axes[0][0].legend(handles, [BASELINE, variant.replace("_", " ")], loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        lines = [
            f"{r.model}: n {', '.join(f'{a.name} {a.n:,}' for a in counted[r.model].values() if a.name in (BASELINE, variant))}"
            for r in found
        ]
        about = found[0].about
        drawn_by = methods([a for named in counted.values() for a in named.values()], PANELS)
        style.footnote(figure, "\n".join([style.wrapped("; ".join(lines) + "."), words.method(about["confidence"], drawn_by)]))
    data = {r.model: [as_json(arm, PANELS, r.model) for arm in counted[r.model].values()] for r in found}
    return figure, {"title": title, "variant": variant, "models": data}


def _one(panel: Axes, at: float, arm: Counted, metric: str, model: str, shade: int) -> None:
    d = drawn(arm, metric)
    if d.value is None:
        return
    panel.bar([at], [d.value], width=0.38, **style.bar_look(shade))
    style.error_bar(panel, at, d.value, d.bounds)
    ours = paper(arm.arm, model, metric)
    if ours is not None:
        style.mark_paper(panel, at, ours)
