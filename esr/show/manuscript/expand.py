"""A text in which numbers stand as macros, as plain text: what cannot be expanded is an error that names it."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from esr.errors import DataError
from esr.show.manuscript import names

MACRO = re.compile(r"\\([A-Za-z]+)")
UNWRAPPED = ("emph", "textit", "textbf", "texttt", "textrm", "ensuremath", "mathrm")
"""LaTeX commands of which the argument is the text."""
MARKS = {r"\,": "\u202f", r"\;": " ", r"\ ": " ", "~": "\u00a0", "---": "—", "--": "–", "``": "“", "''": "”", r"\\": "\n"}
PLAIN = {"\\" + mark: mark for mark in "&%$#_{}"}


@dataclass(frozen=True, slots=True)
class Told:
    """What a folder of numbers defines."""

    macros: Mapping[str, str]
    undefined: Mapping[str, str]
    """Known names that print nothing, each with the reason."""
    left_out: Mapping[str, str]
    """What was not run, by `exp04 on tiny`."""


def read(folder: Path) -> Told:
    file = folder / "numbers.json"
    if not file.is_file():
        raise DataError(f"no {file.name} in {str(folder)!r}; `python -m esr paper draw` writes it")
    found = json.loads(file.read_text(encoding="utf-8"))
    return Told(found["macros"], found["undefined"], found["left_out"])


def check(text: str, told: Told, *, where: str = "the text") -> int:
    """How often macros of ours are used; one that is not defined is an error. Other commands are LaTeX's business."""
    used = [found for found in MACRO.finditer(_without_comments(text)) if _ours(found[1])]
    for found in used:
        if found[1] not in told.macros:
            raise DataError(_undefined(found, told, where))
    return len(used)


def expanded(text: str, told: Told, *, where: str = "the text") -> str:
    """Plain text: numbers for macros, marks for LaTeX's spellings of them. Whatever else begins with a backslash is refused."""
    text = _without_comments(text)
    check(text, told, where=where)
    out = MACRO.sub(lambda found: told.macros.get(found[1], found[0]), text)
    for command in UNWRAPPED:
        out = re.sub(rf"\\{command}\s*\{{([^{{}}]*)\}}", r"\1", out)
    for mark, plain in PLAIN.items():
        out = out.replace(mark, f"\1{ord(plain):06d}")
    if left := MACRO.search(out):
        raise DataError(
            f"{where}, line {_line(text, left[0])}: {left[0]} is no macro of numbers.tex and cannot stand in plain text; "
            "write what it prints"
        )
    for mark, plain in MARKS.items():
        out = out.replace(mark, plain)
    if "\\" in out:
        raise DataError(
            f"{where}, line {1 + out[: out.index(chr(92))].count(chr(10))}: a backslash is left that stands for nothing in plain text; "
            "take it out"
        )
    out = re.sub(r"[{}$]", "", out)
    return re.sub(r"\x01(\d{6})", lambda found: chr(int(found[1])), out)


def _ours(macro: str) -> bool:
    return macro.startswith(names.PREFIX) and macro != names.PREFIX


def _without_comments(text: str) -> str:
    return re.sub(r"(?<!\\)%.*", "", text)


def _line(text: str, command: str) -> int:
    return 1 + text[: text.index(command)].count("\n") if command in text else 0


def _undefined(found: re.Match[str], told: Told, where: str) -> str:
    line = 1 + found.string[: found.start()].count("\n")
    return f"{where}, line {line}: {found[0]} is not defined; {_why(found[1], told)}"


def _why(macro: str, told: Told) -> str:
    if macro in told.undefined:
        return f"there is such a number and it cannot be printed: {told.undefined[macro]}"
    by_case = {name.casefold(): name for name in told.macros}
    if macro.casefold() in by_case:
        return f"only \\{by_case[macro.casefold()]} is, and LaTeX tells capitals from small letters"
    for what, why in told.left_out.items():
        experiment, _, model = what.partition(" on ")
        if model and macro.startswith(names.name((experiment, model))):
            return f"{what}: {why}"
    near = difflib.get_close_matches(macro, told.macros, 3, 0.6)
    return f"the nearest are {', '.join(f'{chr(92)}{name}' for name in near)}" if near else "numbers.md lists those that are"
