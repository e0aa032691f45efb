"""A judge behind an interface: many replies at once on one event loop in a thread of its own, called from any thread."""

import asyncio
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from esr import prompts
from esr.judge import Ask
from esr.judge.desk import Desk, Stored, Unanswered
from esr.judge.grading import PROMPTS, Malformed, Reading, better, question, read, repair
from esr.judge.request import Request, Target
from esr.types import Grade, content_id

log = logging.getLogger(__name__)
T = TypeVar("T")


def _parsed(stored: Stored, parse: Callable[[str], T]) -> T:
    if stored.answer.stop == "refusal":
        raise Malformed("it is a refusal")
    return parse(stored.answer.text)


class Loop:
    """An event loop in a daemon thread: one for all judges of a process, because litellm keeps its connections per loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judges", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result, waited for in the calling thread; an interrupt there cancels the work here."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()


_loops: dict[int, Loop] = {}
_making = threading.Lock()


def loop() -> Loop:
    """This process's; a forked child has none of its parent's threads."""
    with _making:
        return _loops.setdefault(os.getpid(), _loops.get(os.getpid()) or Loop())


class ProviderJudge:
    def __init__(self, name: str, target: Target, desk: Desk, *, blind: bool) -> None:
        self.name, self.target, self.desk, self.blind = name, target, desk, blind
        self._loop = loop()
        self.prompt_hash = content_id("judging", target.hash, prompts.digest(*PROMPTS), blind, length=16)
        self._active = 0
        self._lock = threading.Lock()
        self.closed = False

    @property
    def spent(self) -> float:
        """US dollars of this run's calls whose price is known, other processes' calls of the same run included."""
        return self.desk.budget.spent

    @property
    def calls(self) -> int:
        """Requests that this process sent."""
        return self.desk.calls

    def grades(self, asks: Sequence[Ask], *, again: bool = False) -> list[Grade]:
        """One grade per ask, in order. What is stored is not asked; with `again`, stored answers that gave no grade get one more try."""
        began, calls = time.monotonic(), self.desk.calls
        grades = self.run(self._grades(asks, again))
        missing = sum(grade.missing is not None for grade in grades)
        log.info("%s graded %d replies, %d missing, %d calls, in %.1f s", self.name, len(grades), missing, self.desk.calls - calls, time.monotonic() - began)  # fmt: skip
        return grades

    def ratings(self, labels: Sequence[str]) -> list[float | None]:
        """How concrete each label is, 0 to 100; None: a placeholder, or no rating came."""
        from esr.judge.concreteness import rate

        found = rate(self, labels)
        return [found[label] for label in labels]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._active == 0:
                self.desk.forgive()
            self._active += 1
        try:
            return self._loop.run(work)
        finally:
            with self._lock:
                self._active -= 1

    async def _grades(self, asks: Sequence[Ask], again: bool) -> list[Grade]:
        order = random.Random(self.desk.answers.owner).sample(range(len(asks)), len(asks))
        # not in the order given: of two processes with the same work, the second would always come to what the first has just begun
        tasks = {i: asyncio.ensure_future(self._grade(asks[i], again)) for i in order}
        try:
            return list(await asyncio.gather(*(tasks[i] for i in range(len(asks)))))
        except BaseException:
            for task in tasks.values():
                task.cancel()
            if self._active == 1:
                await self.desk.land()
            raise

    async def _grade(self, ask: Ask, again: bool) -> Grade:
        if not ask.reply.strip():
            return self._made(ask, Reading(missing="no attempt"), [])
        used: list[Stored] = []
        request = question(ask, self.target, blind=self.blind)
        while True:
            try:
                reading = await self._reading(request, ask.reply, used)
            except Unanswered as error:
                log.debug("%s: no answer about %s: %s %s", self.name, ask.trial_id, error.reason, error.detail)
                return self._made(ask, Reading(missing=error.reason), used)
            if reading.missing in (None, "no attempt"):
                return self._made(ask, reading, used)
            request = question(ask, self.target, blind=self.blind, round=request.round + 1)
            if not again and self.desk.stored(request.key) is None:
                return self._made(ask, reading, used)
            again = again and self.desk.stored(request.key) is not None

    async def _reading(self, request: Request, reply: str, used: list[Stored]) -> Reading:
        """An answer, and its repair if it needs one."""
        first = await self.desk.ask(request)
        used.append(first)
        reading = read(first.answer, reply)
        self._note(first, reading)
        if reading.problem is None:
            return reading
        second = await self.desk.ask(repair(request, first.answer, reading.problem))
        used.append(second)
        mended = read(second.answer, reply)
        self._note(second, mended)
        return better(reading, mended)

    async def value(self, request: Request, parse: Callable[[str], T]) -> tuple[T | None, str | None]:
        """What `parse` makes of the answer or of its repair, or None and why."""
        first = await self.desk.ask(request)
        try:
            return _parsed(first, parse), None
        except Malformed as error:
            if first.answer.stop == "refusal":
                return None, "refused"
            second = await self.desk.ask(repair(request, first.answer, str(error)))
        try:
            return _parsed(second, parse), None
        except Malformed:
            return None, "refused" if second.answer.stop == "refusal" else "malformed"

    def _note(self, stored: Stored, reading: Reading) -> None:
        self.desk.answers.verdict(stored.key, reading.missing or ("not in the reply" if reading.problem else "valid"))

    def _made(self, ask: Ask, reading: Reading, used: Sequence[Stored]) -> Grade:
        costs = [stored.answer.cost for stored in used]
        known = [cost for cost in costs if cost is not None]
        return Grade(
            trial_id=ask.trial_id,
            latent=-1 if self.blind else ask.latent.index,
            judge=self.name,
            judge_prompt=self.prompt_hash,
            attempts=() if reading.missing else reading.attempts,
            missing=reading.missing,
            answer_key=used[-1].key if used else "",
            input_tokens=sum(stored.answer.input_tokens or 0 for stored in used),
            output_tokens=sum(stored.answer.output_tokens or 0 for stored in used),
            cost=sum(known) if len(known) == len(costs) else None,
        )

    def close(self) -> None:
        with self._lock:
            if self.closed:
                return
            self.closed = True
        self._loop.run(self.desk.close())
        self.desk.answers.close()
