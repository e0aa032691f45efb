"""What an attempt's score rests on: its words by what they say about the question. Tells of the score and changes none."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from esr.judge.lexical.score import UNKNOWN, UNKNOWN_FREE, asked_in, view_of
from esr.judge.lexical.words import WORD


@dataclass(frozen=True, slots=True)
class Why:
    on: Mapping[str, int]
    """Words for being on topic, the most frequent first, with how often each stands there."""
    off: Mapping[str, int]
    """Words against it."""
    unknown: int
    """Words that no list knows; each counts a little, against an attempt at a question that the lists hold, else for it."""
    words: int
    known: bool
    """Whether the lists hold the question; else only its own words are known to be on topic."""

    def sentence(self) -> str:
        by = "against" if self.known else "for"
        weight = UNKNOWN if self.known else UNKNOWN_FREE
        lists = "" if self.known else "; the lists do not hold this question, so its own words are all that is known to be on topic"
        return (
            f"{sum(self.on.values())} of {self.words} words are of the question's topic and {sum(self.off.values())} of other topics; "
            f"{self.unknown} in no list, which count {weight:g} each {by} it{lists}"
        )


def why(prompt: str, text: str) -> Why:
    words = WORD.findall(text.lower().replace("’", "'"))
    view = view_of(asked_in(prompt))
    weights = [view.weights[word] if word in view.weights else view.weight(word) for word in words]
    on = Counter(word for word, weight in zip(words, weights, strict=True) if weight is not None and weight > 0)
    off = Counter(word for word, weight in zip(words, weights, strict=True) if weight is not None and weight < 0)
    return Why(dict(on.most_common()), dict(off.most_common()), sum(weight is None for weight in weights), len(words), view.known)
