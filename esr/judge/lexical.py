"""The lexical judge: local, deterministic and free, under the contract of every judge.

It marks off attempts at explicit restarts (restarts.py) and scores each by what its words are about: the share of
on-topic words among those that tell, less for words of an unrelated subject, scaled down by loops and by word salad. What
questions and subjects are about comes from public data; for any other how-to question, from the question's own words. It
never looks at the distractor it is told of, nor at how the reply was made.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from itertools import pairwise

from esr.judge import Ask
from esr.judge.restarts import Span, passages, restarts
from esr.judge.words import (
    ARTICLES,
    AUXILIARIES,
    CONJUNCTIONS,
    DETERMINERS,
    FUNCTION,
    HOW_TO,
    META,
    PREPOSITIONS,
    WORD,
)  # fmt: skip
from esr.params import Params
from esr.types import Attempt, Grade

OTHER_SUBJECT = 1.5
"""A word of an encyclopaedic subject weighs this much against an attempt; an on-topic word weighs 1 for it."""
OTHER_TOPIC = 0.8
"""A word of another how-to topic, divided by the number of topics that share it."""
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


@dataclass(slots=True)
class View:
    """What each word says about one question; grows by the words met."""

    known: bool
    """The question is in the public data."""
    asked: frozenset[str]
    """Forms of the question's own content words."""
    weights: dict[str, float | None] = field(default_factory=dict)
    """For (> 0) or against (< 0) being on topic; 0: says nothing; None: no list knows the word."""

    def weight(self, word: str) -> float | None:
        for form in forms(word):
            if form in self.weights:
                return self.weights[form]
        return None


