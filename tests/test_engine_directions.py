"""Files of directions: those of every kind that say the same are equal, and others are refused."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from esr.engine.directions import read_directions
from esr.errors import EngineError


def gguf(path: Path, tensors: dict[str, np.ndarray], architecture: str = "controlvector") -> Path:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    fields = [text("general.architecture") + struct.pack("<I", 8) + text(architecture)]
    fields += [text("controlvector.layer_count") + struct.pack("<Ii", 5, len(tensors))]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields)) + b"".join(fields)
    data, infos = b"", b""
    for name, rows in tensors.items():
        infos += text(name) + struct.pack("<IQIQ", 1, rows.size, 0, len(data))
        data += rows.astype("<f4").tobytes().ljust(-(-rows.nbytes // 32) * 32, b"\0")
    start = len(head) + len(infos)
    path.write_bytes((head + infos).ljust(-(-start // 32) * 32, b"\0") + data)
    return path


def test_equal_directions_are_equal_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = {layer: np.random.default_rng(layer).normal(size=9).astype(np.float32) for layer in (1, 3)}
    save_file({f"direction.{layer}": row for layer, row in rows.items()}, tmp_path / "a.safetensors")
    torch.save({layer: torch.from_numpy(row) for layer, row in rows.items()}, tmp_path / "a.pt")
    gguf(tmp_path / "a.gguf", {f"direction.{layer}": row for layer, row in rows.items()})
    found = [read_directions("a", tmp_path / f"a.{end}") for end in ("safetensors", "pt", "gguf")]
    assert len({one.shape.sha256 for one in found}) == 1
    assert found[2].shape.layers == {1: 1, 3: 1}
    assert np.array_equal(found[2].layers[3][0], rows[3])


@pytest.mark.parametrize(
    ("tensors", "layer", "says"),
    [
        ({"direction": np.ones(4)}, None, "give `layer`"),
        ({"layer.1": np.zeros(4)}, None, "length 0"),
        ({"layer.1": np.full(4, np.nan)}, None, "NaN"),
        ({"layer.1": np.ones(4), "layer.2": np.ones(5)}, None, "shape"),
        ({"a.1": np.ones(4), "b.1": np.ones(4)}, None, "two tensors"),
        ({"layer.1": np.ones(4), "layer.2": np.ones(4)}, 3, "name their own"),
    ],
)
def test_directions_that_make_no_sense_are_refused(
    tmp_path: Path, tensors: dict[str, np.ndarray], layer: int | None, says: str
) -> None:
    save_file({key: value.astype(np.float32) for key, value in tensors.items()}, tmp_path / "x.safetensors")
    with pytest.raises(EngineError, match=says):
        read_directions("x", tmp_path / "x.safetensors", layer)


def test_files_that_are_no_directions_are_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF\x03")
    (tmp_path / "a.safetensors").write_bytes(b"rubbish")
    gguf(tmp_path / "b.gguf", {"direction.1": np.ones(8)}, "llama")
    for name in ("a.gguf", "a.safetensors", "b.gguf", "a.csv", "none.pt"):
        with pytest.raises(EngineError):
            read_directions("x", tmp_path / name)
