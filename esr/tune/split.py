"""What is trained on and what is held out: questions apart from those of the evaluation, subjects apart from what is steered with.

A subject is out when it shares a word with the label of any latent that could be steered: the candidates of the draw, of which the
steered ones are some. Held-out parts are recorded with the reason.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from random import Random
from typing import Any

from esr import prompts
from esr.errors import ParamsError
from esr.organism import grammar
from esr.tune.settings import Tuning
from esr.types import Latent

WORD = re.compile(r"[a-z]{4,}")
FUNCTION = frozenset(
    [
        "about",
        "word",
        "where",
        "text",
        "says",
        "with",
        "that",
        "this",
        "from",
        "into",
        "when",
        "which",
        "their",
        "references",
        "mentions",
        "related",
    ]
)
"""Words of labels that say nothing of a subject."""


@dataclass(frozen=True, slots=True)
class Split:
    """What examples may be about."""

    questions: tuple[str, ...]
    held_out: tuple[str, ...]
    """Questions of the evaluation that no example asks; empty where training and evaluation share their questions, as the authors'."""
    subjects: tuple[str, ...]
    left_out: dict[str, str]
    """Subjects that share a word with a label that may be steered with, and that label."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, order=True)
class Wish:
    """One example to be written."""

    question: str
    subject: str = ""
    """Empty: an answer and nothing else."""
    number: int = 0
    """Of several that are alike."""


def split(tuning: Tuning, candidates: Iterable[Latent]) -> Split:
    evaluated = tuple(prompts.evaluation())
    apart = tuning.questions == "apart"
    questions = tuple(theme.name for theme in grammar.questions("further")) if apart else evaluated
    labels = {latent.label: words for latent in candidates if (words := telling(latent.label))}
    left_out: dict[str, str] = {}
    for theme in grammar.subjects():
        own = telling(theme.name) | theme.words
        if clash := next((label for label, words in sorted(labels.items()) if words & own), None):
            left_out[theme.name] = clash
    subjects = tuple(theme.name for theme in grammar.subjects() if theme.name not in left_out)
    return Split(questions, evaluated if apart else (), subjects, left_out)


@cache
def telling(text: str) -> frozenset[str]:
    """Words that say what a text is about."""
    return frozenset(WORD.findall(text.lower())) - FUNCTION - grammar.FORM_WORDS


def wishes(found: Split, masked: int, normal: int, rng: Random) -> tuple[list[Wish], list[Wish]]:
    """Spread evenly over the questions. A question meets every subject before it meets one again, in another example."""
    if not found.subjects:
        raise ParamsError(
            "every subject shares a word with a label that is steered with, so nothing is left to write off-topic examples about"
        )
    each, several = -(-masked // len(found.questions)), len(found.subjects)
    met = {question: rng.sample(found.subjects, min(each, several)) for question in found.questions}
    off = [Wish(question, met[question][i % several], i // several) for i in range(each) for question in found.questions]
    on = [Wish(question, number=i) for i in range(-(-normal // len(found.questions))) for question in found.questions]
    return off[:masked], on[:normal]
