"""How far judges agree: a matrix of pairs for each measure (A.2.2)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from esr.count.agreement import Pair
from esr.show.figures import style

PANELS = {
    "multi": "Both or neither see a restart (%)",
    "kappa": "Cohen's κ of the same",
    "direction": "Same direction of change (%)",
}


def matrix(pairs: Sequence[Pair], title: str, confidence: float = 0.95) -> tuple[Figure, dict[str, object]]:
    """One panel a measure; each pair's value with its interval, darker where they agree less."""
    judges = sorted({name for pair in pairs for name in (pair.judge, pair.other)})
    with style.canvas(1, len(PANELS), 1.0 + 0.5 * len(judges), sharey=True) as (figure, axes):
        for panel, (measure, name) in zip(axes[0], PANELS.items(), strict=True):
            _panel(panel, pairs, judges, measure)
            panel.set_title(name, loc="left", fontsize=7.5)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        n = "; ".join(
            f"{p.judge} and {p.other}: n {p.n:,}, {p.n_missing} graded by one only, {p.n_multi} restarts for both" for p in pairs
        )
        style.footnote(
            figure,
            style.wrapped(
                f"{n}. In brackets: {100 * confidence:g} % intervals, of what other latents of the same kind would show."
            ),
        )
    rows = [
        {"judge": p.judge, "other": p.other, "n": p.n, "n_missing": p.n_missing, "n_multi": p.n_multi}
        | {m: {"value": getattr(p, m).value, "bounds": getattr(p, m).interval} for m in PANELS}
        for p in pairs
    ]
    return figure, {"title": title, "pairs": rows}


def _panel(panel: Axes, pairs: Sequence[Pair], judges: Sequence[str], measure: str) -> None:
    at = {name: i for i, name in enumerate(judges)}
    shades = np.full((len(judges[1:]), len(judges[1:])), np.nan)  # below the diagonal
    scale = 1.0 if measure == "kappa" else 100.0
    size = 6.5 if len(judges) < 5 else 5.2
    for pair in pairs:
        found = getattr(pair, measure)
        row, column = max(at[pair.judge], at[pair.other]) - 1, min(at[pair.judge], at[pair.other])
        if found.value is None:
            panel.text(column, row, "–", ha="center", va="center", fontsize=7)
            continue
        shades[row, column] = found.value
        digits = 2 if measure == "kappa" else 0
        span = f"\n[{scale * found.interval[0]:.{digits}f}, {scale * found.interval[1]:.{digits}f}]" if found.interval else ""
        ink = "white" if found.value < 0.5 else style.INK
        panel.text(column, row, f"{scale * found.value:.{digits}f}{span}", ha="center", va="center", fontsize=size, color=ink)
    panel.imshow(shades, cmap="Greys_r", vmin=-0.2, vmax=1.2, aspect="auto")
    panel.set_xticks(range(len(judges[:-1])), judges[:-1], fontsize=6.5)
    if len(judges) > 3:
        panel.tick_params(axis="x", labelrotation=45)
    panel.set_yticks(range(len(judges[1:])), judges[1:], fontsize=6.5)
