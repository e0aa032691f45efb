"""Batches that a provider may have taken and whose receipt nobody saw: recognised by what is in them, before anything is asked again.

A provider tells what is in a batch only once it has ended, so one that may be ours is waited for. What is compared is the name of a
call in it: a hash of judge, parameters and prompt, which no other question has.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from esr.judge.providers.answers import Answers
from esr.judge.providers.client import BatchClient, ProviderBatch
from esr.judge.providers.retry import NotThere

log = logging.getLogger(__name__)

SKEW = 120.0
"""Seconds by which the provider's clock may differ from ours."""
LATEST = 3600.0
"""Seconds after its hand-over in which a batch is made, if it is made at all."""
SETTLED, PER_CALL = 8.0, 0.002
"""Seconds after which a batch that was taken is in the provider's list: at least, and more for every call in it."""
DAY, MOST = 86_400.0, 20
"""How far back, and how many ended batches, are looked through before questions are handed over for the first time."""
FIRST_LOOK, LAST_LOOK = 0.5, 60.0
"""Seconds between looks: at first, and at last."""


class Orphans:
    def __init__(self, client: BatchClient, answers: Answers, patiently: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]):
        """`patiently` makes a call to the provider and makes it again while it is busy."""
        self._client, self._answers, self._patiently = client, answers, patiently
        self._inside: dict[str, str] = {}
        """Of each ended batch, the name of a call in it; empty: it holds nothing that can be read."""

    async def found(self, keys: set[str], n: int, *, since: float) -> str | None:
        """The provider's name of the batch of `n` calls, `keys` among them, whose hand-over began at `since`; None: it was never taken,
        which is known a while after whoever handed it over has ended, and that may have been a moment ago."""
        began = time.time()
        settled = began + (SETTLED + PER_CALL * n if began < since + LATEST else 0.0)
        look = FIRST_LOOK
        while True:
            looked = time.time()
            candidates = await self._candidates(n, since - SKEW, since + LATEST)
            for batch in candidates:
                if batch.ended and await self._holds(batch.provider_id) in keys:
                    return batch.provider_id
            if all(batch.ended for batch in candidates) and looked >= settled:
                return None
            if look == FIRST_LOOK and candidates:
                log.info("a batch of %d questions has no receipt; %d that may be it are waited for", n, len(candidates))
            await asyncio.sleep(look)
            look = min(LAST_LOOK, look * 1.5)

    async def ended(self, keys: set[str], n: int) -> str | None:
        """The same among what ended within a day, without waiting: answers that were paid and whose file is lost."""
        candidates = await self._candidates(n, time.time() - DAY, time.time() + SKEW)
        for batch in [batch for batch in candidates if batch.ended][:MOST]:
            if await self._holds(batch.provider_id) in keys:
                return batch.provider_id
        return None

    async def _candidates(self, n: int, low: float, high: float) -> list[ProviderBatch]:
        listed: list[ProviderBatch] = await self._patiently(lambda: self._client.recent(low))
        known = self._answers.receipts()
        return [
            batch
            for batch in listed
            if batch.provider_id not in known and batch.n in (0, n) and (batch.created_at == 0 or low <= batch.created_at <= high)
        ]

    async def _holds(self, provider_id: str) -> str:
        if provider_id not in self._inside:
            self._inside[provider_id] = await self._patiently(lambda: self._first(provider_id))
        return self._inside[provider_id]

    async def _first(self, provider_id: str) -> str:
        try:
            async with aclosing(self._client.results(provider_id)) as outcomes:
                async for outcome in outcomes:
                    if outcome.key:
                        return outcome.key
        except NotThere:
            pass
        return ""
