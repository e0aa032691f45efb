"""What replies to each question are made of: in how many of a model's own unsteered replies each term stands. All that the judge knows.

Terms are counted and no text is kept: a word's weight needs no more, and the file stays small. What an ordinary reply comes to, and one
to another question, is measured when the reference is made, each reply against the others (its own terms taken off the counts).
"""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esr.errors import JudgeError
from esr.judge.lexical.words import WORD
from esr.judge.topical.terms import terms
from esr.types import content_id

FORM = 1
"""Of the file."""
ADDED = 0.1
"""Replies that a term is taken to stand in beside those counted, at every question, so that none is impossible."""
UNKNOWN = 2.0
"""Evidence against by a term that stands in no reply to any question: it is e² times as frequent in text about something else."""
PRIOR = 4.0
"""Evidence against every text, so that one right word is no answer yet."""
FULL, FLOOR = 0.6, 0.75
"""The share of on-topic evidence that this quantile of a question's own replies reaches earns 100; of replies to the others, 0."""
FEWEST = 4
"""Replies to a question, below which nothing is known of it."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Known:
    """One question, and what replies to it are made of."""

    replies: int
    floor: float
    """Share of on-topic evidence that earns 0."""
    full: float
    """And the one that earns 100."""
    terms: Mapping[str, int]
    """Term → replies that hold it."""


@dataclass(frozen=True, eq=False)
class Reference:
    made: Mapping[str, Any]
    """Of which model's replies, how sampled. Tells, and is no part of what the judge is."""
    known: Mapping[str, Known]
    """By question."""

    @cached_property
    def sha256(self) -> str:
        return content_id(FORM, {question: asdict(one) for question, one in self.known.items()})

    @cached_property
    def _asked(self) -> dict[str, str]:
        return {_plain(question): question for question in self.known}

    def question(self, asked: str) -> str | None:
        """The question in the words of the reference, whatever its case and punctuation; None: there are no replies to it."""
        return self._asked.get(_plain(asked))

    @cached_property
    def weights(self) -> dict[str, dict[str, float]]:
        """By question, of each term: evidence for (> 0) or against (< 0) a text being about it, the natural logarithm of how much more
        often its replies hold the term than replies to the others do on average."""
        names = sorted({term for one in self.known.values() for term in one.terms})
        at = {term: i for i, term in enumerate(names)}
        held = np.zeros((len(names), len(self.known)))
        for column, one in enumerate(self.known.values()):
            for term, n in one.terms.items():
                held[at[term], column] = n
        found = evidence(held, np.array([one.replies for one in self.known.values()], float))
        return {q: dict(zip(names, found[:, i].tolist(), strict=True)) for i, q in enumerate(self.known)}

    @classmethod
    def of(cls, replies: Sequence[tuple[str, str]], made: Mapping[str, Any]) -> "Reference":
        """From pairs of question and reply."""
        questions = list(dict.fromkeys(question for question, _ in replies))
        texts = [(questions.index(question), terms(reply)) for question, reply in replies]
        counts = [Counter[str]() for _ in questions]
        for place, found in texts:
            counts[place].update(found.keys())
        n = Counter(place for place, _ in texts)
        if len(questions) < 2 or min(n.values()) < FEWEST:
            fewest = min(n.values(), default=0)
            raise JudgeError(
                f"a reference of {len(questions)} questions with {fewest} replies to one says nothing; "
                f"it takes two questions or more with {FEWEST} replies or more to each"
            )
        floors, fulls = _scales(texts, counts, np.array([n[i] for i in range(len(questions))], float))
        known = {
            question: Known(n[i], floors[i], fulls[i], dict(sorted(counts[i].items()))) for i, question in enumerate(questions)
        }
        return cls(made, known)

    @classmethod
    def read(cls, path: Path) -> "Reference":
        try:
            told = json.loads(gzip.decompress(path.read_bytes()))
            if told["form"] != FORM:
                raise JudgeError(f"{path.name} has form {told['form']!r} and this version reads {FORM}; make it again")
            return cls(told["made"], {question: Known(**one) for question, one in told["questions"].items()})
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
            raise JudgeError(f"{path.name} is no reference ({type(error).__name__}: {error}); make it again") from None

    def write(self, path: Path) -> None:
        """The same bytes for the same content."""
        told = {"form": FORM, "made": dict(self.made), "questions": {question: asdict(one) for question, one in self.known.items()}}
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.new")
        aside.write_bytes(gzip.compress(json.dumps(told, ensure_ascii=False).encode(), mtime=0))
        aside.replace(path)


def evidence(held: Floats, replies: Floats) -> Floats:
    """[terms, questions] from how many replies hold each term, of how many."""
    rates = (held + ADDED) / (replies + 2 * ADDED)
    others = (rates.sum(1, keepdims=True) - rates) / (len(replies) - 1)
    out: Floats = np.log(rates / others)
    return out


def share(found: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Evidence for over all evidence, of terms by how much each counts."""
    good = bad = 0.0
    for term, times in found.items():
        one = weights.get(term, -UNKNOWN)
        if one > 0:
            good += times * one
        else:
            bad -= times * one
    return good / (good + bad + PRIOR)


def _scales(
    texts: Sequence[tuple[int, Mapping[str, float]]], counts: Sequence[Mapping[str, int]], replies: Floats
) -> tuple[list[float], list[float]]:
    """Each question's shares that earn 0 and 100, every reply held against the counts without it."""
    own: list[list[float]] = [[] for _ in replies]
    theirs: list[list[float]] = [[] for _ in replies]
    for place, found in texts:
        held = np.array([[one.get(term, 0) for one in counts] for term in found], float).reshape(-1, len(replies))
        held[:, place] -= 1
        fewer = replies.copy()
        fewer[place] -= 1
        weights = np.where(held.sum(1, keepdims=True) > 0, evidence(held, fewer), -UNKNOWN)
        times = np.array(list(found.values()))
        good, bad = times @ np.maximum(weights, 0), times @ np.maximum(-weights, 0)
        for at, one in enumerate((good / (good + bad + PRIOR)).tolist()):
            (own if at == place else theirs)[at].append(one)
    floors = [round(float(np.quantile(some, FLOOR)), 4) for some in theirs]
    fulls = [round(float(np.quantile(some, FULL)), 4) for some in own]
    return floors, [max(full, floor + 0.1) for full, floor in zip(fulls, floors, strict=True)]


def _plain(question: str) -> str:
    return " ".join(WORD.findall(question.lower()))
