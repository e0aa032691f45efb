"""The detectors' table as numbers, and as an experiment's export holds it."""

import pandas as pd

from esr.show.detector_sets import DETECTORS
from esr.show.detector_table import AREAS, NUMBERS, Row, known
from esr.show.manuscript.numbers import Number

NAME = DETECTORS.name
CHOSEN = "a detector is chosen by this number"
"""Why there is no interval: what is taken because it is large would be smaller in other pairs."""


APART = "the area under the curve over pairs of questions that chose nothing: jackknife over questions, Wilson at n/deff, t"


def rows(exported: pd.DataFrame) -> list[Row]:
    """As the detectors' table takes them; None for what an import lacks."""
    return [{str(name): None if pd.isna(cell) else cell for name, cell in row.items()} for row in exported.to_dict("records")]


def caption(found: list[Row]) -> str:
    """`over 80 replies under their own question (matched) and 800 under another's (mismatched)`"""
    sizes = {(row["matched_pairs"], row["mismatched_pairs"]) for row in found}
    apart = [value for row in found if (value := known(row, "auc_held_out")) is not None]
    chosen = (
        f" Chosen on one half of the questions; held out: on the other, {sum(apart) / len(apart):.2f} on the mean." if apart else ""
    )
    told = "Detectors, by the largest activation in each pair of a question and a reply: mean, and share of pairs in which it is active"
    if len(sizes) != 1 or None in (size := sizes.pop()):
        return f"{told}; how many pairs is not recorded.{chosen}"
    return f"{told}; {size[0]:,.0f} matched pairs, {size[1]:,.0f} mismatched.{chosen}"


def numbers(found: list[Row], place: tuple[str, ...]) -> list[Number]:
    """Two means, two shares and two areas a detector, as far as there are any, named by its latent, and by its set where there are several."""
    several = len({row["set_id"] for row in found}) > 1
    out = []
    for row in found:
        own = (*place, *([row["set_id"]] if several else []), str(row["latent"]))
        for name in NUMBERS:
            n, share = row[f"{name.partition('_')[0]}_pairs"], name.endswith("active")
            value = row[name] if row[name] is None or not share else 100 * row[name]
            form, unit = (".1f", " %") if share else (".3g", "")
            why = "the imported file does not hold it" if value is None else CHOSEN
            out.append(Number((*own, name), value, None, None, None if n is None else int(n), form, unit, "", why))
        out += _areas(row, own)
    return out


def _areas(row: Row, place: tuple[str, ...]) -> list[Number]:
    """What it was chosen by, and what it is worth on the other half of the questions with its interval. n: matched pairs."""
    auc, apart, low, high = (known(row, name) for name in AREAS)
    if auc is None:
        return []
    n = row["matched_pairs"]
    whole, half = (None, None) if n is None else (int(n), int(n) // 2)
    if apart is None:
        return [Number((*place, "auc"), auc, None, None, whole, ".2f", "", "", CHOSEN)]
    why = "" if low is not None else "fewer than ten questions were held out"
    return [
        Number((*place, "auc"), auc, None, None, half, ".2f", "", "", CHOSEN),
        Number((*place, "auc_held_out"), apart, low, high, half, ".2f", "", APART if low is not None else "", why),
    ]
