"""What a run may still spend. Calls in flight are reserved at the dearest call seen so far, so that the limit is not passed."""

import time
from collections.abc import Callable

from esr.errors import JudgeError
from esr.judge.cost import CHARACTERS_PER_TOKEN, price
from esr.judge.providers.call import Answer
from esr.params import JudgeParams

REFRESH = 1.0
"""Seconds between two looks at what others of the same run have spent."""


def priced(judge: JudgeParams, answer: Answer) -> float | None:
    return price(judge, answer.input_tokens, answer.output_tokens, batch=answer.batch)


class Budget:
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
        if time.monotonic() > self._looked + REFRESH:
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
