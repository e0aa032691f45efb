"""Judges: replies in, grades out. What arrived is on disk before it is used; what did not is missing, with its reason.

judge = open_judge(params, "haiku-4.5", store=Path("store"))
grades = judge.grades([Ask(trial_id=…, prompt=…, reply=…, latent=Latent(7580, "human body positions"))])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from esr.types import Grade, Latent


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One reply to grade."""

    trial_id: str
    prompt: str
    """The user turn as the model saw it."""
    reply: str
    latent: Latent
    """The distractor; withheld from the judge in blind mode."""


class Judge(Protocol):
    name: str
    prompt_hash: str
    """Of the instructions and every parameter that can change a grade."""

    def grades(self, asks: Sequence[Ask]) -> list[Grade]:
        """One grade per ask, in order; a reply that could not be graded comes back with `missing` set."""
        ...

    def close(self) -> None: ...
