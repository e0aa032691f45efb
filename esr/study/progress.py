"""How far a run is: its stages with what is done, stored, missing and paid; whoever shows the run reads it."""

import logging
import threading
from dataclasses import dataclass, field, replace
from time import monotonic

from esr.errors import EsrError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tick:
    """Progress of one stage since its last tick; below zero, of what is asked again from its beginning."""

    stage: str
    done: int
    stored: int = 0
    """Of the done, how many were in the store already."""
    missing: int = 0
    cost: float | None = 0.0
    """US dollars; None: a price is unknown."""


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    total: int
    """What is asked of it; 0: not known yet."""
    done: int = 0
    stored: int = 0
    """Of the done, how many were there already and cost nothing."""
    missing: int = 0
    cost: float | None = 0.0
    """US dollars; None: a price is unknown."""
    since: float = field(default_factory=monotonic)

    @property
    def rate(self) -> float:
        """Computed a second since the stage began."""
        return (self.done - self.stored) / max(monotonic() - self.since, 1e-9)

    @property
    def remaining(self) -> float | None:
        """Seconds to go at this rate; None while nothing is known."""
        left = self.total - self.done
        return left / self.rate if self.rate > 0 and self.total else None


class Stopped(EsrError):
    """The person at the keyboard asked for it; what was computed is kept."""


class Progress:
    """Of one run; any thread may tell and ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[str, Stage] = {}
        self._stop = threading.Event()

    def stages(self) -> list[Stage]:
        with self._lock:
            return list(self._stages.values())

    def stop(self) -> None:
        """No further batch is begun; those at work are kept."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def go_on(self) -> None:
        """Asked before each batch."""
        if self.stopped:
            raise Stopped("stopped as asked; what was computed is kept, the same line goes on from here")

    def expect(self, stage: str, total: int) -> None:
        """More work for a stage."""
        with self._lock:
            old = self._stages.get(stage) or Stage(stage, 0)
            self._stages[stage] = replace(old, total=old.total + total)

    def settle(self, *names: str) -> None:
        """These stages are over, and what they were expected to do at most was not all needed."""
        with self._lock:
            for name in names:
                stage = self._stages.pop(name, None)
                if stage is not None and stage.done:
                    self._stages[name] = replace(stage, total=stage.done)

    def tick(self, step: Tick) -> None:
        with self._lock:
            old = self._stages.get(step.stage) or Stage(step.stage, 0)
            cost = None if old.cost is None or step.cost is None else old.cost + step.cost
            new = replace(
                old,
                done=old.done + step.done,
                stored=old.stored + step.stored,
                missing=old.missing + step.missing,
                cost=cost,
            )
            self._stages[step.stage] = new
        if step.done > 0:
            log.info(
                "%s: %d%s, %d stored, %d missing",
                new.name,
                new.done,
                f" of {new.total}" if new.total else "",
                new.stored,
                new.missing,
            )

    def stored(self, stage: str, n: int) -> None:
        """So many were there already."""
        self.tick(Tick(stage, n, stored=n))

    @property
    def cost(self) -> float | None:
        """US dollars of all stages; None: a price is unknown."""
        costs = [stage.cost for stage in self.stages()]
        return None if None in costs else sum(cost for cost in costs if cost is not None)
