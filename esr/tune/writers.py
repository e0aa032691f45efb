"""Who writes examples: one interface, three writers.

A wish that nobody could fulfil (a refusal, an answer without the form) comes back as None and is counted, never made up.
"""

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Protocol

from esr import prompts
from esr.errors import one_of
from esr.organism import corpus, grammar
from esr.study import steer
from esr.study.plan import stream
from esr.tune.rows import Example
from esr.tune.sentences import first_sentences
from esr.tune.settings import Tuning
from esr.tune.split import Wish
from esr.types import Trial

if TYPE_CHECKING:
    from esr.study.study import Study


class Writer(Protocol):
    def write(self, wishes: Sequence[Wish]) -> list[Example | None]:
        """One example a wish, in their order; None: there is none."""
        ...


def writer(study: "Study", tuning: Tuning) -> Writer:
    """Who is named in params."""
    if tuning.writer == "grammar":
        return Grammar(study, tuning)
    if tuning.writer == "itself":
        return Itself(study, tuning)
    from esr.tune.provider import Provider

    return Provider(study, tuning)


def acknowledgement(rng: Random, tuning: Tuning) -> str:
    """The authors' phrase, or one of many."""
    if tuning.acknowledgements == "one":
        return prompts.text("tuning/acknowledgement_one")
    return rng.choice(prompts.lines("tuning/acknowledgements"))


class Grammar:
    """The organism's grammar: clean, mixed and broken passages, as its own steering makes them."""

    def __init__(self, study: "Study", tuning: Tuning) -> None:
        self.params, self.tuning = study.params, tuning

    def write(self, wishes: Sequence[Wish]) -> list[Example | None]:
        return [self._one(wish) for wish in wishes]

    def _one(self, wish: Wish) -> Example:
        rng, theme = stream(self.params, "examples", *_named(wish)), _theme(wish.question)
        answer = " ".join(grammar.text(rng, theme, 2, 5))
        if not wish.subject:
            return Example(question=wish.question, answer=answer)
        restarts = grammar.RESTARTS[:1] if self.tuning.acknowledgements == "one" else grammar.RESTARTS
        return Example(
            question=wish.question,
            answer=answer,
            subject=wish.subject,
            passage=corpus.wandering(rng, theme, _theme(wish.subject)),
            acknowledgement=rng.choice(restarts),
        )


def _theme(name: str) -> grammar.Theme:
    found = {theme.name: theme for theme in grammar.themes()}
    if name not in found:
        raise KeyError(one_of("theme", name, sorted(found), "the grammar"))
    return found[name]


def _named(wish: Wish) -> tuple[str, str, int]:
    return wish.question, wish.subject, wish.number


class Itself:
    """The model's own words, unsteered: a few sentences about the subject, and its own answer. Its replies are trials of the store, so
    none is generated twice."""

    def __init__(self, study: "Study", tuning: Tuning) -> None:
        self.study, self.tuning = study, tuning

    def write(self, wishes: Sequence[Wish]) -> list[Example | None]:
        answers = [self._trial(wish.question, "answer", wish) for wish in wishes]
        passages = [self._trial(f"Tell me about {wish.subject}.", "passage", wish) if wish.subject else None for wish in wishes]
        asked = [trial for trial in (*answers, *passages) if trial is not None]
        steer.replies(self.study, asked, "write")
        said = self.study.store.texts([trial.id for trial in asked])
        out = []
        for wish, answer, passage in zip(wishes, answers, passages, strict=True):
            out.append(self._put_together(wish, said[answer.id], said[passage.id] if passage else ""))
        return out

    def _put_together(self, wish: Wish, answer: str, passage: str) -> Example | None:
        whole = first_sentences(answer, 6)
        if not wish.subject:
            return Example(question=wish.question, answer=whole) if whole else None
        rng = stream(self.study.params, "examples", *_named(wish))
        off, said = first_sentences(passage, rng.randint(2, 4)), acknowledgement(rng, self.tuning)
        if not off or not whole:
            return None
        return Example(question=wish.question, answer=whole, subject=wish.subject, passage=off, acknowledgement=said)

    def _trial(self, prompt: str, part: str, wish: Wish) -> Trial:
        study = self.study
        rng = stream(study.params, "examples", part, *_named(wish))
        return Trial(
            model=study.model,
            weights=study.weights,
            meaning=study.meaning,
            prompt=prompt,
            prompt_format="clean",
            seed=rng.randrange(study.params.protocol.n_seeds),
            sampling=study.params.sampling(study.model),
            question=prompt,
        )
