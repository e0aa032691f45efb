"""What is done, entry by entry: a spec resolved to absolute positions and float32 values for one request.

The salt of the prefix cache hashes these entries and the tables on the device hold them: what is set apart is what is done.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

from esr.engine.intervention import Condition, Intervention, place, plain
from esr.engine.scope import END, span
from esr.errors import SpecError
from esr.types import Op, Scope

NEVER = -1
"""No marker: every position of the window."""


class Entry(NamedTuple):
    """One op over the window lo, …, hi − 1 of one block; its value runs straight from `value` at `start` to `last` at `stop`."""

    layer: int
    kind: str
    sae: str
    latent: int
    value: float
    lo: int
    hi: int
    last: float
    start: int = 0
    stop: int = 0
    """Equal to `start`: the value is the same throughout."""
    after: int = NEVER
    """Only behind the first token of this id at one of the positions `search`."""
    search: tuple[int, int] = (0, 0)
    when: Condition | None = None


_made = partial(tuple.__new__, Entry)
"""What Entry(…) comes to, of a tuple."""
PLACE = itemgetter(*map(Entry._fields.index, ("layer", "lo", "hi", "after", "search")))
"""Of an entry, where it stands."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Where the ops of one request stand."""

    blocks: tuple[tuple[tuple[int, int, bool], ...], ...]
    """By block: lo, hi, and whether only behind the marker."""
    marker: int = NEVER
    search: tuple[int, int] = (0, 0)

    def touched(self, start: int, stop: int, since: int = END) -> int:
        """Positions among start, …, stop − 1 in any window of a block, summed over blocks; the marked ones begin at `since`."""
        return sum(_covered(sorted(self._within(block, start, stop, since))) for block in self.blocks)

    @staticmethod
    def _within(
        block: tuple[tuple[int, int, bool], ...], start: int, stop: int, since: int
    ) -> Iterator[tuple[int, int]]:  # fmt: skip
        for lo, hi, marked in block:
            a, b = max(lo, start, since if marked else 0), min(hi, stop)
            if a < b:
                yield a, b

    def since(self, ids: Sequence[int]) -> int:
        """The first position behind the marker in a sequence of these tokens."""
        if self.marker == NEVER:
            return END
        lo, hi = self.search
        return next((at + 1 for at in range(lo, min(hi, len(ids))) if ids[at] == self.marker), END)

    @property
    def hull(self) -> tuple[int, int]:
        every = [window for block in self.blocks for window in block]
        return min((lo for lo, _, _ in every), default=0), max((hi for _, hi, _ in every), default=0)


def _covered(pieces: list[tuple[int, int]]) -> int:
    total, end = 0, 0
    for a, b in pieces:
        total += max(0, b - max(a, end))
        end = max(end, b)
    return total


class Run(NamedTuple):
    """Plain ops that differ in nothing but their latent and value."""

    layer: int
    kind: str
    sae: str
    latents: Sequence[int]
    values: Sequence[float]


def window(scope: Scope, n_prompt: int) -> tuple[int, int] | None:
    """Of plain ops, whose entries all stand in it; None where they wait for a marker or have no position."""
    where = span(scope, n_prompt)
    lo, hi = where.bounds
    return (lo, hi) if where.after is None and lo < hi else None


def resolved(ops: Sequence[Op], scope: Scope, n_prompt: int) -> tuple[Entry, ...]:
    """In the order of the ops; a schedule becomes one entry a piece."""
    if plain(ops) and (found := window(scope, n_prompt)):  # in short what _pieces does at length
        lo, hi = found
        values = singles([op.value for op in ops])
        return tuple([
            _made((op.layer, op.kind, op.sae, op.latent, value, lo, hi, value, 0, 0, NEVER, (0, 0), None))
            for op, value in zip(ops, values, strict=True)
        ])  # fmt: skip
    entries = [entry for op in ops for entry in _pieces(op, scope, n_prompt)]
    markers = {(entry.after, entry.search) for entry in entries if entry.after != NEVER}
    if len(markers) > 1:
        raise SpecError(f"the ops of a request wait for {len(markers)} markers; one and the same is possible")
    return tuple(entries)


