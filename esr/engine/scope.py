"""Which positions are meant: a scope's words, and the absolute positions that they stand for in one request.

all · prompt · generated · [lo,hi) · [lo,) · generated[n,m) · generated[n,)     absolute, or counted from the first generated token
SCOPE after ID                                                                 those of SCOPE behind the first token ID in it
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from esr.errors import SpecError
from esr.types import Scope

END = 2**31 - 1
"""Beyond every position."""
WORDS = re.compile(r"^(all|prompt|(generated)?\[(\d{1,18}),\s*(\d{0,18})\)|generated)?(?:(?:^|\s+)after\s+(\d{1,18}))?$")


@dataclass(frozen=True, slots=True)
class Span:
    """Absolute positions lo, …, hi − 1; hi None: to the end."""

    lo: int
    hi: int | None
    after: int | None = None
    """A token: only positions behind the first one with this id, itself within the span."""

    def within(self, start: int, stop: int) -> range:
        """Its positions among start, …, stop − 1; without regard to `after`."""
        return range(max(self.lo, start), stop if self.hi is None else min(self.hi, stop))

    def among(self, ids: Sequence[int]) -> range:
        """Its positions in a sequence of these tokens."""
        return self.behind(self.since(ids)).within(0, len(ids))

    def since(self, ids: Sequence[int]) -> int:
        """The first position behind the marker; the span's own start without one, END when it is not there."""
        if self.after is None:
            return self.lo
        return next((at + 1 for at in self.within(0, len(ids)) if ids[at] == self.after), END)

    def behind(self, since: int) -> "Span":
        return replace(self, lo=max(self.lo, since), after=None)

    @property
    def bounds(self) -> tuple[int, int]:
        """[lo, hi), cut to what a position can be."""
        return min(self.lo, END), END if self.hi is None else min(self.hi, END)


@lru_cache(maxsize=1024, typed=True)
def span(scope: Scope, n_prompt: int) -> Span:
    """The positions that `scope` means for a request whose prompt has `n_prompt` tokens."""
    match = WORDS.match(scope)
    if match is None or not scope:
        raise SpecError(
            f"scope {scope[:200]!r} is none of 'all', 'prompt', 'generated', '[lo,hi)', '[lo,)', 'generated[n,m)', each perhaps "
            "with ' after ID'"
        )
    base, counted, lo, hi, after = match.groups()
    marker = int(after) if after else None
    if marker is not None and marker > END:
        raise SpecError(f"scope {scope!r} waits for token {marker}, and no model has so many")
    if lo is None:
        return Span(n_prompt if base == "generated" else 0, n_prompt if base == "prompt" else None, marker)
    if hi and int(lo) >= int(hi):
        raise SpecError(f"scope {scope!r} holds no position")
    offset = n_prompt if counted else 0
    return Span(offset + int(lo), offset + int(hi) if hi else None, marker)
