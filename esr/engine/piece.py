"""A part of a call to a fleet: what one worker has at work."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

SPREAD = ("generate", "read")
"""Calls that are cut into pieces."""


@dataclass(eq=False)
class Piece:
    """A part of a call, and what came of it."""

    method: str
    args: tuple[Any, ...]
    future: "Future[Any]" = field(default_factory=Future)
    holders: set[int] = field(default_factory=set)
    """Numbers of the workers that have it at work."""
    since: float = 0.0
    """When it was given out last."""
    deaths: int = 0
    """Workers that died with it at work."""
    own: bool = False
    """Directions that the fleet has, for a worker that came later: nobody else answers for it."""

    @property
    def size(self) -> int:
        return len(self.args[0]) if self.method in SPREAD else 0

    def settle(self, answer: Callable[["Future[Any]"], None]) -> bool:
        """Whether this answer is the first and counts."""
        if self.future.done():
            return False
        answer(self.future)
        return True
