"""An episode's activations: an .npz archive with one array a latent, opened so that a damaged or malicious one costs nothing."""

import zipfile
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy.lib.format

from esr.errors import DataError
from esr.reference.others import findings
from esr.reference.results import Context, Rows
from esr.reference.scores import words

ARRAYS, VALUES = 70_000, 4_000_000
"""Arrays and numbers that one archive may hold: far more than an episode has, and a matter of seconds."""
HEADER = 1 << 14
"""Bytes before an array's numbers, at most."""

NPY: Any = numpy.lib.format
BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, TypeError, SyntaxError, NotImplementedError, RuntimeError,
    MemoryError, OverflowError,
)  # fmt: skip
"""What zipfile and numpy raise for damaged archives."""


def rows(about: Context, path: Path, named: str) -> Rows:
    """Every array of the archive, or none of them: DataError says why."""
    try:
        with zipfile.ZipFile(path) as packed:
            entries = {f"{named}/{words(name)}": values for name, values in _arrays(packed)}
    except DataError:
        raise
    except BROKEN as error:
        raise DataError(
            f"it is not a whole archive of arrays: {' '.join(str(error).split())[:150] or type(error).__name__}"
        ) from None
    yield from findings(about, "episode_activations", entries)


def _arrays(packed: zipfile.ZipFile) -> Iterator[tuple[str, Any]]:
    members = packed.infolist()
    if len(members) > ARRAYS:
        raise DataError(f"it holds {len(members):,} arrays and an episode's archive at most {ARRAYS:,}")
    left = VALUES
    for member in members:
        name = words(member.filename)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"its array {name[:80]!r} is packed in a way that numpy never writes")
        with packed.open(member) as file:
            shape, itemsize = _announced(file)
        n, lists = prod(shape), prod(max(length, 1) for length in shape)
        if lists > left:
            raise DataError(f"it holds more than {VALUES:,} numbers, which no episode has")
        if not n * itemsize <= member.file_size <= n * itemsize + HEADER:
            raise DataError(f"its array {name[:80]!r} is not as long as its header says")
        left -= lists
        with packed.open(member) as file:
            array = NPY.read_array(file, allow_pickle=False)
            file.read()  # to the end, where its checksum is compared
        yield name.removesuffix(".npy"), array.tolist()


def _announced(file: IO[bytes]) -> tuple[tuple[int, ...], int]:
    """The shape that the header says, of which lists without a number are part, and the bytes of each number."""
    version = NPY.read_magic(file)
    shape, _, dtype = (NPY.read_array_header_1_0 if version == (1, 0) else NPY.read_array_header_2_0)(file)
    if dtype.kind not in "biuf":
        raise DataError(f"it holds {dtype} and not numbers")
    return shape, int(dtype.itemsize)