def forms(word: str) -> list[str]:
    """The word and what it may be an inflection of, nearest first."""
    word = word.removesuffix("'s").strip("'")
    out = [word]
    if word.endswith("ies") and len(word) > 4:
        out.append(word[:-3] + "y")
    if word.endswith("es") and len(word) > 4:
        out.append(word[:-2])
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        out.append(word[:-1])
    for ending in ("ing", "ed", "er", "ly"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 2:
            out += [stem, stem + "e", *([stem[:-1]] if stem[-1] == stem[-2] else [])]
            if ending == "ed" and stem.endswith("i"):
                out.append(stem[:-1] + "y")
    return out


@dataclass(frozen=True, slots=True)
class Topics:
    """The public word lists, and the views that were made of them."""

    questions: dict[str, frozenset[str]]
    """Normalised question → its words."""
    subjects: dict[str, frozenset[str]]

    def view(self, question: str) -> View:
        """What words say about `question`: its own list if the data has it or nearly has it, else its own words alone."""
        asked = frozenset(w for w in WORD.findall(question.lower()) if w not in FUNCTION | HOW_TO | META)
        asked = frozenset(form for w in asked for form in forms(w))
        own = self.questions.get(_plain(question)) or self._nearest(asked)
        view = View(known=own is not None, asked=asked)
        shared = Counter(word for words in self.questions.values() for word in words)
        view.weights.update(dict.fromkeys(FUNCTION | HOW_TO | META, 0.0))
        for word, count in shared.items():
            view.weights.setdefault(word, -OTHER_TOPIC / count)
        for words in self.subjects.values():
            view.weights.update(dict.fromkeys(words, -OTHER_SUBJECT))
        for word in own or ():
            view.weights.update(dict.fromkeys(forms(word), 1.0))
        view.weights.update(dict.fromkeys(asked, 1.0))
        return view

    def _nearest(self, asked: frozenset[str]) -> frozenset[str] | None:
        """The list of a question that asks the same in other words."""
        best, words = 0.0, None
        for question, listed in self.questions.items():
            mine = {w for w in WORD.findall(question) if w not in FUNCTION | HOW_TO | META}
            overlap = len(mine & asked) / max(1, len(mine | {w for w in asked if forms(w)[-1] == w}))
            if overlap > best:
                best, words = overlap, listed
        return words if best >= 0.6 else None


def _plain(question: str) -> str:
    return " ".join(WORD.findall(question.lower()))


def _rows(name: str) -> list[list[str]]:
    lines = files("esr").joinpath("organism", "data", name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines[1:] if line.strip()]


@cache
def topics() -> Topics:
    questions = {_plain(row[1]): frozenset(" ".join([*row[2:], _bare(row[1])]).split()) for row in _rows("topics.tsv")}
    subjects = {row[0]: frozenset(" ".join([*row[1:], _bare(row[0])]).split()) for row in _rows("subjects.tsv")}
    return Topics(questions, subjects)


def _bare(text: str) -> str:
    """The content words of a question or a subject's name."""
    return " ".join(w for w in WORD.findall(text.lower()) if w not in FUNCTION | HOW_TO | META)


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
    return round(100 * _relevance(words, view) * _fluency(words), 1)


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


def _fluency(words: Sequence[str]) -> float:
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

ASKS_BACK = re.compile(r"\b(?:you|your)\b|^(?:what|which|could|can|would|do|did|are|is|please)\b", re.IGNORECASE)
DECLINES = re.compile(
    r"\b(?:i(?:'m|\s+am)\s+(?:sorry|unable|not\s+able)|i\s+(?:can(?:'t|not)|won't|will\s+not|must\s+decline)|please\s+(?:clarify|tell|provide|specify|give|let"
    r"\s+me\s+know)|i(?:'d|\s+would)\s+need\s+(?:to\s+know|more)|i\s+need\s+more|i\s+don't\s+(?:understand|know\s+what)|let\s+me\s+know|happy\s+to\s+help|thank(?:s|\s+you)\s+for)\b",
    re.IGNORECASE,
)
SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")


def attempts_nothing(reply: str) -> bool:
    """Nothing but a question back or a refusal."""
    if len(reply) > 400:
        return False
    pieces = [p.strip() for p in SENTENCE.findall(reply.replace("’", "'")) if WORD.search(p.lower())]
    return bool(pieces) and all((p.endswith("?") and ASKS_BACK.search(p)) or DECLINES.search(p) for p in pieces)


def _nonsense(reply: str) -> list[Span]:
    """A reply of empty words that is no restart either: an attempt, if a vain one."""
    text = reply.strip()
    if restarts(reply) or not any(c.isalnum() for c in text):
        return []
    start = reply.index(text)
    return [Span(start, start + len(text))]


class Lexical:
    """The Judge protocol over the rules above."""

    def __init__(self, name: str = "lexical") -> None:
        self.name = name
        self.prompt_hash = fingerprint()

    def grades(self, asks: Sequence[Ask]) -> list[Grade]:
        return [self._grade(ask) for ask in asks]

    def ratings(self, labels: Sequence[str]) -> list[float]:
        """Concreteness, 0 to 100."""
        return [concreteness(label) for label in labels]

    def close(self) -> None:
        pass

    def _grade(self, ask: Ask) -> Grade:
        found = [] if attempts_nothing(ask.reply) else passages(ask.reply) or _nonsense(ask.reply)
        texts = [(span, ask.reply[span.start : span.end]) for span in found]
        return Grade(
            trial_id=ask.trial_id,
            latent=ask.latent.index,
            judge=self.name,
            judge_prompt=self.prompt_hash,
            attempts=tuple(Attempt(score(ask.prompt, text), text, span.start, span.end) for span, text in texts),
            missing=None if texts else "no attempt",
            cost=0.0,
        )


def open_lexical(params: Params, name: str) -> Lexical:
    return Lexical(params.judge(name).name)


def concreteness(label: str) -> float:
    """0 to 100: share of a label's content words that belong to one public question or subject; 0 for a label about words as such."""
    words = [w for w in WORD.findall(label.lower()) if w not in FUNCTION | META]
    if not words or re.search(r"\b(?:words?|tokens?|punctuation|letters?|text says)\b", label.lower()):
        return 0.0
    themes = [*topics().subjects.values(), *topics().questions.values()]
    return round(100 * max(sum(any(f in theme for f in forms(w)) for w in words) for theme in themes) / len(words), 1)


@cache
def fingerprint() -> str:
    """Hash of the judge's code and data: another rule or another word list is another judge."""
    parts = [files("esr.judge").joinpath(name).read_bytes() for name in ("lexical.py", "restarts.py", "words.py")]
    parts += [files("esr").joinpath("organism", "data", name).read_bytes() for name in ("topics.tsv", "subjects.tsv")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
