"""Where questions are answered: from what is stored if it can be, from the provider if it must be, and once.

One call's way: stored answer → place in the air → claim on the key → budget → start within the rate → the wire → disk → the asker.
Waiting before another try happens on the ground, without a place in the air.
"""

import asyncio
import logging
import random
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from esr.errors import EsrError, JudgeBusy, JudgeError, StoreError
from esr.judge.providers import machines
from esr.judge.providers.answers import Answers, Claim
from esr.judge.providers.batch import HELD, BatchCaller
from esr.judge.providers.budget import Budget, priced
from esr.judge.providers.call import Answer, Call
from esr.judge.providers.client import BatchClient, Client
from esr.judge.providers.keys import public
from esr.judge.providers.limits import Limits
from esr.judge.providers.reach import Unreachable, reach
from esr.judge.providers.retry import Garbled, Rejected, TryLater, delay
from esr.params import JudgeParams

log = logging.getLogger(__name__)
T = TypeVar("T")
Mode = Literal["live", "batch", "cache-only"]
OTHERS_POLL = 0.2
"""Seconds between two looks at a question that another process is asking."""
PATIENCE = 10.0
"""Seconds that answers still on the wire are waited for at the end."""
IN_A_ROW = 12
"""Questions that fail one after the other, none answered between, until the provider is taken to be down or to refuse us."""


