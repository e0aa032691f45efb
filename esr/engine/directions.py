"""Sets of named directions, read from files: safetensors, .pt, GGUF control vectors.

A set has directions after one or more blocks. Tensors are named for their block by the number at the end of their name (`layer.12`,
`direction.12`, `12`); each is [width], one direction, or [n, width]. A file with one tensor may leave the block to `layer`.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esr import gguf
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


def _gguf(path: Path) -> dict[str, np.ndarray]:
    """`direction.N` of llama.cpp's control vectors is added after block N, counted from 0."""
    file = gguf.read(path)
    if file.fields.get("general.architecture") != "controlvector":
        raise EngineError(f"{path.name} holds {file.fields.get('general.architecture')!r:.80}, not a control vector")
    return {name: file.tensor(name) for name in file.tensors}


_READERS = {".safetensors": _safetensors, ".pt": _torch, ".pth": _torch, ".gguf": _gguf}
