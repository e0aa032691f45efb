"""The detectors' table (table 4 of the paper, A1 of its appendix): how active each is under its own and under others' questions.

Means and shares are over the pairs of experiment 3: every reply under its own question, and by seeded derangements under others'.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from esr.errors import DataError, one_of
from esr.show import words
from esr.show.latex import escaped
from esr.store import Store

HEADER = ("latent", "label", "mismatched mean", "mismatched active", "matched mean", "matched active")
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
    return [HEADER, *((str(row["latent"]), _short(row["label"]), *_values(row, "%")) for row in found)]


def markdown(found: Sequence[Row]) -> str:
    head, *body = [tuple(cell.replace("|", r"\|") for cell in line) for line in cells(found)]
    lines = [head, tuple("---" for _ in HEADER), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def as_csv(found: Sequence[Row]) -> str:
    """Every digit, shares in [0, 1], labels whole."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(name.replace(" ", "_") for name in HEADER)
    out.writerows([row["latent"], row["label"], *(row[name] for name in NUMBERS)] for row in found)
    return text.getvalue()


def latex(found: Sequence[Row]) -> str:
    """For the preamble \\usepackage{booktabs}."""
    told = [[str(row["latent"]), escaped(_short(row["label"])), *_values(row, r"\%")] for row in found]
    body = [" & ".join(cell.replace(words.NOTHING, "--") for cell in line) + r" \\" for line in told]
    head = r"Latent & Label & \multicolumn{2}{c}{Mismatched} & \multicolumn{2}{c}{Matched} \\ & & mean & active & mean & active \\"
    lines = [r"\begin{tabular}{rlrrrr}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


NUMBERS = ("mismatched_mean", "mismatched_active", "matched_mean", "matched_active")
FORMATS: Mapping[str, Callable[[Sequence[Row]], str]] = {"markdown": markdown, "csv": as_csv, "latex": latex}


def text(store: Store, model: str, form: str, which: str = "") -> str:
    if form not in FORMATS:
        raise DataError(one_of("format", form, list(FORMATS), "the detectors' table"))
    return FORMATS[form](rows(store, model, which))


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
