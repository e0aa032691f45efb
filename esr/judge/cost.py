"""What judging costs: a price per call from the provider's own count of tokens. An unknown price is unknown, never nothing."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from esr.errors import JudgeError
from esr.judge.request import Answer
from esr.params import JudgeParams, Params
from esr.types import Grade

CHARACTERS_PER_TOKEN = 4.0
"""Rule of thumb for English; only for estimates."""
MILLION = 1_000_000
LOOK = 1.0
"""Seconds between two looks at what others of the same run have spent."""


def price(judge: JudgeParams, input_tokens: int | None, output_tokens: int | None, *, batch: bool) -> float | None:
    """US dollars of one call."""
    price_in, price_out = (judge.price_in_batch, judge.price_out_batch) if batch else (judge.price_in, judge.price_out)
    if price_in is None or price_out is None or input_tokens is None or output_tokens is None:
        return None
    return (input_tokens * price_in + output_tokens * price_out) / MILLION


def priced(judge: JudgeParams, answer: Answer) -> float | None:
    return price(judge, answer.input_tokens, answer.output_tokens, batch=answer.batch)


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


@dataclass(frozen=True, slots=True)
class Estimate:
    """What judging would take, before anything runs."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    """US dollars; None: the judge's price is unknown."""
    hours: float | None
    """At the configured calls a minute; None: no limit is configured."""


def estimate(
    params: Params,
    judge: str,
    calls: int,
    *,
    reply_tokens: int,
    prompt_characters: int = 60,
    attempts: float = 1.1,
    repairs: float = 0.02,
) -> Estimate:
    """For `calls` replies of up to `reply_tokens` tokens. The share of repairs and the attempts per reply are rough on purpose."""
    from esr.judge.grading import system

    spec = params.judge(judge)
    if spec.client == "lexical":
        return Estimate(calls, 0, 0, 0.0, 0.0)
    fixed = (len(system(structured=spec.structured, blind=params.judging.blind)) + prompt_characters) / CHARACTERS_PER_TOKEN
    asked = round(calls * (1 + repairs))
    input_tokens = round(asked * (fixed + reply_tokens + 40))
    output_tokens = round(asked * (80 + 60 * attempts))  # a few sentences of feedback, and the shortened quotations
    cost = price(spec, input_tokens, output_tokens, batch=params.judging.mode == "batch")
    hours = asked / spec.per_minute / 60 if spec.per_minute else None
    return Estimate(asked, input_tokens, output_tokens, cost, hours)


class Budget:
    """What a run may still spend. Calls in flight are reserved at the dearest call seen so far."""

    def __init__(self, limit: float | None, judge: JudgeParams, others: Callable[[], float]) -> None:
        """`others` looks up what the run has spent that is not settled here: by other judges, by other processes, before."""
        if limit is not None and (judge.price_in is None or judge.price_out is None):
            raise JudgeError(
                f"max_cost is {limit} but the price of judge {judge.name!r} is unknown; "
                "give price_in and price_out in params.yaml, or set max_cost to null"
            )
        self.limit, self.judge = limit, judge
        self._look_up, self._looked = others, time.monotonic()
        self._others = others()
        self._own = 0.0
        self.unpriced = 0
        """Calls whose usage the provider did not tell."""
        self._reserved = 0.0
        self._dearest = 0.0

    @property
    def spent(self) -> float:
        """US dollars of the run so far."""
        return self._own + self._others

    def reserve(self, characters: int, *, batch: bool = False) -> float | None:
        """US dollars set aside for one call; None: the limit would be passed."""
        if self.limit is None:
            return 0.0
        if time.monotonic() > self._looked + LOOK:
            self._others, self._looked = self._look_up(), time.monotonic()
        guess = price(self.judge, round(characters / CHARACTERS_PER_TOKEN), 150, batch=batch) or 0.0
        amount = max(guess, self._dearest)
        if self.spent + self._reserved + amount > self.limit:
            return None
        self._reserved += amount
        return amount

    def settle(self, reserved: float, cost: float | None, *, answered: bool) -> None:
        self._reserved -= reserved
        if not answered:
            return
        if cost is None:
            self.unpriced += 1
            cost = reserved
        self._own += cost
        self._dearest = max(self._dearest, cost)
