"""The rows of numbers that tell the device what to do with a request's tokens.

lo, hi           hull of all windows
site + 1, stage  of the capture, and its lo, hi
for each site    n, then n entries: kind and flags, row, value, lo, hi, last value, start, stop, condition's row, kind and bound
"""

import struct
from collections.abc import Callable, Sequence

import numpy as np

from esr.engine.entries import FLOAT, NEVER, Entry, Windows
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
    numbers: dict[int, list[int]] = {}
    for entry in entries:
        when = entry.when
        numbers.setdefault(entry.layer, []).extend((
            KIND[entry.kind] | _flags(entry), find(entry.sae, entry.layer, entry.latent), _bits(entry.value), entry.lo, entry.hi,
            _bits(entry.last), entry.start, entry.stop,
            *((find(when.sae, entry.layer, when.latent), ACTIVE if encoded(when.sae) else ALONG, _bits(when.above)) if when else (0, 0, 0)),
        ))  # fmt: skip
    for layer, some in numbers.items():
        at = offset(site(layer), max_ops)
        row[at] = len(some) // ENTRY
        row[at + 1 : at + 1 + len(some)] = some


KIND = {kind: code for code, kind in enumerate(KINDS)}


def _flags(entry: Entry) -> int:
    return (
        (MARKED if entry.after != NEVER else 0)
        | (SCHEDULED if entry.start != entry.stop else 0)
        | (CONDITIONED if entry.when is not None else 0)
    )


def _bits(value: float) -> int:
    (bits,) = INT.unpack(FLOAT.pack(value))
    return int(bits)


INT = struct.Struct("i")
