"""How far a passage is about a question and reads as text, by counting words."""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from esr.judge.lexical.topics import View, topics
from esr.judge.lexical.words import ARTICLES, AUXILIARIES, CONJUNCTIONS, DETERMINERS, FUNCTION, PREPOSITIONS, WORD

UNKNOWN = 0.1
"""A content word that no list knows, against an attempt at a known question."""
UNKNOWN_FREE = 0.4
"""The same word for an attempt at a question that no list knows, where it may well be on topic."""
PRIOR = 0.5
"""Evidence against every attempt, so that one right word is no answer yet."""
FULL = 0.9
"""Share of on-topic evidence that earns 100."""
LOOP_FREE, LOOP_FULL = 0.15, 0.6
"""Share of repeated three-word sequences that costs nothing, and that costs everything."""


QUESTION_END = re.compile(r"(?<=[.?!])\s")


@lru_cache(maxsize=4096)
def view_of(question: str) -> View:
    return topics().view(question)


def asked_in(prompt: str) -> str:
    """The question that a user turn opens with; what follows its first sentence is instruction."""
    return QUESTION_END.split(prompt.strip(), maxsplit=1)[0]


def score(prompt: str, text: str) -> float:
    """0 to 100: how far `text`, taken as one attempt, is about the question and reads as text."""
    words = WORD.findall(text.lower().replace("’", "'"))
    view = view_of(asked_in(prompt))
    return round(100 * _relevance(words, view) * fluency(words), 1)


def _relevance(words: Sequence[str], view: View) -> float:
    weights, good, bad, unknown, asked = view.weights, 0.0, 0.0, 0, set[str]()
    for word in words:
        weight = weights[word] if word in weights else view.weight(word)
        if weight is None:
            unknown += 1
        elif weight > 0:
            good += weight
            asked.add(word)
        else:
            bad -= weight
    if view.known:
        return min(1.0, good / (FULL * (good + bad + UNKNOWN * unknown + PRIOR)))
    named = min(1.0, len(asked & view.asked) / 2)
    likely = good + UNKNOWN_FREE * unknown
    return min(1.0, likely / (FULL * (likely + bad + PRIOR))) * (0.3 + 0.7 * named)


def fluency(words: Sequence[str]) -> float:
    """1 for text, towards 0 for loops and for words in no order."""
    n = len(words)
    if n < 5:
        return 1.0 if len(set(words)) == n or n < 3 else len(set(words)) / n
    triples = set(zip(words, words[1:], words[2:], strict=False))
    repeated = 1 - len(triples) / (n - 2)
    doubled = sum(a == b for a, b in pairwise(words)) / (n - 1)
    loop = _fall(repeated, LOOP_FREE, LOOP_FULL) * _fall(doubled, 0.03, 0.4)
    broken = sum(pair in BROKEN for pair in pairwise(words)) / (n - 1)
    glue = sum(word in FUNCTION for word in words) / n
    salad = _fall(broken, 0.03, 0.2) * min(1.0, 0.2 + glue / 0.2)
    return loop * salad


def _fall(value: float, free: float, full: float) -> float:
    return 1.0 if value <= free else max(0.0, 1 - (value - free) / (full - free))


BROKEN = frozenset(
    (a, b)
    for firsts, seconds in (
        (ARTICLES, DETERMINERS | PREPOSITIONS | CONJUNCTIONS | AUXILIARIES),
        (CONJUNCTIONS, CONJUNCTIONS),
        (
            PREPOSITIONS - {"to", "by", "in", "on", "over", "around", "along", "through", "about", "near"},
            CONJUNCTIONS | AUXILIARIES,
        ),
    )
    for a in firsts
    for b in seconds
    if (a, b) not in {("and", "or")}
)
"""Pairs of function words that English does not put side by side."""
