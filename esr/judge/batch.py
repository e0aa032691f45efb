"""Asking in bulk: at half the price, within a day, through a provider's batch interface.

What is asked within a moment goes out as one batch. Its keys are written down as the batch's before the provider is called and the
provider's receipt right after, so whoever comes later, this process or another, collects it instead of asking again. A batch handed
over by a process that died before it saw the receipt is looked for among the provider's recent ones.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from esr.errors import JudgeBusy, JudgeError
from esr.judge.answers import Answers, Batch
from esr.judge.clients import Bulk, Outcome
from esr.judge.cost import Budget, priced
from esr.judge.request import Request
from esr.judge.retry import Busy, Rejected, delay
from esr.params import JudgeParams

log = logging.getLogger(__name__)
T = TypeVar("T")

MOMENT = 0.3
"""Seconds without a new question after which a batch goes out."""
LARGEST = 10_000
"""Questions in one batch; providers take ten times as many, but a failed hand-over should not cost that much."""
CHARACTERS = 100_000_000
"""In one batch; providers take 256 MB."""
FIRST_LOOK, LAST_LOOK = 0.5, 60.0
"""Seconds between looks at a batch: at first, and at last."""
SKEW = 120.0
"""Seconds by which the provider's clock may differ from ours."""


@dataclass(slots=True)
class Waiting:
    """A question and who waits for it."""

    key: str
    request: Request
    told: "asyncio.Future[str]" = field(default_factory=asyncio.Future)
    """`stored`, `elsewhere`, `budget`, `rejected: …`, or why this try failed."""
    reserved: float = 0.0

    def tell(self, what: str) -> None:
        if not self.told.done():
            self.told.set_result(what)

    def fail(self, error: Exception) -> None:
        if not self.told.done():
            self.told.set_exception(error)


