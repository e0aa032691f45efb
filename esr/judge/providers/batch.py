"""Asking in bulk: at half the price, within a day, through a provider's batch interface.

What is asked within a moment goes out in batches. Their keys are written down before the provider is called and the provider's
receipt right after, so whoever comes later, this process or another, collects a batch instead of asking again. Where a receipt is
lacking, because the process died or the connection did, the batch is looked for (orphans.py) before its questions are asked again.
"""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from esr.errors import JudgeBusy, JudgeError, StoreError
from esr.judge.providers.answers import Answers, Claim
from esr.judge.providers.budget import Budget, priced
from esr.judge.providers.call import Call
from esr.judge.providers.client import BatchClient, Outcome
from esr.judge.providers.orphans import FIRST_LOOK, LAST_LOOK, Orphans
from esr.judge.providers.reach import Unreachable, reach
from esr.judge.providers.retry import NotThere, Rejected, TryLater, delay
from esr.params import JudgeParams

log = logging.getLogger(__name__)
T = TypeVar("T")

MOMENT = 0.3
"""Seconds without a new question after which a batch goes out."""
LARGEST = 2_000
"""Questions in one batch; providers take fifty times as many, but a failed hand-over should not cost that much."""
CHARACTERS = 16_000_000
"""In one batch; providers take 256 MB, and a slow line does not."""
HELD = "the batch was never handed over"
"""Told to whoever waits for a batch that the provider never got: ask again, this was no failed try."""


@dataclass(slots=True)
class Waiting:
    """A question and who waits for it."""

    key: str
    call: Call
    told: "asyncio.Future[str]" = field(default_factory=asyncio.Future)
    """`stored`, `elsewhere`, `budget`, `rejected: …`, or why this try failed."""
    reserved: float = 0.0

    def tell(self, what: str) -> None:
        if not self.told.done():
            self.told.set_result(what)

    def fail(self, error: Exception) -> None:
        if not self.told.done():
            self.told.set_exception(error)


