"""The detectors' table (table 4 of the paper, A1 of its appendix): how active each is under its own and under others' questions.

Means and shares are over the pairs of experiment 3: every reply under its own question, and by seeded derangements under others'.
Areas under the curve are over the same pairs, where they were taken; held out: over questions that chose nothing.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from esr.errors import DataError, one_of
from esr.show import words
from esr.show.latex import escaped
from esr.store import Store

HEADER = ("latent", "label", "mismatched mean", "mismatched active", "matched mean", "matched active")
AREAS = ("auc", "auc_held_out", "auc_low", "auc_high")
OF_AREAS = ("AUC", "AUC held out")
"""Columns where the set has areas."""
LABEL = 40
"""Characters of a label in a printed table, as in the paper's."""
Row = Mapping[str, Any]


def rows(store: Store, model: str, which: str = "") -> list[Row]:
    """A set of detectors in its order; `which`: its set_id or the beginning of it, needed where there are several."""
    found: list[Row] = store.sql(
        "select * from detectors where model = ? and kind = 'detector' and starts_with(set_id, ?) order by set_id, rank",
        [model, which],
    ).to_pylist()
    sets = sorted({row["set_id"] for row in found})
    if not found:
        raise DataError(f"the store holds no detectors of {model!r}; `python -m flows exp03 {model}` finds them")
    if len(sets) > 1:
        raise DataError(f"{model!r} has several sets of detectors, {', '.join(sets)}; name one with --set")
    return found


def cells(found: Sequence[Row]) -> list[tuple[str, ...]]:
    """A head and a line a detector, as a person reads them."""
    head = (*HEADER, *(OF_AREAS if _areas(found) else ()))
    return [head, *((str(row["latent"]), _short(row["label"]), *_values(row, "%"), *_told(row, found)) for row in found)]


def markdown(found: Sequence[Row]) -> str:
    head, *body = [tuple(cell.replace("|", r"\|") for cell in line) for line in cells(found)]
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def as_csv(found: Sequence[Row]) -> str:
    """Every digit, shares in [0, 1], labels whole."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow([*(name.replace(" ", "_") for name in HEADER), *AREAS])
    out.writerows([row["latent"], row["label"], *(row.get(name) for name in (*NUMBERS, *AREAS))] for row in found)
    return text.getvalue()


def latex(found: Sequence[Row]) -> str:
    """For the preamble \\usepackage{booktabs}."""
    told = [[str(row["latent"]), escaped(_short(row["label"])), *_values(row, r"\%"), *_told(row, found)] for row in found]
    body = [" & ".join(cell.replace(words.NOTHING, "--") for cell in line) + r" \\" for line in told]
    head, columns = r"Latent & Label & \multicolumn{2}{c}{Mismatched} & \multicolumn{2}{c}{Matched}", "rlrrrr"
    below = r"\\ & & mean & active & mean & active"
    if _areas(found):
        head, below, columns = head + r" & \multicolumn{2}{c}{AUC}", below + " & chosen by & held out", columns + "rr"
    head = rf"{head} {below} \\"
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


NUMBERS = ("mismatched_mean", "mismatched_active", "matched_mean", "matched_active")
FORMATS: Mapping[str, Callable[[Sequence[Row]], str]] = {"markdown": markdown, "csv": as_csv, "latex": latex}


def text(store: Store, model: str, form: str, which: str = "") -> str:
    if form not in FORMATS:
        raise DataError(one_of("format", form, list(FORMATS), "the detectors' table"))
    return FORMATS[form](rows(store, model, which))


def _areas(found: Sequence[Row]) -> bool:
    return any(known(row, "auc") is not None for row in found)


def known(row: Row, name: str) -> float | None:
    """A number that an older or imported set may lack."""
    value = row.get(name)
    return None if value is None or math.isnan(value) else float(value)


def _told(row: Row, among: Sequence[Row]) -> list[str]:
    """`0.83` and `0.71 [0.55, 0.83]`, where the set has areas."""
    if not _areas(among):
        return []
    auc, apart, low, high = (known(row, name) for name in AREAS)
    span = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return [words.NOTHING if auc is None else f"{auc:.2f}", words.NOTHING if apart is None else f"{apart:.2f}{span}"]


def _values(row: Row, percent: str) -> list[str]:
    return [_value(row[name], percent if name.endswith("active") else "") for name in NUMBERS]


def _value(found: float | None, percent: str) -> str:
    """A share in per cent or a mean; imported sets may lack either."""
    if found is None:
        return words.NOTHING
    return f"{100 * found:.1f} {percent}" if percent else f"{found:.3g}"


def _short(label: str | None) -> str:
    label = label or ""
    return label if len(label) <= LABEL else label[:LABEL] + "..."
