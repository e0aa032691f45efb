"""Bars of arms side by side: first-attempt score, multi-attempt rate, ESR rate (figures 4 and 5, A.3.1, A.3.3)."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from esr.show import audited, words
from esr.show.counted import Counted, arms
from esr.show.figures import style
from esr.show.figures.numbers import TITLES, as_json, drawn, methods, paper
from esr.show.recorded import Recorded

PANELS = ["first_score_mean", "multi_attempt_rate", "esr_rate"]
BASELINE = "baseline"
DIFFERENCE = "multi_attempt_rate"


def panels(found: Recorded, title: str) -> tuple[Figure, dict[str, object]]:
    """A line an arm: first score, the two rates, and what each arm takes off or adds in pairs; the paper's values as diamonds."""
    counted = arms(found)
    said = foot(found, counted)
    height = 0.75 + 0.2 * len(counted) + style.LINE * (said.count("\n") + 1)
    with style.canvas(1, 4, height, width_ratios=[1, 1, 1, 1.15], sharey=True) as (figure, axes):
        lines(axes[0], counted, found.model)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        style.footnote(figure, said)
    return figure, {"title": title, "about": found.about, "arms": [as_json(arm, PANELS, found.model) for arm in counted]}


def lines(axes: Sequence[Axes], counted: Sequence[Counted], model: str) -> None:
    """The arms from top to bottom over three panels of bars and one of differences."""
    for panel, metric in zip(axes, PANELS, strict=False):
        bars(panel, counted, metric, model)
    differences(axes[-1], counted)
    axes[0].set_yticks(range(len(counted)), [arm.name for arm in counted])
    axes[0].set_ylim(len(counted) - 0.5, -0.5)


def bars(panel: Axes, counted: Sequence[Counted], metric: str, model: str) -> None:
    top = 0.0
    for i, arm in enumerate(counted):
        d = drawn(arm, metric)
        if d.value is None:
            panel.text(0, i, " none", ha="left", va="center", fontsize=6)
            continue
        panel.barh([i], [d.value], height=0.72, **style.bar_look(style.of_kind(arm.arm.kind)))
        style.error_bar(panel, i, d.value, d.bounds, flat=True)
        ours = paper(arm.arm, model, metric)
        if ours is not None:
            style.mark_paper(panel, ours, i + 0.22)
        top = max(top, d.value, d.bounds[1] if d.bounds else 0.0, ours or 0.0, corrected(panel, arm, metric, i - 0.27))
    panel.set_title(TITLES[metric], loc="left", fontsize=7)
    panel.tick_params(axis="y", length=0)
    panel.set_xlim(0, top * 1.08 if top else 1)


def corrected(panel: Axes, arm: Counted, metric: str, at: float) -> float:
    """What people's labels make of the rate, as a triangle above the judge's interval; how far it reaches."""
    told = arm.audited.get(metric, {}).get("post_stratified")
    if not told or told["value"] is None:
        return 0.0
    by, span = words.scale(metric), told["interval"]
    if span:
        panel.plot([by * span[0], by * span[1]], [at, at], color=style.SOFT, linewidth=1.1, zorder=4)
    panel.plot([by * told["value"]], [at], marker="^", markersize=4, color=style.SOFT, markerfacecolor="white", zorder=5)
    return float(by * (span[1] if span else told["value"]))


def differences(panel: Axes, counted: Sequence[Counted]) -> None:
    """The multi-attempt rate minus the baseline's, over pairs of the same latent, question and seed, and below it, as a square, the same
    at equal first scores."""
    by = words.scale(DIFFERENCE)
    for i, arm in enumerate(counted):
        both = ((arm.differences.get(DIFFERENCE), -0.14, "o", style.INK), (arm.standardised.get(DIFFERENCE), 0.2, "s", style.SOFT))
        for d, below, marker, colour in both:
            if d is None or d.value is None or not d.n:
                continue
            if d.interval:
                panel.plot([by * d.interval.low, by * d.interval.high], [i + below] * 2, color=colour, linewidth=1.1)
            face = "white" if arm.identical else colour
            panel.plot([by * d.value], [i + below], marker=marker, markersize=3.5, color=colour, markerfacecolor=face)
    panel.axvline(0, color=style.FAINT, linewidth=0.8, zorder=0)
    panel.tick_params(axis="y", length=0)
    panel.set_title("Multi, difference (points)", loc="left", fontsize=7)


def foot(found: Recorded, counted: Sequence[Counted]) -> str:
    """n, missing, method, the paired difference of the ESR rate, and whatever a reader should be told of an arm."""
    about = found.about
    n = ", ".join(f"{arm.name} {arm.n:,}" + (f" (+{arm.missing} missing)" if arm.missing else "") for arm in counted[:12])
    told = [
        f"{found.model}, judge {about['judge']}, scale {about['scale']}; n: {n}.",
        words.method(about["confidence"], methods(counted, PANELS)),
    ]
    if any(arm.differences for arm in counted):
        told.append("Right, circles: the multi-attempt rate minus the baseline's, in pairs of latent, question and seed.")
    paired = []
    for arm in counted[:12]:
        d = arm.differences.get("esr_rate")
        if d and d.value is not None and d.n and not arm.identical:
            paired.append(f"{arm.name} {words.difference(d)}" + (f" (p {d.p:.2g})" if d.p is not None else ""))
    if paired:
        told.append("ESR rate minus baseline, likewise: " + "; ".join(paired) + ".")
    told += remarks(counted)
    told += standardised(counted) + labels(counted)
    if any(paper(a.arm, found.model, m) is not None for a in counted for m in PANELS):
        told.append("Diamonds: the paper.")
    return "\n".join(style.wrapped(line) for line in told)


