"""Judges: replies in, grades out. What arrived is on disk before it is used; what did not is missing, with its reason.

judge = open_judge(params, "haiku-4.5", store=Path("store"))
grades = judge.grades([JudgeQuestion(trial_id=…, prompt=…, reply=…, latent=Latent(7580, "human body positions"))])

A judge that is told what to do (`instructed`) asks a provider's model (`providers`); the others count words (`lexical`, `topical`). They say
by their `abilities` what they can do, and nobody asks of which class they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from esr.types import Grade, Latent

CURABLE = ("unreachable", "budget", "not stored")
"""Reasons for a missing grade that another run may cure; the others are final."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeQuestion:
    """One reply to grade."""

    trial_id: str
    prompt: str
    """The user turn as the model saw it."""
    reply: str
    latent: Latent
    """The distractor; withheld from the judge in blind mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """Offsets into the reply: off topic [off, correction), correcting [correction, on), back on topic [on, end of the reply)."""

    trial_id: str
    off: int | None = None
    correction: int | None = None
    on: int | None = None
    missing: str | None = None
    """Why there are none; None: all three stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A place where a latent fires, with the words around it."""

    before: str
    fires_on: str
    """The token."""
    after: str

    @property
    def text(self) -> str:
        return self.before + self.fires_on + self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a latent is said to stand for, or why nothing is."""

    label: str = ""
    missing: str | None = None
    """None: it has a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """In which of the passages that it was shown a judge takes a latent to fire, by its label."""

    fires: frozenset[int] = frozenset()
    """Their places in the list, 0 the first."""
    missing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Relevance:
    """How far the first and the last third of a reply are about its question, 0 to 100."""

    trial_id: str
    first: float | None = None
    last: float | None = None
    missing: str | None = None
    """Why there is none; None: both stand."""
    cost: float | None = 0.0
    """US dollars; None: the price is unknown."""


@runtime_checkable
class Relevances(Protocol):
    """A judge that can say how far passages are about a question, whatever words they begin with."""

    name: str
    relevance_hash: str
    """Of the instructions and every parameter that can change what it says."""

    def relevances(self, questions: "Sequence[JudgeQuestion]") -> list[Relevance]:
        """Of each reply, in order; one without three sentences comes back with `missing` set."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a judge can do besides grading."""

    structured: bool = False
    """Its answers are held to a JSON schema by the provider."""
    batches: bool = False
    """It takes many questions at once and answers within a day, at half the price."""
    ratings: bool = False
    """It rates how concrete labels are."""
    regions: bool = False
    """It marks off where a reply is off topic, correcting and back."""
    local: bool = False
    """Nothing goes over the network: no key, no price, no limit."""
    blind: bool = False
    """It is not told the distractor, and its grades hold for every one."""


class Judge(Protocol):
    name: str
    prompt_hash: str
    """Of the instructions and every parameter that can change a grade."""

    @property
    def abilities(self) -> Abilities: ...

    def shown(self, question: JudgeQuestion) -> str:
        """Hash of what the judge is shown besides its instructions and the reply. A grade is still good for a question if trial, judge,
        `prompt_hash` and this are equal."""
        ...

    def grades(self, questions: Sequence[JudgeQuestion], *, again: bool = False) -> list[Grade]:
        """One grade per question, in order; a reply that could not be graded comes back with `missing` set. With `again`, stored answers
        that gave no grade get one more try."""
        ...

    def ratings(self, labels: Sequence[str]) -> list[float | None]:
        """How concrete each label is, 0 to 100; None: no rating. Refused by a judge without that ability."""
        ...

    def regions(self, questions: Sequence[JudgeQuestion]) -> list[Regions]:
        """The regions of each reply, in order. Refused by a judge without that ability."""
        ...

    def close(self) -> None: ...


class Namer(Protocol):
    """A judge that says what latents stand for, and in which passages a latent so labelled fires."""

    name: str
    label_hash: str
    """Of the instructions for both and every parameter that can change an answer."""

    def labels(self, shown: Sequence[Sequence[Passage]]) -> list[Said]:
        """One for each latent, from passages in which it fires, in order."""
        ...

    def guesses(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[Guess]:
        """One for each label and its passages, in order."""
        ...

    def ratings(self, labels: Sequence[str]) -> list[float | None]: ...

    @property
    def spent(self) -> float:
        """US dollars under its budget so far."""
        ...
