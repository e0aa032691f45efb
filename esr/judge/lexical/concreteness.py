"""How concrete a label is, by the same word lists."""

import re

from esr.judge.lexical.topics import forms, topics
from esr.judge.lexical.words import FUNCTION, META, WORD


def concreteness(label: str) -> float:
    """0 to 100: share of a label's content words that belong to one public question or subject; 0 for a label about words as such."""
    words = [w for w in WORD.findall(label.lower()) if w not in FUNCTION | META]
    if not words or re.search(r"\b(?:words?|tokens?|punctuation|letters?|text says)\b", label.lower()):
        return 0.0
    themes = [*topics().subjects.values(), *topics().questions.values()]
    return round(100 * max(sum(any(f in theme for f in forms(w)) for w in words) for theme in themes) / len(words), 1)
