"""The board on which tasks chalk up what they have done; whoever shows a run reads it."""

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

from esr.errors import EsrError
from esr.study.bench import Tick


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


_lock = threading.Lock()
_stages: dict[str, Stage] = {}
_stop = threading.Event()


def stages() -> list[Stage]:
    with _lock:
        return list(_stages.values())


@dataclass
class Head:
    """The flow run that the board is about."""

    flow_run: str | None = None
    figures: list[Path] = field(default_factory=list)
    """Pictures that it has drawn."""


head = Head()


def begin(flow_run: str | None) -> None:
    head.flow_run, head.figures = flow_run, []
    with _lock:
        _stages.clear()


def stopped() -> bool:
    return _stop.is_set()


def stop() -> None:
    """No further batch is begun; those at work are kept."""
    _stop.set()


def go_on() -> None:
    if _stop.is_set():
        raise Stopped("stopped as asked; what was computed is kept, the same line goes on from here")


def expect(stage: str, total: int) -> None:
    """More work for a stage."""
    with _lock:
        old = _stages.get(stage) or Stage(stage, 0)
        _stages[stage] = replace(old, total=old.total + total)


def settle(*names: str) -> None:
    """These stages are over, and what they were expected to do at most was not all needed."""
    with _lock:
        for name in names:
            stage = _stages.pop(name, None)
            if stage is not None and stage.done:
                _stages[name] = replace(stage, total=stage.done)


def tick(step: Tick) -> None:
    with _lock:
        old = _stages.get(step.stage) or Stage(step.stage, 0)
        cost = None if old.cost is None or step.cost is None else old.cost + step.cost
        _stages[step.stage] = replace(
            old,
            done=old.done + step.done,
            stored=old.stored + step.stored,
            missing=old.missing + step.missing,
            cost=cost,
        )


def stored(stage: str, n: int) -> None:
    """So many were there already."""
    tick(Tick(stage, n, stored=n))


def cost() -> float | None:
    """US dollars of all stages; None: a price is unknown."""
    costs = [stage.cost for stage in stages()]
    return None if None in costs else sum(cost for cost in costs if cost is not None)