class BatchCaller:
    """Gathers, hands over, collects. Everything here runs on one event loop."""

    def __init__(
        self, judge: JudgeParams, client: BatchClient, answers: Answers, budget: Budget, *, target: str, tries: int, run: str
    ) -> None:
        self._judge, self._client, self._answers, self._budget = judge, client, answers, budget
        self._target, self._tries, self._run = target, tries, run
        self._reach = reach(judge)
        self._orphans = Orphans(client, answers, self._patiently)
        self._gathered: list[Waiting] = []
        self._last = 0.0
        self._gathering: asyncio.Task[None] | None = None
        self._wanted: dict[str, Waiting] = {}
        self._collecting: dict[str, asyncio.Task[None]] = {}
        self._rng = random.Random(answers.owner)
        self._handing: set[asyncio.Task[None]] = set()

    async def ask(self, key: str, call: Call) -> str:
        """How it went; see `Waiting.told`."""
        waiting = Waiting(key, call)
        self._gathered.append(waiting)
        self._last = asyncio.get_running_loop().time()
        if self._gathering is None:
            self._gathering = asyncio.ensure_future(self._gather())
        return await waiting.told

    def stop(self) -> None:
        """What is not handed over yet stays here."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathered, self._gathering = [], None

    async def close(self, patience: float) -> None:
        """What is being handed over may end; what is not done then, and what is being collected, is left to whoever comes next."""
        self.stop()
        if self._handing:
            await asyncio.wait(self._handing, timeout=patience)
        tasks = [*self._handing, *self._collecting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _gather(self) -> None:
        clock = asyncio.get_running_loop().time
        while clock() < self._last + MOMENT:
            await asyncio.sleep(self._last + MOMENT - clock())
        gathered, self._gathered, self._gathering = self._gathered, [], None
        self._wanted |= {waiting.key: waiting for waiting in gathered}
        try:
            claims = await asyncio.gather(*(asyncio.wrap_future(self._answers.claim(waiting.key)) for waiting in gathered))
            mine = [waiting for waiting, claim in zip(gathered, claims, strict=True) if self._is_mine(waiting, claim)]
            affordable = [waiting for waiting in mine if self._is_affordable(waiting)]
            beyond = [waiting.key for waiting in mine if waiting.told.done()]
            for part in parts(affordable):
                self._start(part)
            await asyncio.wrap_future(self._answers.release(beyond))
        except Exception as error:  # whoever waits must hear of it
            for waiting in gathered:
                waiting.fail(error)

    def _is_mine(self, waiting: Waiting, claim: Claim) -> bool:
        if waiting.told.done():  # by the collector of a batch that it was part of; it is being asked anew
            return False
        if claim.batch is not None:
            self._collect(claim.batch)
        elif claim.answered:
            waiting.tell("stored")
        elif not claim.mine:
            waiting.tell("elsewhere")
        return claim.mine

    def _is_affordable(self, waiting: Waiting) -> bool:
        reserved = self._budget.reserve(waiting.call.characters, batch=True)
        if reserved is None:
            waiting.tell("budget")
            return False
        waiting.reserved = reserved
        return True

    def _start(self, part: Sequence[Waiting]) -> None:
        task = asyncio.ensure_future(self._hand_over(part))
        self._handing.add(task)
        task.add_done_callback(self._handing.discard)

    async def _hand_over(self, gathered: Sequence[Waiting]) -> None:
        name = uuid.uuid4().hex
        part = [waiting for waiting in gathered if not waiting.told.done()]  # the others are being asked anew
        for waiting in gathered:
            if waiting.told.done():
                self._settle(waiting, None, answered=False)
        if not part:
            return
        try:
            await asyncio.wrap_future(self._answers.write_batch(name, self._target, [waiting.key for waiting in part]))
            provider_id = await self._receipt(name, part)
            await asyncio.wrap_future(self._answers.receipt(name, provider_id))
        except Rejected as error:
            await asyncio.wrap_future(self._answers.close_batch(name))
            self._rejected(part, error)
        except NotTaken as error:
            await asyncio.wrap_future(self._answers.close_batch(name))
            self._failed(part, error.cause)
        except BaseException as error:  # whether the provider has taken it, whoever comes next finds out
            left = self._answers.leave_batch(name)
            if not isinstance(error, Exception):
                raise
            with suppress(StoreError):
                await asyncio.wrap_future(left)
            self._failed(part, error)
        else:
            log.info("judge %s: %d questions handed over as batch %s", self._judge.name, len(part), provider_id)
            self._collect(name)

    def _rejected(self, part: Sequence[Waiting], error: Rejected) -> None:
        """One call that is not acceptable may be why all of them were refused: halves tell."""
        if len(part) > 1:
            self._start(part[: len(part) // 2])
            self._start(part[len(part) // 2 :])
            return
        self._settle(part[0], None, answered=False)
        part[0].tell(f"rejected: {error}")

    def _failed(self, part: Sequence[Waiting], error: Exception) -> None:
        for waiting in part:
            self._settle(waiting, None, answered=False)
            waiting.fail(error)

    async def _receipt(self, name: str, part: Sequence[Waiting]) -> str:
        """The provider's name of the batch. Before every hand-over what is there is looked at, and after one that broke off twice."""
        calls, keys = [(waiting.key, waiting.call) for waiting in part], {waiting.key for waiting in part}
        try:
            found = await self._orphans.ended(keys, len(part))
        except JudgeError as error:
            raise NotTaken(error) from None
        if found:
            log.info("judge %s: %d questions were answered before, in batch %s", self._judge.name, len(part), found)
            return found
        tried, reason = 0, ""
        while tried < self._tries:
            began = time.time()
            await asyncio.wrap_future(self._answers.again(name))
            try:
                return await self._client.submit(calls)
            except Unreachable as away:
                try:
                    await asyncio.sleep(self._lost(away))
                except JudgeError as error:
                    raise NotTaken(error) from None
            except TryLater as broken:
                reason, wait = str(broken), delay(tried, broken.wait, self._rng)
                log.info("judge %s: handing over %d questions broke off: %s", self._judge.name, len(part), reason)
                if broken.sent and (found := await self._orphans.found(keys, len(part), since=began)):
                    return found
                await asyncio.sleep(wait)
                tried += 1
            except JudgeError as error:
                raise NotTaken(self._said(error)) from None
        raise NotTaken(self._busy(reason))

    def _collect(self, name: str) -> None:
        """One collector per batch; it tells everybody who waits for one of its keys."""
        if name not in self._collecting:
            task = asyncio.ensure_future(self._collected(name))
            self._collecting[name] = task
            task.add_done_callback(lambda _: self._collecting.pop(name, None))

    async def _collected(self, name: str) -> None:
        keys = self._answers.in_batch(name)
        try:
            provider_id = await self._found(name, keys)
            if provider_id is None:
                await self._given_up(name, keys, HELD)
                return
            await self._ended(provider_id)
            await self._take(name, provider_id, keys)
        except NotThere:
            await self._given_up(name, keys, "the provider no longer has the batch")
        except Exception as error:
            for key in keys & self._wanted.keys():
                waiting = self._wanted.pop(key)
                self._settle(waiting, None, answered=False)
                waiting.fail(error)

    async def _given_up(self, name: str, keys: set[str], why: str) -> None:
        await asyncio.wrap_future(self._answers.close_batch(name))
        self._tell(keys, why)

    async def _found(self, name: str, keys: set[str]) -> str | None:
        """The provider's name of the batch; None: the provider never got it, or somebody else has collected it."""
        while True:
            batch = self._answers.open_batch(name)
            if batch is None:
                return None
            if batch.provider_id is not None:
                return batch.provider_id
            if batch.left:
                found = await self._orphans.found(keys, batch.n, since=batch.submitted_at)
                if found:
                    await asyncio.wrap_future(self._answers.receipt(name, found))
                return found
            await asyncio.sleep(FIRST_LOOK)

    async def _ended(self, provider_id: str) -> None:
        look = FIRST_LOOK
        while not (await self._patiently(lambda: self._client.state(provider_id))).ended:
            await asyncio.sleep(look)
            look = min(LAST_LOOK, look * 1.5)

    async def _take(self, name: str, provider_id: str, keys: set[str]) -> None:
        """Whatever of the results can be read is kept; if some of it cannot, they are fetched again."""
        left, outcomes = set(keys), dict[str, Outcome]()
        for tried in range(self._tries):
            broken = await self._read(name, provider_id, left, outcomes)
            left -= {key for key, outcome in outcomes.items() if outcome.answer is not None}
            if broken is None or not left:
                break
            log.info("judge %s: batch %s cannot be read in full: %s", self._judge.name, provider_id, broken)
            await asyncio.sleep(delay(tried, broken.wait, self._rng))
        if broken is not None and broken.sent and left:
            raise self._busy(str(broken))
        await asyncio.wrap_future(self._answers.free(name, left))
        if not self._answers.in_batch(name):
            await asyncio.wrap_future(self._answers.close_batch(name))
        for key in left & self._wanted.keys():
            told = outcomes.get(key)
            reason = "it is not among the batch's results" if told is None else told.reason
            self._tell({key}, f"rejected: {reason}" if told and told.rejected else reason)

    async def _read(self, name: str, provider_id: str, keys: set[str], outcomes: dict[str, Outcome]) -> TryLater | None:
        """One reading of the results, on disk before anybody is told. Answers to questions that nobody asks here stay with the provider.
        What stood in the way of the rest: the connection, or lines that hold no JSON (then `sent` is False)."""
        broken: TryLater | None = None
        try:
            async for outcome in self._client.results(provider_id):
                if not outcome.key:
                    await asyncio.wrap_future(self._answers.garbled(name, self._target, outcome.reason))
                    broken = TryLater("a line of the results is not JSON", sent=False)
                elif outcome.key in keys and (outcome.key not in outcomes or outcomes[outcome.key].answer is None):
                    outcomes[outcome.key] = outcome
        except TryLater as error:
            broken = error
        except JudgeError as error:
            raise error if isinstance(error, NotThere) else self._said(error) from None
        answered = [key for key in keys if (known := outcomes.get(key)) is not None and known.answer is not None]
        await self._keep(answered, outcomes)
        self._tell(set(answered), "stored")
        return broken

    async def _keep(self, answered: Sequence[str], outcomes: dict[str, Outcome]) -> None:
        writes = []
        for key in answered:
            waiting, found = self._wanted.get(key), outcomes[key].answer
            if waiting is not None and found is not None:
                cost = priced(self._judge, found)
                self._settle(waiting, cost, answered=True)
                writes.append(self._answers.put(waiting.call, key, replace(found, cost=cost), run=self._run))
        await asyncio.gather(*(asyncio.wrap_future(write) for write in writes))

    def _tell(self, keys: set[str], what: str) -> None:
        for key in keys:
            if waiting := self._wanted.pop(key, None):
                self._settle(waiting, None, answered=False)
                waiting.tell(what)

    def _settle(self, waiting: Waiting, cost: float | None, *, answered: bool) -> None:
        self._budget.settle(waiting.reserved, cost, answered=answered)
        waiting.reserved = 0.0

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        tried, reason = 0, ""
        while tried < self._tries:
            try:
                found = await work()
                self._reach.heard(answered=True)
                return found
            except Unreachable as away:
                await asyncio.sleep(self._lost(away))
            except TryLater as busy:
                reason = str(busy)
                await asyncio.sleep(delay(tried, busy.wait, self._rng))
                tried += 1
            except NotThere:
                raise
            except JudgeError as error:
                raise self._said(error) from None
        raise self._busy(reason)

    def _lost(self, away: Unreachable) -> float:
        try:
            return self._reach.lost(away)
        except JudgeError as error:
            raise self._said(error) from None

    def _said(self, error: JudgeError) -> JudgeError:
        return JudgeError(f"judge {self._judge.name!r} ({self._judge.model}): {error}; what was answered is kept")

    def _busy(self, reason: str) -> JudgeBusy:
        return JudgeBusy(f"judge {self._judge.name!r}: {reason}; batches already handed over are collected by the next run")


class NotTaken(Exception):
    """The provider certainly has not taken a batch."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def parts(waiting: Sequence[Waiting]) -> list[list[Waiting]]:
    """Cut where a batch would grow too large."""
    cut: list[list[Waiting]] = []
    size = 0
    for item in waiting:
        size += item.call.characters
        if not cut or len(cut[-1]) >= LARGEST or size > CHARACTERS:
            cut.append([])
            size = item.call.characters
        cut[-1].append(item)
    return cut
