"""What the words of a reply say about a question: public word lists, and for a question that they do not hold, its own words."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from esr.judge.lexical.words import FUNCTION, HOW_TO, META, WORD

OTHER_SUBJECT = 1.5
"""A word of an encyclopaedic subject weighs this much against an attempt; an on-topic word weighs 1 for it."""
OTHER_TOPIC = 0.8
"""A word of another how-to topic, divided by the number of topics that share it."""


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