def remarks(counted: Sequence[Counted]) -> list[str]:
    """Arms that equal the baseline reply by reply, and arms that make the first attempt easier or harder: their rates are then not those
    of equal difficulty."""
    same = [arm.name for arm in counted if arm.identical]
    told = (
        [f"Equal to the baseline in every pair (open circles): {', '.join(same)}; what is clamped there is never active."]
        if same
        else []
    )
    moved = []
    for arm in counted:
        d = arm.differences.get("first_score_mean")
        if d and d.interval and arm.arm.kind != "unsteered" and (d.interval.low > 0 or d.interval.high < 0):
            moved.append(f"{arm.name} {words.difference(d)}")
    if moved:
        told.append("First-attempt score minus baseline, where its interval leaves out 0: " + "; ".join(moved) + ".")
    if broken := never_at_target(counted):
        told.append(f"No boost meets the target while these are held at zero, so none was found anew: {', '.join(broken)}.")
    return told


def never_at_target(counted: Sequence[Counted]) -> list[str]:
    """Arms without the recalibrated arm that others of their kind have."""
    names = {arm.name for arm in counted}
    kinds = {arm.arm.kind for arm in counted if f"{arm.name}-recalibrated" in names}
    return [arm.name for arm in counted if arm.arm.kind in kinds and f"{arm.name}-recalibrated" not in names]


def standardised(counted: Sequence[Counted]) -> list[str]:
    """What the squares are, and what of the ESR rate's difference stays at equal first scores."""
    if not any(arm.standardised for arm in counted):
        return []
    known = [(arm.name, d) for arm in counted[:12] if (d := arm.standardised.get("esr_rate")) and d.n and not arm.identical]
    stays = [f"{name} {words.standardised(d)}" for name, d in known if d.value is not None]
    apart = [name for name, d in known if d.value is None]
    none = f"At equal first scores nothing is told of {', '.join(apart)}: first scores hardly overlap." if apart else ""
    if not stays:
        return [none] if none else []
    said = "Squares: at equal first scores, strata weighted as the baseline's replies fall into them"
    return [f"{said}. The ESR rate's difference then: {'; '.join(stays)}. {none}".rstrip()]


def labels(counted: Sequence[Counted]) -> list[str]:
    """What the triangles are, and how good the judge is by them."""
    told = [
        f"{arm.name} {arm.audited['esr_rate']['labelled']} labels, sensitivity {audited.share(arm.audited['esr_rate']['sensitivity'])}, "
        f"specificity {audited.share(arm.audited['esr_rate']['specificity'])}"
        for arm in counted
        if "esr_rate" in arm.audited
    ]
    return [f"Triangles: corrected by people's labels; of the judge's corrections: {'; '.join(told)}."] if told else []


def by_model(found: Sequence[Recorded], variant: str, title: str) -> tuple[Figure, dict[str, object]]:
    """Models side by side, small to large, the baseline dark and the variant light (figure 4)."""
    counted = {r.model: {arm.name: arm for arm in arms(r)} for r in found}
    with style.canvas(1, 3, 2.8) as (figure, axes):
        for panel, metric in zip(axes[0], PANELS, strict=True):
            for i, (model, named) in enumerate(counted.items()):
                for offset, name, shade in (
                    (-0.2, BASELINE, style.of_kind(BASELINE)),
                    (0.2, variant, style.of_kind("meta-prompt")),
                ):
                    if name in named:
                        _one(panel, i + offset, named[name], metric, model, shade)
            panel.set_title(TITLES[metric], loc="left")
            panel.set_xticks(range(len(counted)), list(counted))
            panel.set_ylim(bottom=0)
        handles = [
            Patch(facecolor=style.SHADES[i], hatch=style.HATCHES[i], edgecolor=style.INK)
            for i in map(style.of_kind, (BASELINE, "meta-prompt"))
        ]
        axes[0][0].legend(handles, [BASELINE, variant], loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        lines = [
            f"{r.model}: n {', '.join(f'{a.name} {a.n:,}' for a in counted[r.model].values() if a.name in (BASELINE, variant))}"
            for r in found
        ]
        about = found[0].about
        reported = any(paper(one.arm, r.model, m) is not None for r in found for one in counted[r.model].values() for m in PANELS)
        told = " Diamonds: the paper." if reported else ""
        drawn_by = methods([a for named in counted.values() for a in named.values()], PANELS)
        style.footnote(
            figure, "\n".join([style.wrapped("; ".join(lines) + "."), words.method(about["confidence"], drawn_by) + told])
        )
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
