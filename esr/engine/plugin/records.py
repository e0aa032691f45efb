"""What a worker remembers of requests: their counts, and the numbers of ended stays on their way from the device."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from esr.engine.entries import Windows
from esr.engine.plugin.capture import Holding

BROKEN = "the residual stream left float32 under its interventions; a smaller value would do"


@dataclass(slots=True)
class Record:
    """One request over all its stays on the device; preemption ends a stay."""

    id: str
    request: str = ""
    """vLLM's name, by which a preempted request comes back."""
    left: float = 0.0
    """When it last left the device; 0: it is there."""
    expected: int = 0
    """Times that an op should have been applied, over ended stays."""
    executed: int = 0
    """Times that the device counted over them."""
    stays: int = 0
    holding: Holding | None = None
    error: str | None = None


@dataclass(slots=True)
class Stay:
    """Positions begin, …, end − 1 of a request were computed; begin −1: none."""

    record: Record
    windows: Windows
    begin: int = -1
    end: int = 0

    def due(self, since: int) -> int:
        return self.windows.touched(self.begin, self.end, since) if self.begin >= 0 else 0


@dataclass(slots=True)
class Check:
    """Numbers of ended stays under way to the host."""

    numbers: Tensor
    """[3, stays]: counted, first position behind the marker, broken."""
    stays: list[Stay]
    event: Any

    def arrived(self) -> bool:
        return self.event is None or bool(self.event.query())

    def settle(self, failing: dict[str, str]) -> str:
        """Add them to the records, and to `failing` whose stream turns out broken; what was not applied as it was due, or nothing."""
        wrong = ""
        for stay, counted, since, broken in zip(self.stays, *self.numbers.tolist(), strict=True):
            due = stay.due(since)
            stay.record.executed += counted
            stay.record.expected += due
            stay.record.stays += 1
            if broken and stay.record.error is None:
                stay.record.error = failing[stay.record.request] = BROKEN
            if counted != due:
                wrong = f"an intervention was applied {counted} times where {due} were due; the engine stops rather than answer unsteered"
        return wrong
