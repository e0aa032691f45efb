"""The rows of numbers that tell the device what to do with a request's tokens.

lo, hi           hull of all windows
site + 1, stage  of the capture, and its lo, hi
for each site    n, then n entries: kind and flags, row, value, lo, hi, last value, start, stop, condition's row, kind and bound
"""

import struct
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from esr.engine.entries import NEVER, Entry, Run, Windows, singles
from esr.engine.intervention import KINDS

HEAD, ENTRY = 6, 11
ADD, CLAMP, PROJECT_OUT, CLAMP_PROJECTION, ADD_NORM = range(len(KINDS))
MARKED, SCHEDULED, CONDITIONED = 16, 32, 64
"""Flags beside the kind."""
ACTIVE, ALONG = 0, 1
"""A condition weighs an activation, or the stream's length along a direction."""
BEFORE, AFTER = 0, 1


def row_width(sites: int, max_ops: int) -> int:
    return HEAD + sites * (1 + ENTRY * max_ops)


def offset(site: int, max_ops: int) -> int:
    """Where a site's count stands."""
    return HEAD + site * (1 + ENTRY * max_ops)


def fill(
    row: np.ndarray, entries: Sequence[Entry], windows: Windows, *, max_ops: int, site: Callable[[int], int],
    find: Callable[[str, int, int], int], encoded: Callable[[str], bool],
) -> None:  # fmt: skip
    """`row` [row_width] int32; `site` of a block, `find` the bank's row of a name, block and index, `encoded`: a name is an SAE's."""
    row[0], row[1] = windows.hull
    packed: dict[int, list[bytes]] = {}
    for layer, kind, sae, latent, value, lo, hi, last, start, stop, after, _, when in entries:
        bound = (find(when.sae, layer, when.latent), ACTIVE if encoded(when.sae) else ALONG, when.above) if when else NO_BOUND
        flags = (MARKED if after != NEVER else 0) | (SCHEDULED if start != stop else 0) | (CONDITIONED if when else 0)
        packed.setdefault(layer, []).append(
            NUMBERS.pack(KIND[kind] | flags, find(sae, layer, latent), value, lo, hi, last, start, stop, *bound)
        )
    _write(row, packed, max_ops, site)


def fill_runs(
    row: np.ndarray, runs: Sequence[Run], window: tuple[int, int], *, max_ops: int, site: Callable[[int], int],
    find: Callable[[str, int, int], int],
) -> Windows:  # fmt: skip
    """What `fill` does with the entries of these runs."""
    lo, hi = window
    packed: dict[int, list[bytes]] = {}
    for layer, kind, sae, latents, values in runs:
        code, last = KIND[kind], max(latents)
        first = find(sae, layer, last) - last
        packed.setdefault(layer, []).extend([
            NUMBERS.pack(code, first + latent, value, lo, hi, value, 0, 0, *NO_BOUND)
            for latent, value in zip(latents, singles(values), strict=True)
        ])  # fmt: skip
    if packed:
        row[0], row[1] = window
    _write(row, packed, max_ops, site)
    return Windows((((lo, hi, False),),) * len(packed))


def _write(row: np.ndarray, packed: Mapping[int, Sequence[bytes]], max_ops: int, site: Callable[[int], int]) -> None:
    for layer, some in packed.items():
        at = offset(site(layer), max_ops)
        row[at] = len(some)
        row[at + 1 : at + 1 + ENTRY * len(some)] = np.frombuffer(b"".join(some), np.int32)


def packed(staged: Mapping[int, tuple[np.ndarray, int]], sites: int, max_ops: int) -> tuple[int, np.ndarray]:
    """Rows by slot, each with where its marker ends, as one array: k slots, their k marks, the columns in use, k rows of these."""
    rows = [row for row, _ in staged.values()]
    starts = [offset(i, max_ops) for i in range(sites)]
    used = [np.arange(at, at + 1 + ENTRY * max(int(row[at]) for row in rows)) for at in starts]
    columns = np.concatenate([np.arange(HEAD), *used])
    marks = np.array([since for _, since in staged.values()], np.int32)
    return len(rows), np.concatenate(
        [np.fromiter(staged, np.int32, len(rows)), marks, columns.astype(np.int32), *(row[columns] for row in rows)]
    )


def searched(
    windows: Mapping[int, Windows], slots: np.ndarray, first: np.ndarray, count: np.ndarray, ends: np.ndarray
) -> np.ndarray | None:  # fmt: skip
    """Tokens of a step that may be a request's marker: [place in the step, position behind it, slot, marker] by token."""
    found = []
    for i, slot in enumerate(slots.tolist()):
        where = windows.get(slot)
        if where is not None and where.marker != NEVER:
            at = np.arange(first[i], first[i] + count[i])
            inside = (where.search[0] <= at) & (at < where.search[1])
            place = np.arange(ends[i] - count[i], ends[i])
            found.append(np.stack([place, at + 1, np.full_like(at, slot), np.full_like(at, where.marker)])[:, inside])
    return np.concatenate(found, axis=1) if found else None


KIND = {kind: code for code, kind in enumerate(KINDS)}
NUMBERS = struct.Struct("iifiifiiiif")
"""An entry's, of 32 bits each; a floating-point number goes as its bits."""
NO_BOUND = 0, 0, 0.0
