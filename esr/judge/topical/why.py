"""What an attempt's score rests on: its terms by the evidence that each gives. Tells of the score and changes none."""

from collections.abc import Mapping
from dataclasses import dataclass

from esr.judge.lexical.score import asked_in, fluency
from esr.judge.lexical.words import FUNCTION
from esr.judge.topical.judge import Topical
from esr.judge.topical.reference import UNKNOWN, share
from esr.judge.topical.terms import form, terms, words


@dataclass(frozen=True, slots=True)
class Why:
    on: Mapping[str, int]
    """Words for being on topic, what gives most evidence first, with how often each stands there."""
    off: Mapping[str, int]
    """Words against it."""
    share: float
    """Of the evidence, what is for it."""
    floor: float
    full: float
    fluency: float

    def sentence(self) -> str:
        return (
            f"{self.share:.0%} of the evidence of its words is for the question, where {self.floor:.0%} earns 0 and {self.full:.0%} earns 100; "
            f"it reads as text to {self.fluency:.0%}"
        )


def why(judge: Topical, prompt: str, text: str) -> Why | None:
    """None: the reference does not hold the question."""
    question = judge.reference.question(asked_in(prompt))
    if question is None:
        return None
    weights, known = judge.reference.weights[question], judge.reference.known[question]
    said: dict[str, dict[str, int]] = {}
    for word in words(text):
        if word not in FUNCTION:
            of = said.setdefault(form(word), {})
            of[word] = of.get(word, 0) + 1
    found = terms(text)
    given = {term: times * weights.get(term, -UNKNOWN) for term, times in found.items()}

    def told(sign: int) -> dict[str, int]:
        """The commonest word of each term, by its evidence."""
        some = sorted((term for term in given if given[term] * sign > 0), key=lambda term: -abs(given[term]))
        return {max(said[term], key=lambda word: said[term][word]): sum(said[term].values()) for term in some}

    return Why(told(1), told(-1), share(found, weights), known.floor, known.full, fluency(words(text)))
