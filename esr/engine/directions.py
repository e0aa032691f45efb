"""Sets of named directions, read from files: safetensors, .pt, GGUF control vectors.

A set has directions after one or more blocks. Tensors are named for their block by the number at the end of their name (`layer.12`,
`direction.12`, `12`); each is [width], one direction, or [n, width]. A file with one tensor may leave the block to `layer`.
"""

import hashlib
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esr.errors import EngineError

BLOCK = re.compile(r"(?:^|[._\-/])(\d+)$")
LARGEST_FILE = 1 << 30
"""Bytes of one file."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What there is to check of a set; all that a front end keeps."""

    name: str
    width: int
    layers: dict[int, int]
    """Block → directions after it."""
    sha256: str
    """Of the numbers, so that equal sets from different files are equal."""


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    name: str
    layers: dict[int, np.ndarray]
    """Block → [n, width] float32, as the file has them; norms need not be 1."""

    @property
    def shape(self) -> Shape:
        digest = hashlib.sha256()
        for layer, rows in sorted(self.layers.items()):
            digest.update(f"{layer}{rows.shape}".encode())
            digest.update(np.ascontiguousarray(rows).data)
        width = next(iter(self.layers.values())).shape[1]
        return Shape(self.name, width, {layer: len(rows) for layer, rows in sorted(self.layers.items())}, digest.hexdigest())


def read_directions(name: str, path: Path, layer: int | None = None) -> Directions:
    if not path.is_file():
        raise EngineError(f"directions {name!r}: no file {str(path)!r}")
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise EngineError(f"directions {name!r}: {path.name} has {size} bytes; at most {LARGEST_FILE} are read")
    try:
        tensors = _READERS[path.suffix](path)
    except KeyError:
        raise EngineError(f"directions {name!r}: {path.name} ends in none of {', '.join(_READERS)}") from None
    except EngineError:
        raise
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise EngineError(f"directions {name!r}: {path.name} cannot be read: {' '.join(str(error).split())[:200]}") from None
    return canonical(name, tensors, layer)


def canonical(name: str, tensors: dict[str, np.ndarray], layer: int | None = None) -> Directions:
    """Tensors by their names in the file; `layer`: the block of a single tensor."""
    found: dict[int, np.ndarray] = {}
    width = 0
    for key, tensor in tensors.items():
        match = BLOCK.search(key)
        if layer is not None and len(tensors) > 1:
            raise EngineError(
                f"directions {name!r}: a block is given and the file has {len(tensors)} tensors, which name their own"
            )
        if layer is None and match is None:
            raise EngineError(f"directions {name!r}: tensor {key!r:.80} does not end in the number of its block; give `layer`")
        at = layer if layer is not None else int(match[1]) if match else 0
        rows = np.atleast_2d(np.asarray(tensor, np.float32))
        if rows.ndim != 2 or not rows.size or (width and rows.shape[1] != width):
            raise EngineError(f"directions {name!r}: tensor {key!r:.80} has shape {tensor.shape}, not [width] or [n, width]")
        with np.errstate(over="ignore"):
            norms = np.sqrt(np.square(rows).sum(1, dtype=np.float32))
        if not np.isfinite(norms).all() or not (norms > 0).all():
            raise EngineError(f"directions {name!r}: tensor {key!r:.80} holds a direction of length 0, or NaN or infinity")
        if at in found:
            raise EngineError(f"directions {name!r}: two tensors are for block {at}")
        found[at], width = np.ascontiguousarray(rows), rows.shape[1]
    if not found:
        raise EngineError(f"directions {name!r}: the file holds none")
    return Directions(name, dict(sorted(found.items())))


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.torch import load_file

    return {key: tensor.float().numpy() for key, tensor in load_file(path).items()}


def _torch(path: Path) -> dict[str, np.ndarray]:
    import torch

    found: Any = torch.load(path, map_location="cpu", weights_only=True)
    tensors = {"direction": found} if isinstance(found, torch.Tensor) else dict(found)
    return {str(key): tensor.detach().float().numpy() for key, tensor in tensors.items()}


# GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_FLOATS: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}


class _Bytes:
    """A GGUF file's little-endian values, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def text(self) -> str:
        n = self.take("Q")
        self.at += n
        return self.data[self.at - n : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == 8:
            return self.text()
        if kind == 9:
            of, n = self.take("I"), self.take("Q")
            return [self.value(of) for _ in range(n)]
        return self.take(_SCALARS[kind])


def _gguf(path: Path) -> dict[str, np.ndarray]:
    """`direction.N` of llama.cpp's control vectors is added after block N, counted from 0."""
    file = _Bytes(path.read_bytes())
    if file.data[:4] != b"GGUF":
        raise EngineError(f"{path.name} is no GGUF file")
    file.at = 4
    file.take("I")
    n_tensors, n_fields = file.take("Q"), file.take("Q")
    fields = {file.text(): file.value(file.take("I")) for _ in range(n_fields)}
    if fields.get("general.architecture") != "controlvector":
        raise EngineError(f"{path.name} holds {fields.get('general.architecture')!r:.80}, not a control vector")
    found = []
    for _ in range(n_tensors):
        name, dims = file.text(), file.take("I")
        shape = [file.take("Q") for _ in range(dims)]
        found.append((name, shape, file.take("I"), file.take("Q")))
    align = int(fields.get("general.alignment", 32))
    base = -(-file.at // align) * align
    out = {}
    for name, shape, kind, offset in found:
        if kind not in _FLOATS:
            raise EngineError(f"{path.name}: tensor {name!r:.80} is of GGUF type {kind}; F32 (0) and F16 (1) are read")
        numbers = np.frombuffer(file.data, _FLOATS[kind], int(np.prod(shape)), base + offset)
        out[name] = numbers.astype(np.float32).reshape(shape[::-1])
    return out


_READERS = {".safetensors": _safetensors, ".pt": _torch, ".pth": _torch, ".gguf": _gguf}
