"""GGUF files, read: fields, and tensors as float32, dequantised one at a time from the mapped file.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from esr.errors import DataError

Floats = NDArray[np.float32]
SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
DEPTH: Final = 4
"""Of lists within lists."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor lies, and how."""

    shape: tuple[int, ...]
    """Rows first, as numpy has it; the file names the fastest dimension first."""
    kind: int
    at: int


@dataclass(frozen=True, slots=True, eq=False)
class Gguf:
    name: str
    fields: dict[str, Any]
    tensors: dict[str, Stored]
    data: "mmap.mmap | bytes"

    def tensor(self, name: str) -> Floats:
        """Its numbers; a copy."""
        if name not in self.tensors:
            raise DataError(f"{self.name} has no tensor {name!r:.80}")
        stored = self.tensors[name]
        if stored.kind not in KINDS:
            known = ", ".join(f"{kind.name} ({number})" for number, kind in KINDS.items())
            raise DataError(f"{self.name}: tensor {name!r:.80} is of GGUF type {stored.kind}; {known} are read")
        kind = KINDS[stored.kind]
        n, rest = divmod(prod(stored.shape), kind.weights)
        if rest or stored.at + n * kind.block.itemsize > len(self.data):
            raise DataError(f"{self.name}: tensor {name!r:.80} is cut off, or no whole number of blocks")
        return kind.numbers(np.frombuffer(self.data, kind.block, n, stored.at)).reshape(stored.shape)


def read(path: Path) -> Gguf:
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise DataError(f"{path.name} cannot be read: {error}") from None
    if data[:4] != b"GGUF":
        raise DataError(f"{path.name} is no GGUF file")
    try:
        return _parsed(path.name, data)
    except (struct.error, UnicodeDecodeError, KeyError, OverflowError, MemoryError, TypeError) as error:
        raise DataError(f"{path.name} is no whole GGUF file: {' '.join(str(error).split())[:200]}") from None


def _parsed(name: str, data: "mmap.mmap | bytes") -> Gguf:
    file = _Values(data, 4)
    version = file.take("I")
    if version not in (2, 3):
        raise DataError(f"{name} is of GGUF version {version}; 2 and 3 are read")
    n_tensors, n_fields = file.take("Q"), file.take("Q")
    fields = {}
    for _ in range(n_fields):
        key = file.text()
        fields[key] = file.value(file.take("I"))
    infos = []
    for _ in range(n_tensors):
        key, dims = file.text(), file.take("I")
        if dims > 8:
            raise DataError(f"{name}: tensor {key!r:.80} has {dims} dimensions")
        shape = tuple(file.take("Q") for _ in range(dims))
        infos.append((key, shape[::-1], file.take("I"), file.take("Q")))
    align = int(fields.get("general.alignment", 32))
    base = -(-file.at // align) * align
    return Gguf(name, fields, {key: Stored(shape, kind, base + offset) for key, shape, kind, offset in infos}, data)


class _Values:
    """A file's little-endian values, one after the other."""

    def __init__(self, data: "mmap.mmap | bytes", at: int) -> None:
        self.data, self.at = data, at

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def text(self) -> str:
        n = self.take("Q")
        if self.at + n > len(self.data):
            raise OverflowError("a text runs over the end")
        self.at += n
        return self.data[self.at - n : self.at].decode()

    def value(self, kind: int, depth: int = DEPTH) -> Any:
        if kind == 8:
            return self.text()
        if kind != 9:
            return self.take(SCALARS[kind])
        of, n = self.take("I"), self.take("Q")
        if depth == 0 or self.at + n > len(self.data):
            raise OverflowError("a list runs over the end, or is too deep")
        if of in SCALARS:
            return self._many(n, SCALARS[of])
        return [self.value(of, depth - 1) for _ in range(n)]

    def _many(self, n: int, form: str) -> list[Any]:
        found = list(struct.unpack_from(f"<{n}{form}", self.data, self.at))
        self.at += struct.calcsize(f"<{n}{form}")
        return found


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to store weights: blocks of `weights` of them."""

    name: str
    weights: int
    block: "np.dtype[Any]"
    numbers: Callable[[Any], Floats]


def _halves(blocks: Any) -> tuple[Any, Any]:
    """4-bit numbers: the low halves of the bytes come first."""
    return blocks["q"] & 0xF, blocks["q"] >> 4


def _q4_0(blocks: Any) -> Floats:
    q = np.concatenate(_halves(blocks), axis=1).astype(np.float32)
    return np.asarray(blocks["d"].astype(np.float32)[:, None] * (q - 8), np.float32)


def _q4_1(blocks: Any) -> Floats:
    q = np.concatenate(_halves(blocks), axis=1).astype(np.float32)
    return np.asarray(blocks["d"].astype(np.float32)[:, None] * q + blocks["m"].astype(np.float32)[:, None], np.float32)


def _q8_0(blocks: Any) -> Floats:
    return np.asarray(blocks["d"].astype(np.float32)[:, None] * blocks["q"].astype(np.float32), np.float32)


def _bf16(words: Any) -> Floats:
    return np.asarray((words.astype(np.uint32) << 16).view(np.float32), np.float32)


KINDS: Final[dict[int, Kind]] = {
    0: Kind("F32", 1, np.dtype("<f4"), lambda x: np.array(x, np.float32)),
    1: Kind("F16", 1, np.dtype("<f2"), lambda x: np.array(x, np.float32)),
    2: Kind("Q4_0", 32, np.dtype([("d", "<f2"), ("q", "u1", 16)]), _q4_0),
    3: Kind("Q4_1", 32, np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)]), _q4_1),
    8: Kind("Q8_0", 32, np.dtype([("d", "<f2"), ("q", "i1", 32)]), _q8_0),
    30: Kind("BF16", 1, np.dtype("<u2"), _bf16),
}
