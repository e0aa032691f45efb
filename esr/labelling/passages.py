"""A peak with the words around it, cut from the text by the tokens' own places in it."""

import re
from collections.abc import Sequence

from esr.judge import Passage
from esr.labelling.texts import Text

BEFORE, AFTER = 24, 8
"""Tokens shown on either side. A model reads forward, so what a latent fires on stands before it or on it."""


def passage(text: Text, at: int) -> Passage:
    """Around one of the text's own tokens."""
    lo, hi = text.spans[at]
    start, end = text.spans[max(0, at - BEFORE)][0], text.spans[min(len(text.spans) - 1, at + AFTER)][1]
    return Passage(before=text.text[start:lo], fires_on=text.text[lo:hi], after=text.text[hi:end])


def passages(texts: Sequence[Text], places: Sequence[tuple[int, int, float]]) -> list[Passage]:
    return [passage(texts[text], at) for text, at, _ in places]


def whole_word(found: Passage) -> str:
    """The word that the marked token is part of; the mark itself where it is no word."""
    mark = found.fires_on
    if not any(sign.isalnum() for sign in mark):
        return mark.strip()
    head = "" if mark[:1].isspace() else found.before[len(found.before) - len(_tail(found.before)) :]
    tail = "" if mark[-1:].isspace() else found.after[: len(_head(found.after))]
    return (head + mark + tail).strip()


def _tail(text: str) -> str:
    found = re.search(r"[\w'’]*$", text)
    return found.group() if found else ""


def _head(text: str) -> str:
    found = re.match(r"[\w'’]*", text)
    return found.group() if found else ""
