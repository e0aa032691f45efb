"""How good first attempts are with and without steering: histograms beside the bars (A.3.1)."""

import numpy as np
from matplotlib.figure import Figure

from esr.show.counted import arms
from esr.show.figures import style
from esr.show.figures.numbers import as_json
from esr.show.figures.rates import PANELS, foot, lines
from esr.show.recorded import Recorded

EDGES = np.linspace(0, 100, 21)


def histograms(found: Recorded, title: str) -> tuple[Figure, dict[str, object]]:
    counted = arms(found)
    data: dict[str, object] = {"title": title, "about": found.about, "arms": [as_json(arm, PANELS, found.model) for arm in counted]}
    with style.canvas(2, 4, 4.0, height_ratios=[1.3, 0.35 + 0.12 * len(counted)]) as (figure, axes):
        shares = {}
        grid = axes[0][0].get_gridspec()
        for panel in axes[0]:
            panel.remove()
        panel = figure.add_subplot(grid[0, :])
        for i, arm in enumerate(counted):
            share = np.histogram(arm.rows["first_score"], EDGES)[0] / max(arm.n, 1) * 100
            shares[arm.arm.key] = share.tolist()
            color = style.bar_look(style.of_kind(arm.arm.kind))["color"]
            panel.stairs(share, EDGES, fill=i == 0, color=color, linewidth=1.4, label=arm.name, hatch="")
        panel.set_xlabel("first-attempt score")
        panel.set_ylabel("% of trials")
        panel.set_xlim(0, 100)
        panel.legend()
        lines(axes[1], counted, found.model)
        for beside in axes[1][1:]:
            beside.set_yticks([])
            beside.set_ylim(*axes[1][0].get_ylim())
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        style.footnote(figure, foot(found, counted))
    return figure, data | {"histogram": {"edges": EDGES.tolist(), "percent": shares}}
