"""What a macro is called: letters alone, from the words of its number's place; no two names differ by case alone.

`exp01`, `tiny-plain`, `relative-0.75`, `esr_rate` make `\\esrExpZeroOneTinyPlainRelativeZeroPointSevenFiveEsrRate`.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from esr.errors import DataError

PREFIX = "esr"
"""Every macro begins with it, so that none is one of LaTeX's and a text can be searched for ours."""
DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
SIGNS = {"+": "Plus", "@": "At", "%": "Percent", "−": "Minus", "<": "Below", ">": "Above", "=": "Equals", "*": "Star"}
BREAKS = "-_ /|:;,()[]{}'\"\u2013"


def name(place: Sequence[str], part: str = "") -> str:
    return PREFIX + "".join(map(spelled, place)) + part


def spelled(text: str) -> str:
    """A word in letters: digits, the point between them and signs are spelled out, what separates words begins a capital."""
    out, begins = [], True
    for i, mark in enumerate(text):
        before, after = text[i - 1 : i], text[i + 1 : i + 2]
        if mark.isascii() and mark.isalpha():
            out.append(mark.upper() if begins else mark)
            begins = False
            continue
        begins = True
        if mark.isascii() and mark.isdigit():
            out.append(DIGITS[int(mark)])
        elif mark == "." and before.isdigit() and after.isdigit():
            out.append("Point")
        elif mark == "-" and after.isdigit() and (not before or not before.isalnum()):
            out.append("Minus")
        elif mark in SIGNS:
            out.append(SIGNS[mark])
        elif mark not in BREAKS and mark != ".":
            out.append(_foreign(mark))
            begins = not mark.isalpha()
    return "".join(out)


def _foreign(mark: str) -> str:
    """A letter without its accent, or the words of the character's name."""
    plain = unicodedata.normalize("NFKD", mark).encode("ascii", "ignore").decode()
    if plain.isalpha():
        return plain
    return "".join(word.capitalize() for word in re.findall("[A-Za-z]+", unicodedata.name(mark, "Unnamed")))


def apart(named: Iterable[tuple[str, str]]) -> None:
    """Names with what they are of: an error that names both where two are one to LaTeX, or to a reader who overlooks case."""
    seen: dict[str, tuple[str, str]] = {}
    for macro, what in named:
        other = seen.setdefault(macro.casefold(), (macro, what))
        if other[1] != what:
            raise DataError(
                f"two numbers would have macros that differ at most by case: \\{other[0]} of {other[1]!r} and \\{macro} of {what!r}; "
                "give one of the arms or models another name"
            )
