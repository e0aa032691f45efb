"""Text as LaTeX: what has a meaning there is escaped, a number is set so that it prints as it is read."""

import re

ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": r"\ensuremath{-}"} | {
    mark: "\\" + mark for mark in "&%$#_{}"
}
DASHES = {"–": "--", "—": "---", "×": r"\ensuremath{\times}", "·": r"\ensuremath{\cdot}", "|": r"\textbar{}", "<": r"\textless{}"}
DASHES |= {">": r"\textgreater{}", "\u00a0": "~"}


def escaped(words: str) -> str:
    """Any text: labels and names of arms come from outside."""
    return "".join((ESCAPES | DASHES).get(character, character) for character in words)


def number(text: str) -> str:
    """`1,152`, `-12.9` and `n = 7` as LaTeX sets them, in text and in formulas."""
    signed = re.sub(r"[-+](?=\d)", lambda sign: rf"\ensuremath{{{sign[0]}}}", text)
    formulas = re.sub(r"\bn = (?=\d)", r"\\ensuremath{n} = ", signed)
    return re.sub(r"(?<=\d),(?=\d)", "{,}", formulas).replace(" %", r"\,\%")
