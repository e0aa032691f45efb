"""What a text is made of, for the judge `topical`: its content words, brought to one form, with how much each of them counts."""

import math
from collections import Counter

from esr.judge.lexical.words import FUNCTION, WORD

ENDINGS = ("ing", "ed", "es", "s", "ly")
SHORTEST = 3
"""Letters that a word keeps when it loses its ending."""


def words(text: str) -> list[str]:
    return WORD.findall(text.lower().replace("’", "'"))


def terms(text: str) -> dict[str, float]:
    """Each content word's form, and 1 + ln of how often it stands there: a word that is said again says little that is new."""
    counted = Counter(form(word) for word in words(text) if word not in FUNCTION)
    return {term: 1 + math.log(n) for term, n in counted.items()}


def form(word: str) -> str:
    """The word without its ending: the same for most inflections of a word, and for few other words."""
    word = word.strip("'").removesuffix("'s")
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= SHORTEST:
            word = word.removesuffix(ending)
            break
    if len(word) > SHORTEST and word[-1] == word[-2]:
        word = word[:-1]
    if len(word) > SHORTEST and word[-1] == "e":
        return word[:-1]
    return word[:-1] + "y" if len(word) > SHORTEST and word[-1] == "i" else word
