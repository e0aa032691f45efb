"""Who says what a latent stands for, under one contract: `local`, which counts words, and a judge of params.yaml, who is asked."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from esr.judge import CURABLE, Guess, Namer, Passage, Said
from esr.labelling import local
from esr.labelling.concreteness import concreteness
from esr.labelling.evidence import FIRES, Evidence
from esr.labelling.passages import AFTER, BEFORE, passage, passages
from esr.labelling.score import Bag, Score, auc, balanced
from esr.labelling.texts import Text
from esr.labelling.words import Counts

SHOWN = 10
"""Passages of either kind, the strongest and drawn ones, that a judge is shown for a label."""
TESTED = 8
"""Passages of either kind, in which the latent fires and in which it does not, that a label is tested on."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts and what fires in them."""

    key: str
    texts: Sequence[Text]
    evidence: Evidence
    confidence: float
    seed: int

    @property
    def held(self) -> list[int]:
        """Numbers of the held-out texts, in the order of the evidence's bits."""
        return [i for i, text in enumerate(self.texts) if text.held]

    def shown(self, latent: int, most: int | None = None) -> list[Passage]:
        """Where it fires outside the held-out texts, the strongest first; of both kinds at most so many."""
        top = self.evidence.top.of(latent)[:most]
        known = {text for text, _, _ in top}
        least = self.evidence.largest[latent] * FIRES
        some = [place for place in self.evidence.some.of(latent) if place[0] not in known][:most]
        return passages(self.texts, [*(place for place in top if place[2] >= least), *sorted(some, key=lambda place: -place[2])])


@dataclass(frozen=True, slots=True)
class Verdict:
    """A label's score, or why it has none."""

    score: Score | None = None
    missing: str | None = None


class Labeller(Protocol):
    name: str
    hash: str
    """Of its rules or instructions: another one is another labeller."""
    method: str
    """How its labels are scored: `words` or `detection`."""
    curable: bool
    """Something is missing that another call may bring."""

    def labels(self, latents: Sequence[int]) -> list[Said]: ...
    def scores(self, latents: Sequence[int], labels: Sequence[str]) -> list[Verdict]: ...
    def ratings(self, latents: Sequence[int], labels: Sequence[str]) -> list[float | None]: ...


class Local:
    name, hash, method, curable = local.NAME, local.HASH, "words", False

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        seen = [text for text in corpus.texts if not text.held]
        self._background = Counts.among(part for text in seen for part in windows(text))
        self._bag = Bag([corpus.texts[i].text for i in corpus.held])

    def labels(self, latents: Sequence[int]) -> list[Said]:
        return [local.label(self.corpus.shown(latent), self._background) for latent in latents]

    def scores(self, latents: Sequence[int], labels: Sequence[str]) -> list[Verdict]:
        fires, confidence = self.corpus.evidence.fires, self.corpus.confidence
        return [Verdict(auc(self._bag.share(label), fires(k), confidence)) for k, label in zip(latents, labels, strict=True)]

    def ratings(self, latents: Sequence[int], labels: Sequence[str]) -> list[float | None]:
        shown = [[p.text for p in self.corpus.shown(latent)] for latent in latents]
        return [concreteness(label, texts) for label, texts in zip(labels, shown, strict=True)]


class Asked:
    """A judge behind an interface."""

    method = "detection"

    def __init__(self, corpus: Corpus, namer: Namer) -> None:
        self.corpus, self.namer = corpus, namer
        self.name, self.hash, self.curable = namer.name, namer.label_hash, False

    def labels(self, latents: Sequence[int]) -> list[Said]:
        said = self.namer.labels([self.corpus.shown(latent, SHOWN) for latent in latents])
        self._note(one.missing for one in said)
        return said

    def scores(self, latents: Sequence[int], labels: Sequence[str]) -> list[Verdict]:
        tests = [self.test(latent) for latent in latents]
        said = self.namer.guesses([(label, texts) for label, (texts, _) in zip(labels, tests, strict=True)])
        self._note(one.missing for one in said)
        return [self._verdict(guess, texts, where) for guess, (texts, where) in zip(said, tests, strict=True)]

    def ratings(self, latents: Sequence[int], labels: Sequence[str]) -> list[float | None]:
        return self.namer.ratings(labels)

    def test(self, latent: int) -> tuple[list[str], frozenset[int]]:
        """Held-out passages in an order of their own, and the places of those in which the latent fires."""
        rng = random.Random(f"{self.corpus.seed}/test/{latent}")
        yes = [p.text for p in passages(self.corpus.texts, self.corpus.evidence.held.of(latent)[:TESTED])]
        silent = [self.corpus.held[i] for i in np.flatnonzero(~self.corpus.evidence.fires(latent)).tolist()]
        others = [self.corpus.texts[i] for i in rng.sample(silent, min(TESTED, len(silent)))]
        no = [passage(text, rng.randrange(len(text.ids))).text for text in others]
        order = rng.sample(range(len(yes) + len(no)), len(yes) + len(no))
        return [(yes + no)[i] for i in order], frozenset(place for place, i in enumerate(order) if i < len(yes))

    def _verdict(self, guess: Guess, texts: Sequence[str], where: frozenset[int]) -> Verdict:
        if guess.missing:
            return Verdict(missing=guess.missing)
        yes, no, wrong = len(where), len(texts) - len(where), len(guess.fires - where)
        return Verdict(balanced(len(guess.fires & where), yes, no - wrong, no, self.corpus.confidence))

    def _note(self, missing: Iterable[str | None]) -> None:
        self.curable |= any(reason in CURABLE for reason in missing)


def windows(text: Text) -> list[str]:
    """A text in passages as long as those around a peak."""
    step = BEFORE + AFTER + 1
    return [passage(text, min(at + BEFORE, len(text.ids) - 1)).text for at in range(0, len(text.ids), step)]
