"""How good first attempts are with and without steering: histograms beside the bars (A.3.1)."""

import numpy as np
from matplotlib.figure import Figure

from esr.show.counted import arms
from esr.show.figures import style
from esr.show.figures.numbers import as_json
from esr.show.figures.rates import PANELS, bars, foot, look
from esr.show.recorded import Recorded

EDGES = np.linspace(0, 100, 21)


def histograms(found: Recorded, title: str) -> tuple[Figure, dict[str, object]]:
    counted = arms(found)
    data: dict[str, object] = {"title": title, "about": found.about, "arms": [as_json(arm, PANELS, found.model) for arm in counted]}
    with style.canvas(1, 4, 2.5, width_ratios=[1.5, 1, 1, 1]) as (figure, axes):
        shares = {}
        for i, arm in enumerate(counted):
            share = np.histogram(arm.rows["first_score"], EDGES)[0] / max(arm.n, 1) * 100
            shares[arm.arm.key] = share.tolist()
            look_ = style.bar_look(look(arm, i))
            axes[0][0].stairs(
                share, EDGES, fill=i == 0, color=look_["color"], linewidth=1.4, label=arm.name, hatch="" if i else "///"
            )
        axes[0][0].set_title("First-attempt score, % of trials", loc="left", fontsize=7.5)
        axes[0][0].legend()
        for panel, metric in zip(axes[0][1:], PANELS, strict=True):
            bars(panel, counted, metric, found.model)
            panel.tick_params(axis="x", labelsize=6)
            panel.set_title(panel.get_title(loc="left"), loc="left", fontsize=7.5)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        style.footnote(figure, foot(found, counted))
    return figure, data | {"histogram": {"edges": EDGES.tolist(), "percent": shares}}