def windows(entries: Sequence[Entry]) -> Windows:
    by_block: dict[int, list[tuple[int, int, bool]]] = {}
    marker, search = NEVER, (0, 0)
    for layer, lo, hi, after, within in dict.fromkeys(map(PLACE, entries)):
        by_block.setdefault(layer, []).append((lo, hi, after != NEVER))
        if after != NEVER:
            marker, search = after, within
    return Windows(tuple(map(tuple, by_block.values())), marker, search)


def told(entries: Sequence[Entry]) -> tuple[object, ...]:
    """Whose repr is the same for the same entries in whatever order, and for no others.

    Many clamps have most fields in common: told are how many entries there are, the first one, and of the fields in which they
    differ all values.
    """
    always = sorted([entry for entry in entries if entry.when is None])
    others = [] if len(always) == len(entries) else sorted(repr(tuple(entry)) for entry in entries if entry.when is not None)
    fields = enumerate(zip(*always, strict=True)) if len(always) > 1 else ()
    differing = [(i, field) for i, field in fields if field.count(field[0]) != len(field)]
    return len(always), [tuple(entry) for entry in always[:1]], differing, others


def check_touching(ops: Sequence[Op], scope: Scope, n_prompt: int, rows: int) -> None:
    """Every op has a position to be done at in a sequence of at most `rows` computed positions."""
    touching: dict[Scope, bool] = {}
    for op in ops[:1] if plain(ops) else ops:
        text = op.scope if isinstance(op, Intervention) else ""
        if text not in touching:
            touching[text] = bool(place(op, scope, n_prompt).within(0, rows))
        if not touching[text]:
            own = op.scope if isinstance(op, Intervention) and op.scope else scope
            raise SpecError(
                f"{op.kind} of {op.latent} in scope {own!r} touches no position: the prompt has {n_prompt} tokens and at most {rows} "
                "are computed"
            )


def check_apart(ops: Sequence[Op], scope: Scope, n_prompt: int) -> None:
    """Of one latent two clamps, or two projections, never meet."""
    if len({op.latent for op in ops}) == len(ops):
        return
    alike: dict[tuple[int, str, int, bool], list[Op]] = {}
    for op in ops:
        if op.kind not in ("add", "add_norm"):
            alike.setdefault((op.layer, op.sae, op.latent, op.kind == "clamp"), []).append(op)
    for key, several in alike.items():
        if len(several) == 1:
            continue
        pieces = sorted((entry.lo, entry.hi) for entry in resolved(several, scope, n_prompt))
        if any(right[0] < left[1] for left, right in pairwise(pieces)):
            verb = "clamped" if key[3] else "projected"
            raise SpecError(f"latent {key[2]} of {key[1]!r} is {verb} twice after block {key[0]}; one value would do")


def _pieces(op: Op, scope: Scope, n_prompt: int) -> Iterator[Entry]:
    where = place(op, scope, n_prompt)
    lo, hi = where.bounds
    after = NEVER if where.after is None else where.after
    own = op if isinstance(op, Intervention) else None
    points = own.schedule if own else ()

    def piece(a: int, b: int, first: float, last: float, start: int = 0, stop: int = 0) -> Iterator[Entry]:
        a, b = max(a, lo), min(b, hi)
        if a < b:
            yield Entry(
                op.layer, op.kind, op.sae, op.latent, single(op.value * first), a, b, single(op.value * last), start, stop, after,
                (lo, hi) if after != NEVER else (0, 0), own.when if own else None,
            )  # fmt: skip

    if not points:
        yield from piece(0, END, 1.0, 1.0)
        return
    at = [n_prompt + token for token, _ in points]
    factors = [factor for _, factor in points]
    yield from piece(0, at[0], factors[0], factors[0])
    for i in range(len(points) - 1):
        straight = own is not None and own.shape == "linear" and factors[i] != factors[i + 1]
        last, start, stop = (factors[i + 1], at[i], at[i + 1]) if straight else (factors[i], 0, 0)
        yield from piece(at[i], at[i + 1], factors[i], last, start, stop)
    yield from piece(at[-1], END, factors[-1], factors[-1])


def single(value: float) -> float:
    return singles([value])[0]


def singles(values: Sequence[float]) -> list[float]:
    """As they travel to the device: of 32 bits, and −0 as 0, which does the same."""
    floats = f"{len(values)}f"
    return [rounded + 0.0 for rounded in struct.unpack(floats, struct.pack(floats, *values))]
