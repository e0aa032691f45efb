"""What judging costs: a price per call from the provider's own count of tokens. An unknown price is unknown, never nothing."""

from collections.abc import Iterable
from dataclasses import dataclass

from esr.params import JudgeParams
from esr.types import Grade

CHARACTERS_PER_TOKEN = 4.0
"""Rule of thumb for English; only for estimates."""
MILLION = 1_000_000


def price(judge: JudgeParams, input_tokens: int | None, output_tokens: int | None, *, batch: bool) -> float | None:
    """US dollars of one call."""
    price_in, price_out = (judge.price_in_batch, judge.price_out_batch) if batch else (judge.price_in, judge.price_out)
    if price_in is None or price_out is None or input_tokens is None or output_tokens is None:
        return None
    return (input_tokens * price_in + output_tokens * price_out) / MILLION


@dataclass(frozen=True, slots=True)
class Bill:
    """The cost of many grades."""

    known: float
    """US dollars of the calls whose price is known."""
    unknown: int
    """Grades whose price is not."""
    input_tokens: int
    output_tokens: int

    def __str__(self) -> str:
        return f"${self.known:.2f}" + (f" and {self.unknown} of unknown price" if self.unknown else "")


def bill(grades: Iterable[Grade]) -> Bill:
    """What these grades cost when they were asked for. Two grades read from one answer cost once, and one that no call was made for
    nothing."""
    asked = list({grade.answer_key: grade for grade in grades if grade.answer_key}.values())
    return Bill(
        known=sum(grade.cost for grade in asked if grade.cost is not None),
        unknown=sum(grade.cost is None for grade in asked),
        input_tokens=sum(grade.input_tokens for grade in asked),
        output_tokens=sum(grade.output_tokens for grade in asked),
    )
