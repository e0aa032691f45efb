"""The detectors' table as numbers, and as an experiment's export holds it."""

import pandas as pd

from esr.show.detector_sets import DETECTORS
from esr.show.detector_table import NUMBERS, Row
from esr.show.manuscript.numbers import Number

NAME = DETECTORS.name
CHOSEN = "a detector is chosen by this number"
"""Why there is no interval: what is taken because it is large would be smaller in other pairs."""


def rows(exported: pd.DataFrame) -> list[Row]:
    """As the detectors' table takes them; None for what an import lacks."""
    return [{str(name): None if pd.isna(cell) else cell for name, cell in row.items()} for row in exported.to_dict("records")]


def caption(found: list[Row]) -> str:
    """`over 80 replies under their own question (matched) and 800 under another's (mismatched)`"""
    sizes = {(row["matched_pairs"], row["mismatched_pairs"]) for row in found}
    told = "Detectors, by the largest activation in each pair of a question and a reply: mean, and share of pairs in which it is active"
    if len(sizes) != 1 or None in (size := sizes.pop()):
        return f"{told}; how many pairs is not recorded."
    return f"{told}; {size[0]:,.0f} matched pairs, {size[1]:,.0f} mismatched."


def numbers(found: list[Row], place: tuple[str, ...]) -> list[Number]:
    """Two means and two shares a detector, named by its latent, and by its set where there are several."""
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
    return out
