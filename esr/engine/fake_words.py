"""What the fake engine knows of language: topics, subjects and a token for each of their words.

A token is a word with its leading blank, or one character where a word is not known; decoding is concatenation.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

WORD = re.compile(r"\s?[^\W\d_]+|\s?\d+|\s|[^\w\s]|_")
FRAME = (
    "first then next after that also at last the wait is not right let me try again sorry i went off topic start over hold on "
    "this about question actually got distracted go back to"
)
CHARACTERS = 1 << 20
"""Ids from here on are single characters."""


def words(text: str) -> Iterator[str]:
    """Its words in lower case."""
    return (piece.strip().lower() for piece in WORD.findall(text) if piece.strip().isalpha())


@dataclass(frozen=True)
class Topic:
    """What one question, or one unrelated subject, is talked about with."""

    question: str
    verbs: tuple[str, ...]
    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset((*self.verbs, *self.nouns, *self.adjectives))

    @cached_property
    def own(self) -> frozenset[str]:
        """Its words and its question's."""
        return self.words | frozenset(words(self.question))


class Language:
    """Topics by question, subjects in order, and the tokens of their words."""

    BOS, END, USER, ASSISTANT = range(4)

    def __init__(self, topics: Sequence[Topic], subjects: Sequence[Topic]) -> None:
        self.topics = {topic.question: topic for topic in topics}
        self.subjects = tuple(subjects)
        self.known = {word: topic.words for topic in (*topics, *subjects) for word in topic.words}
        known = sorted({*self.known, *FRAME.split(), *(word for topic in topics for word in words(topic.question))})
        pieces = [form for word in known for base in (word, word.capitalize()) for form in (base, f" {base}")]
        self._ids = {piece: i for i, piece in enumerate(pieces, 4)}
        self._pieces = {i: piece for piece, i in self._ids.items()}
        self._found: dict[str, Topic] = {}
        self._turns: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str) -> tuple[int, ...]:
        ids: list[int] = []
        for piece in WORD.findall(text):
            known = self._ids.get(piece)
            ids += [known] if known is not None else [CHARACTERS + ord(character) for character in piece]
        return tuple(ids)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(i - CHARACTERS) if i >= CHARACTERS else self._pieces.get(i, "") for i in ids)

    def render(self, prompt: str, prefill: str | tuple[int, ...] = "") -> tuple[int, ...]:
        if prompt not in self._turns:
            self._turns[prompt] = (self.BOS, self.USER, *self.encode(prompt.strip()), self.ASSISTANT)
        return (*self._turns[prompt], *(self.encode(prefill) if isinstance(prefill, str) else prefill))

    def prompt_of(self, ids: Sequence[int]) -> str:
        """The user's turn of rendered ids; all of the text when there is no such turn."""
        if self.USER not in ids or self.ASSISTANT not in ids:
            return self.decode(ids)
        return self.decode(ids[ids.index(self.USER) + 1 : ids.index(self.ASSISTANT)])

    def topic(self, prompt: str) -> Topic:
        """The topic whose question begins the prompt; else one made of the prompt's own longer words."""
        if prompt not in self._found:
            known = next((topic for question, topic in self.topics.items() if prompt.startswith(question)), None)
            own = tuple(dict.fromkeys(word for word in words(prompt) if len(word) > 3)) or ("this",)
            self._found[prompt] = known or Topic("", ("take",), own, ())
        return self._found[prompt]

    def subject(self, label: str, latent: int) -> Topic:
        """What a latent talks about: its label's words, those first that a topic has, or without a label one of the subjects."""
        said = dict.fromkeys(word for word in words(label) if len(word) > 3)
        named = tuple(word for word in said if word in self.known) or tuple(said)
        return Topic("", ("consider",), named, ()) if named else self.subjects[latent % len(self.subjects)]

    def foreign(self, word: str, topic: Topic) -> bool:
        """Whether a word belongs to some topic or subject and not to this one."""
        return word in self.known and word not in topic.own


@cache
def opened() -> Language:
    """From the public topic data."""
    topics = [_topic(row, row["question"]) for row in _rows("topics.tsv")]
    return Language(topics, [_topic(row, "") for row in _rows("subjects.tsv")])


def _rows(name: str) -> list[dict[str, str]]:
    with (files("esr") / "organism" / "data" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def _topic(row: dict[str, str], question: str) -> Topic:
    return Topic(question, *(tuple(row[kind].split()) for kind in ("verbs", "nouns", "adjectives")))