class Batches:
    """Gathers, hands over, collects. Everything here runs on one event loop."""

    def __init__(
        self, judge: JudgeParams, client: Bulk, answers: Answers, budget: Budget, *, target: str, tries: int, run: str
    ) -> None:
        self._judge, self._client, self._answers, self._budget = judge, client, answers, budget
        self._target, self._tries, self._run = target, tries, run
        self._gathered: list[Waiting] = []
        self._last = 0.0
        self._gathering: asyncio.Task[None] | None = None
        self._wanted: dict[str, Waiting] = {}
        self._collecting: dict[str, asyncio.Task[None]] = {}
        self._rng = random.Random(answers.owner)
        self._handing: set[asyncio.Task[None]] = set()

    async def ask(self, key: str, request: Request) -> str:
        """How it went; see `Waiting.told`."""
        waiting = Waiting(key, request)
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

    async def _gather(self) -> None:
        clock = asyncio.get_running_loop().time
        while clock() < self._last + MOMENT:
            await asyncio.sleep(self._last + MOMENT - clock())
        gathered, self._gathered, self._gathering = self._gathered, [], None
        self._wanted |= {waiting.key: waiting for waiting in gathered}
        try:
            mine = [waiting for waiting in gathered if await self._is_mine(waiting)]
            for part in parts(mine):
                task = asyncio.ensure_future(self._hand_over(part))
                self._handing.add(task)
                task.add_done_callback(self._handing.discard)
        except Exception as error:  # whoever waits must hear of it
            for waiting in gathered:
                waiting.fail(error)

    async def _is_mine(self, waiting: Waiting) -> bool:
        claim = await asyncio.wrap_future(self._answers.claim(waiting.key))
        if claim.batch is not None:
            self._collect(claim.batch)
        elif claim.answered:
            waiting.tell("stored")
        elif not claim.mine:
            waiting.tell("elsewhere")
        elif (reserved := self._budget.reserve(waiting.request.characters, batch=True)) is None:
            await asyncio.wrap_future(self._answers.release([waiting.key]))
            waiting.tell("budget")
        else:
            waiting.reserved = reserved
            return True
        return False

    async def _hand_over(self, part: Sequence[Waiting]) -> None:
        name = uuid.uuid4().hex
        try:
            await asyncio.wrap_future(self._answers.open_batch(name, self._target, [waiting.key for waiting in part]))
            requests = [(waiting.key, waiting.request) for waiting in part]
            provider_id = await self._patiently(lambda: self._client.submit(requests))
        except Exception as error:
            await asyncio.wrap_future(self._answers.close_batch(name))
            for waiting in part:
                self._settle(waiting, None, answered=False)
                waiting.tell(f"rejected: {error}") if isinstance(error, Rejected) else waiting.fail(error)
            return
        await asyncio.wrap_future(self._answers.receipt(name, provider_id))
        log.info("judge %s: %d questions handed over as batch %s", self._judge.name, len(part), provider_id)
        self._collect(name)

    def _collect(self, name: str) -> None:
        """One collector per batch; it tells everybody who waits for one of its keys."""
        if name not in self._collecting:
            task = asyncio.ensure_future(self._collected(name))
            self._collecting[name] = task
            task.add_done_callback(lambda _: self._collecting.pop(name, None))

    async def _collected(self, name: str) -> None:
        keys = self._answers.in_batch(name)
        try:
            batch = await self._found(name)
            if batch is None:
                await asyncio.wrap_future(self._answers.close_batch(name))
                self._tell(keys, "the batch was never handed over")
                return
            assert batch.provider_id is not None
            await self._ended(batch.provider_id)
            await self._patiently(lambda: self._take(name, str(batch.provider_id), keys))
        except Exception as error:
            for key in keys & self._wanted.keys():
                self._wanted[key].fail(error)

    async def _found(self, name: str) -> Batch | None:
        """The batch with its receipt; None: the provider never got it."""
        while True:
            batch = next((batch for batch in self._answers.batches(self._target) if batch.id == name), None)
            if batch is None or batch.provider_id is not None:
                return batch
            if self._answers.submitter_is_gone(name):
                return await self._recognised(batch)
            await asyncio.sleep(FIRST_LOOK)

    async def _recognised(self, batch: Batch) -> Batch | None:
        known = {other.provider_id for other in self._answers.batches(self._target)}
        for handed in await self._patiently(self._client.recent):
            if handed.provider_id not in known and handed.n == batch.n and handed.created_at > batch.submitted_at - SKEW:
                await asyncio.wrap_future(self._answers.receipt(batch.id, handed.provider_id))
                return replace(batch, provider_id=handed.provider_id)
        return None

    async def _ended(self, provider_id: str) -> None:
        look = FIRST_LOOK
        while not (await self._patiently(lambda: self._client.state(provider_id))).ended:
            await asyncio.sleep(look)
            look = min(LAST_LOOK, look * 1.5)

    async def _take(self, name: str, provider_id: str, keys: set[str]) -> None:
        """Every line on disk, then everybody told. Answers to questions that nobody asks here wait with the provider."""
        outcomes: dict[str, Outcome] = {}
        async for outcome in self._client.results(provider_id):
            if outcome.key in keys and outcome.key not in outcomes:
                outcomes[outcome.key] = outcome
        writes = []
        for key, outcome in outcomes.items():
            waiting = self._wanted.get(key)
            if outcome.answer is not None and waiting is not None:
                cost = priced(self._judge, outcome.answer)
                self._settle(waiting, cost, answered=True)
                writes.append(self._answers.put(waiting.request, key, replace(outcome.answer, cost=cost), run=self._run))
        free = [key for key in keys if key not in outcomes or outcomes[key].answer is None]
        writes.append(self._answers.free(free))
        await asyncio.gather(*(asyncio.wrap_future(write) for write in writes))
        if not self._answers.in_batch(name):
            await asyncio.wrap_future(self._answers.close_batch(name))
        for key in keys & self._wanted.keys():
            told = outcomes.get(key)
            reason = "it is not among the batch's results" if told is None else told.reason
            answered = told is not None and told.answer is not None
            self._tell({key}, "stored" if answered else f"rejected: {reason}" if told and told.rejected else reason)

    def _tell(self, keys: set[str], what: str) -> None:
        for key in keys:
            if waiting := self._wanted.pop(key, None):
                self._settle(waiting, None, answered=False)
                waiting.tell(what)

    def _settle(self, waiting: Waiting, cost: float | None, *, answered: bool) -> None:
        self._budget.settle(waiting.reserved, cost, answered=answered)
        waiting.reserved = 0.0

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        reason = ""
        for tried in range(self._tries):
            try:
                return await call()
            except Busy as busy:
                reason = str(busy)
                await asyncio.sleep(delay(tried, busy.wait, self._rng))
            except JudgeError as error:
                raise JudgeError(f"judge {self._judge.name!r} ({self._judge.model}): {error}; what was answered is kept") from None
        raise JudgeBusy(f"judge {self._judge.name!r}: {reason}; batches already handed over are collected by the next run")


def parts(waiting: Sequence[Waiting]) -> list[list[Waiting]]:
    """Cut where a batch would grow too large."""
    cut: list[list[Waiting]] = []
    size = 0
    for item in waiting:
        size += item.request.characters
        if not cut or len(cut[-1]) >= LARGEST or size > CHARACTERS:
            cut.append([])
            size = item.request.characters
        cut[-1].append(item)
    return cut