class Unanswered(Exception):
    """No answer for this one call; the reason becomes the grade's `missing`."""

    def __init__(self, reason: Literal["unreachable", "rejected", "budget", "not stored"], detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer and the name it is stored under."""

    key: str
    answer: Answer


class Tries:
    """How often one question was tried. A provider that says `too many` while it answers others is there, and that is no failed try."""

    def __init__(self, most: int, answered: int) -> None:
        self.most, self.reason = most, ""
        self._counted = self._refused = 0
        self._answered = answered

    @property
    def over(self) -> bool:
        return self._counted >= self.most

    def failed(self, busy: TryLater, answered: int, rng: random.Random) -> float:
        """Seconds until the next try."""
        self.reason = str(busy)
        if busy.too_many and answered > self._answered and self._refused < 10 * self.most:
            self._refused += 1
        else:
            self._counted += 1
        self._answered = answered
        return delay(self._counted + self._refused - 1, busy.wait, rng)


class Caller:
    """Asks for one judge. Everything here runs on one event loop."""

    def __init__(
        self, judge: JudgeParams, client: Client | None, answers: Answers, budget: Budget, *, mode: Mode, tries: int, run: str
    ) -> None:
        self.judge, self.answers, self.budget, self.mode = judge, answers, budget, mode
        self._client, self._tries, self._run = client, tries, run
        provider = judge.api_base or (judge.client if judge.client == "anthropic" else judge.model.partition("/")[0])
        self._machines = machines.Machines(answers.bucket, provider) if client and answers.bucket else None
        self._limits = Limits(provider, judge.concurrency, judge.per_minute, self._sharing) if client else None
        self._reach = reach(judge)
        self._batches: BatchCaller | None = None
        if mode == "batch" and isinstance(client, BatchClient):
            self._batches = BatchCaller(
                judge, client, answers, budget, target=f"{judge.client}/{judge.model}", tries=tries, run=run
            )
        self._where = public(judge.api_base) or provider
        self._warned = False
        self._asking: dict[str, asyncio.Task[StoredAnswer]] = {}
        self._rng = random.Random(answers.owner)
        self._flying: set[str] = set()
        self._answered = 0
        self._failed = 0
        self._fatal = ""
        self._fatal_kind: type[EsrError] = JudgeError
        self.calls = 0
        """Requests that went out."""

    def _sharing(self) -> int:
        """Machines that ask this provider now."""
        return self._machines.asking if self._machines else 1

    def start_afresh(self) -> None:
        """Whoever starts afresh finds out afresh whether the provider is there."""
        self._failed, self._fatal, self._warned = 0, "", False

    async def drain(self, patience: float | None = None) -> None:
        """Whatever is on the wire arrives and is kept; whatever is not does not start."""
        if self._batches is not None:
            self._batches.stop()
        for key, task in list(self._asking.items()):
            if key not in self._flying:
                task.cancel()
        if self._asking:
            await asyncio.wait(list(self._asking.values()), timeout=patience)

    def stored(self, key: str) -> StoredAnswer | None:
        found = self.answers.get([key]).get(key)
        return StoredAnswer(key, found) if found else None

    async def ask(self, call: Call) -> StoredAnswer:
        """The answer, from disk or from the provider; equal questions of this process wait for one call."""
        key = call.key
        if found := self.stored(key):
            return found
        if self._client is None:
            raise Unanswered("not stored")
        task = self._asking.get(key)
        if task is None:
            ask = self._ask_alone if self._batches is None else self._ask_in_bulk
            task = asyncio.ensure_future(ask(call, key))
            self._asking[key] = task
            task.add_done_callback(lambda task: self._over(key, task))
        return await asyncio.shield(task)

    def _over(self, key: str, task: "asyncio.Task[StoredAnswer]") -> None:
        self._asking.pop(key, None)
        if not task.cancelled():
            task.exception()  # heard, also when nobody waits any more

    async def _ask_in_bulk(self, call: Call, key: str) -> StoredAnswer:
        assert self._batches is not None
        tried, reason = 0, ""
        while tried < self._tries:
            reason = await self._batches.ask(key, call)
            if found := self.stored(key):
                self.calls += 1
                return found
            if reason == "budget":
                raise Unanswered("budget")
            if reason.startswith("rejected"):
                raise Unanswered("rejected", reason)
            if reason in ("elsewhere", HELD):
                await asyncio.sleep(OTHERS_POLL)
            else:
                tried += 1
        raise Unanswered("unreachable", reason)

    async def _ask_alone(self, call: Call, key: str) -> StoredAnswer:
        try:
            return await self._tried(call, key)
        except BaseException:
            self.answers.release([key])  # unless it is answered, another process may ask
            raise

    async def _tried(self, call: Call, key: str) -> StoredAnswer:
        assert self._limits is not None
        tries = Tries(self._tries, self._answered)
        while not tries.over:
            self._refuse_if_fatal()
            async with self._limits.slot():
                self._refuse_if_fatal()
                claim = await done(self.answers.claim(key))
                if claim.mine:
                    try:
                        return await self._call(call, key)
                    except TryLater as busy:
                        wait = self._wait(tries, busy)
                        await self._after(busy, call, key)
                    except (Rejected, Unanswered, JudgeError, StoreError) as error:
                        raise self._told(error) from None
            if not claim.mine:
                if found := await self._elsewhere(key, claim):
                    return found
            elif not tries.over:
                await asyncio.sleep(wait)
        self._count_failure(tries.reason)
        self._refuse_if_fatal()
        raise Unanswered("unreachable", tries.reason)

    def _wait(self, tries: Tries, busy: TryLater) -> float:
        """Seconds until the next try. Where nobody is there, no try counts; the time does."""
        if isinstance(busy, Unreachable):
            try:
                return self._reach.lost(busy)
            except JudgeError as error:
                raise self._told(error) from None
        self._reach.heard()
        wait = tries.failed(busy, self._answered, self._rng)
        level = logging.DEBUG if self._answered or self._warned or tries.over else logging.WARNING
        self._warned = self._warned or level == logging.WARNING
        log.log(level, "judge %s at %s: %s; it is asked again for some minutes", self.judge.name, self._where, tries.reason)
        return wait

    async def _after(self, busy: TryLater, call: Call, key: str) -> None:
        assert self._limits is not None
        if busy.too_many:
            self._limits.refused()
        if isinstance(busy, Garbled):
            await done(self.answers.garbled(key, call.target.id, busy.body))

    async def _call(self, call: Call, key: str) -> StoredAnswer:
        assert self._limits is not None
        assert self._client is not None
        reserved = self.budget.reserve(call.characters)
        if reserved is None:
            raise Unanswered("budget")
        answered, cost = False, None
        try:
            if self._machines is not None and not self._machines.settled.is_set():
                await asyncio.to_thread(self._machines.settled.wait, machines.TERM)
            await self._limits.start()
            self.calls += 1
            self._flying.add(key)
            answer = await self._client.complete(call)
            cost = priced(self.judge, answer)
            answer = replace(answer, cost=cost)
            answered = True
            await done(self.answers.put(call, key, answer, run=self._run))
        finally:
            self._flying.discard(key)
            self.budget.settle(reserved, cost, answered=answered)
        self._failed = 0
        self._answered += 1
        self._reach.heard(answered=True)
        self._limits.answered()
        return StoredAnswer(key, answer)

    async def _elsewhere(self, key: str, claim: Claim) -> StoredAnswer | None:
        """Another process has answered it, or is at it."""
        if not claim.answered:
            await asyncio.sleep(OTHERS_POLL)
        return self.stored(key)

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, Rejected):
            self._reach.heard()
            self._count_failure(str(error))
            self._refuse_if_fatal()
            return Unanswered("rejected", str(error))
        if isinstance(error, JudgeError):
            self._fatal = f"judge {self.judge.name!r} ({self.judge.model}): {error}; what was answered is kept"
            self._fatal_kind = type(error)
            return self._fatal_kind(self._fatal)
        if isinstance(error, StoreError):  # an answer that cannot be kept must not be paid for
            self._fatal, self._fatal_kind = str(error), StoreError
        return error

    def _count_failure(self, reason: str) -> None:
        self._failed += 1
        if self._failed == IN_A_ROW:
            busy = not reason.startswith("4") or reason.startswith(("408", "409", "429"))
            self._fatal_kind = JudgeBusy if busy else JudgeError
            self._fatal = (
                f"judge {self.judge.name!r} ({self.judge.model} at {self._where}) answered none of the last {self._failed} questions: {reason}; "
                "what was answered is kept, run the same line again later"
            )

    def _refuse_if_fatal(self) -> None:
        if self._fatal:
            raise self._fatal_kind(self._fatal)

    async def close(self) -> None:
        await self.drain(PATIENCE)
        if self._batches is not None:
            await self._batches.close(PATIENCE)
        if self._client is not None:
            await self._client.close()
        if self._machines is not None:
            await asyncio.to_thread(self._machines.close)
        if self._limits is not None:
            self._limits.close()


async def done(future: "Future[T]") -> T:
    return await asyncio.wrap_future(future)
