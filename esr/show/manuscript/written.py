"""The list of numbers as LaTeX macros, as Markdown and as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from esr.show import latex
from esr.show.manuscript import names
from esr.show.manuscript.exported import told
from esr.show.manuscript.numbers import Number

PARTS = {
    "": Number.text,
    "Interval": Number.interval,
    "N": lambda one: "" if one.n is None else f"{one.n:,}",
    "Whole": Number.whole,
}
"""What stands behind a number's name, and what each macro prints."""


@dataclass(frozen=True, slots=True)
class Macro:
    name: str
    """Without the backslash."""
    text: str
    """What it prints, as plain text."""


def macros(numbers: Sequence[Number]) -> list[Macro]:
    """Those that can be printed, by name."""
    named = [(names.name(one.place, part), one, part) for one in numbers for part in PARTS]
    names.apart((name, " · ".join((*one.place, part)) if part else " · ".join(one.place)) for name, one, part in named)
    found = [Macro(name, PARTS[part](one)) for name, one, part in named if one.n is not None or not part]
    return sorted((one for one in found if one.text), key=lambda one: one.name)


def undefined(numbers: Sequence[Number]) -> dict[str, str]:
    """Names of what cannot be printed, with the reason: a text that uses one is told why."""
    out = {}
    for one in numbers:
        for part in ("", "Interval", "Whole"):
            if (one.n is not None or not part) and not PARTS[part](one):
                out[names.name(one.place, part)] = one.why or "it is not known"
    return out


HEAD = r"""% Every number of the results: \input this file in the preamble, made by `python -m esr paper draw`.
% A number is in per cent or points without the sign; ...Interval is its 95 % interval, ...N what it rests on, ...Whole all of it.
"""


def tex(found: Iterable[Macro]) -> str:
    lines = [rf"\newcommand{{\{one.name}}}{{{latex.number(one.text)}}}" for one in found]
    return HEAD + "\n".join(lines) + "\n"


def as_json(numbers: Sequence[Number], absent: Mapping[str, str], files: Sequence[str]) -> str:
    """Numbers with every digit, macros as plain text, what is left out and why, and the files of the folder."""
    rows: list[dict[str, Any]] = [
        {"macro": names.name(one.place), **{key: _short(cell) for key, cell in asdict(one).items()}, "text": one.whole()}
        for one in numbers
    ]
    whole = {
        "numbers": rows,
        "macros": {one.name: one.text for one in macros(numbers)},
        "undefined": undefined(numbers),
        "left_out": dict(absent),
        "files": sorted(files),
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _short(cell: Any) -> Any:
    return float(f"{cell:.9g}") if isinstance(cell, float) else cell


def markdown(numbers: Sequence[Number], absent: Mapping[str, str]) -> str:
    """A table an experiment and model: each number with its interval, its n, and the paper's value."""
    parts = ["# Numbers", "Macros are defined in numbers.tex; how intervals come about is said under each table."]
    for head in dict.fromkeys(one.place[:2] for one in numbers):
        some = [one for one in numbers if one.place[:2] == head]
        rows = [_row(one) for one in some]
        table = ["| number | value | interval | n | paper | macro |", "|---|---:|---|---:|---:|---|", *rows]
        methods = sorted({one.method for one in some if one.method})
        parts += [
            f"## {head[0]} on {head[1]}",
            "\n".join(table),
            f"Intervals: {'; '.join(methods) or 'as the exported tables hold them'}.",
        ]
    parts += ["## Left out", "\n".join(f"- {line}" for line in told(absent)) or "Nothing."]
    return "\n\n".join(parts) + "\n"


def _row(one: Number) -> str:
    paper = "" if one.paper is None else f"{format(one.paper, one.form)}{one.unit}"
    value = f"{one.text()}{one.unit}" if one.text() else "–"
    span = one.interval() or ("" if one.n is None else f"none: {one.why}")
    n = "" if one.n is None else f"{one.n:,}"
    cells = (" · ".join(one.place[2:]).replace("|", r"\|"), value, span, n, paper, f"`\\{names.name(one.place)}`")
    return f"| {' | '.join(cells)} |"
