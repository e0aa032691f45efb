"""The strongest peaks of every latent and a fair draw of the others, gathered from a stream of readings in memory that does not grow with it.

Held at once: KEPT places of 16 bytes and 12 bytes of counts a latent, and one bit a latent and held-out text; `memory` says how much.
Nothing depends on how the readings were cut: ties and draws go by a hash of latent and text.

A latent *fires* in a text when its peak there is at least FIRES of the largest that it reached in the texts that are not held out. Weaker
activations are left aside: they are many, and they are not what a boost of the latent brings about.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esr.labelling.readings import Peaks

TOP, SOME, HELD = 16, 16, 12
"""Places kept of each latent: its strongest, a draw of the weaker ones at which it fires, and a draw of held-out ones."""
KEPT = TOP + SOME + HELD
FIRES = 0.25
Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Places:
    """Of each latent, peaks in texts, the first in rank first; arrays [d_sae, n], text −1 where there is none."""

    rank: Floats
    text: Ints
    at: Ints
    value: Floats

    @classmethod
    def none(cls, d_sae: int, n: int) -> "Places":
        shape = (d_sae, n)
        return cls(
            np.full(shape, -np.inf, np.float32),
            np.full(shape, -1, np.int32),
            np.zeros(shape, np.int32),
            np.zeros(shape, np.float32),
        )

    def add(self, some: Peaks, rank: Floats) -> None:
        """Those of higher rank stay; of equal rank, the earlier text."""
        order = np.lexsort((some.text, -rank, some.latent))
        latent, n = some.latent[order], self.text.shape[1]
        first = np.flatnonzero(np.r_[True, latent[1:] != latent[:-1]]) if len(latent) else np.zeros(0, np.intp)
        place = np.arange(len(latent)) - np.repeat(first, np.diff(np.r_[first, len(latent)]))
        order, latent, place = order[place < n], latent[place < n], place[place < n]
        if not len(latent):
            return
        touched, row = np.unique(latent, return_inverse=True)
        fresh = Places.none(len(touched), n)
        for mine, theirs in ((fresh.rank, rank), (fresh.text, some.text), (fresh.at, some.at), (fresh.value, some.value)):
            mine[row, place] = theirs[order]
        both = [np.concatenate([a[touched], b], axis=1) for a, b in zip(self.columns, fresh.columns, strict=True)]
        best = np.lexsort((both[1], -both[0]), axis=1)[:, :n]
        for column, merged in zip(self.columns, both, strict=True):
            column[touched] = np.take_along_axis(merged, best, axis=1)

    @property
    def columns(self) -> tuple[NDArray[np.generic], ...]:
        return self.rank, self.text, self.at, self.value

    def of(self, latent: int) -> list[tuple[int, int, float]]:
        """(text, token, activation), the first in rank first."""
        there = self.text[latent] >= 0
        rows = zip(self.text[latent][there], self.at[latent][there], self.value[latent][there], strict=True)
        return [(int(text), int(at), float(value)) for text, at, value in rows]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What every latent fires on. First axis: latents."""

    largest: Floats
    """Its largest activation in the texts that are not held out; 0: it is never active there."""
    fired: Ints
    """In how many of these texts it fires."""
    fired_held: Ints
    """In how many of the held-out ones."""
    top: Places
    some: Places
    held: Places
    bits: NDArray[np.uint8]
    """[d_sae, bytes]: in which held-out texts it fires, eight a byte."""
    n_held: int

    def fires(self, latent: int) -> NDArray[np.bool_]:
        """By held-out text, in their order."""
        return np.unpackbits(self.bits[latent], count=self.n_held).astype(bool)


def memory(d_sae: int, n_held: int) -> int:
    """Bytes that `gather` holds for as long as it runs, whatever the number of readings; while it adds a part, as much again at most."""
    return d_sae * (KEPT * 16 + 12 + (n_held + 7) // 8)


def gather(parts: Callable[[], Iterator[Peaks]], d_sae: int, held: NDArray[np.bool_]) -> Evidence:
    """Goes through the readings twice: for the largest of each latent, and for where it fires. `held`: of each text."""
    largest = np.zeros(d_sae, np.float32)
    top = Places.none(d_sae, TOP)
    for part in parts():
        seen = _where(part, ~held[part.text])
        np.maximum.at(largest, seen.latent, seen.value)
        top.add(seen, seen.value)
    some, drawn = Places.none(d_sae, SOME), Places.none(d_sae, HELD)
    fired, fired_held = np.zeros(d_sae, np.int32), np.zeros(d_sae, np.int32)
    number = np.cumsum(held) - 1
    bits = np.zeros((d_sae, (int(held.sum()) + 7) // 8), np.uint8)
    for part in parts():
        firing = _where(part, (part.value >= FIRES * largest[part.latent]) & (largest[part.latent] > 0))
        seen, unseen = _where(firing, ~held[firing.text]), _where(firing, held[firing.text])
        some.add(seen, draw(seen))
        drawn.add(unseen, draw(unseen))
        fired += np.bincount(seen.latent, minlength=d_sae).astype(np.int32)
        fired_held += np.bincount(unseen.latent, minlength=d_sae).astype(np.int32)
        at = number[unseen.text]
        np.bitwise_or.at(bits, (unseen.latent, at // 8), (128 >> (at % 8)).astype(np.uint8))
    return Evidence(largest, fired, fired_held, top, some, drawn, bits, int(held.sum()))


def draw(some: Peaks) -> Floats:
    """A number in [0, 1) for each latent and text, the same in whatever part they come: splitmix64."""
    x = (some.latent.astype(np.uint64) << np.uint64(32)) + some.text.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: Floats = ((x ^ (x >> np.uint64(31))) >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    return found


def _where(part: Peaks, chosen: NDArray[np.bool_]) -> Peaks:
    return Peaks(part.text[chosen], part.latent[chosen], part.at[chosen], part.value[chosen])
