"""The closing table of experiment 9: of each list of watched latents, what it does off topic, right before a restart, and when."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from esr.experiment import Selection
from esr.show import episode_tables
from esr.show.closing_table import table
from esr.store import Store

NOTE = (
    "Off topic less on topic, unsteered, and restart-free at the same places: mean activation over episodes, 95 % intervals over "
    "distractors and questions. Off topic now: area under the curve of tokens off topic against on-topic and unsteered ones. Restart soon: of the tokens right "
    "before a correction against the same places of restart-free steered replies; 0.5 is chance. Onset: tokens before the correction, "
    "and the share of episodes without one; of restart-free replies the share that has one is set. Where "
    "hardly a reply comes back, replies that stay off topic stand beside the episodes; what is said of corrections is of episodes alone."
)
TIMES = ("off topic now", "restart soon", "onset", "never", "verdict")
CONTRASTS = (("− on topic", "on-topic"), ("− unsteered", "unsteered"), ("− restart-free", "restart-free"))


def rows(store: Store, chosen: Selection) -> list[dict[str, str]]:
    return lines(episode_tables.compared(store, chosen), episode_tables.timed(store, chosen))


def lines(compared: pd.DataFrame, timed: pd.DataFrame) -> list[dict[str, str]]:
    out = []
    for row in timed[timed["latent"] == episode_tables.WHOLE].to_dict("records"):
        line = {"watched": str(row["list"]), "latents": str(row["label"]), "steering": str(row["steering"])}
        same = compared[
            (compared["list"] == row["list"]) & (compared["steering"] == row["steering"]) & (compared["latent"] == row["latent"])
        ]
        for name, other in CONTRASTS:
            of = same[(same["one"] == "off-topic") & (same["other"] == other)].iloc[0]
            line[f"off topic {name}"] = told(of["value"], of["low"], of["high"])
        line["episodes"] = str(int(same.iloc[0]["n"]))
        line["off topic now"] = told(row["now_area"], row["now_low"], row["now_high"])
        line["restart soon"] = told(row["soon_area"], row["soon_low"], row["soon_high"])
        line["onset"] = told(row["onset_value"], row["onset_low"], row["onset_high"])
        line["never"] = told(row["never_value"], row["never_low"], row["never_high"])
        line["verdict"] = str(row["kind"])
        out.append(line)
    return out


def markdown(found: Sequence[Mapping[str, str]]) -> str:
    """Two tables, means and then times, with intervals below their values: a page of usual width cuts what is wider."""
    tables = []
    for some in (("episodes", *(f"off topic {name}" for name, _ in CONTRASTS)), TIMES) if found else ():
        rows = [
            [
                f"{line['watched']}, {line['latents']},<br>steering {line['steering']}",
                *(line[name].replace(" [", "<br>[") for name in some),
            ]
            for line in found
        ]
        tables.append(table(("watched", *some), rows))
    return "\n\n".join([*tables, NOTE])


def told(value: Any, low: Any, high: Any) -> str:
    if value is None or math.isnan(value):
        return "–"
    span = "" if low is None or math.isnan(low) else f" [{low:.3g}, {high:.3g}]"
    return f"{value:.3g}{span}"
