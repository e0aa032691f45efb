"""What a provider can do for us: one call, and where there is a batch interface, many at once. Two protocols and their values."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from esr.judge.providers.call import Answer, Call


class Client(Protocol):
    async def complete(self, call: Call) -> Answer:
        """One call on the wire, no more."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ProviderBatch:
    """What a provider knows about a batch. It does not tell what is in it before it has ended."""

    provider_id: str
    ended: bool
    n: int
    """Calls in it; 0: not told."""
    created_at: float
    """0: not told."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of a batch's results: an answer, or why there is none."""

    key: str
    """Empty: the line cannot be read."""
    answer: Answer | None
    reason: str = ""
    """Of a line that cannot be read, the line."""
    rejected: bool = False
    """The call itself is at fault; otherwise it may be handed over again."""


@runtime_checkable
class BatchClient(Protocol):
    """What a provider with a batch interface can do beside."""

    async def submit(self, calls: Sequence[tuple[str, Call]]) -> str: ...
    async def state(self, provider_id: str) -> ProviderBatch: ...

    async def recent(self, since: float) -> list[ProviderBatch]:
        """The batches made since a moment, newest first."""
        ...

    def results(self, provider_id: str) -> AsyncGenerator[Outcome, None]: ...
