"""A LoRA adapter as requests name it: a folder, known by its content."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from esr.errors import SpecError
from esr.params import resolve

CONFIG, WEIGHTS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True, slots=True)
class Adapter:
    folder: Path
    rank: int
    sha256: str
    """Of its configuration and weights."""

    @classmethod
    def of(cls, folder: str) -> "Adapter":
        """As it lies there now; hashed again only when its files have changed."""
        path = resolve(folder)
        files = [path / CONFIG, *(path / name for name in WEIGHTS if (path / name).is_file())]
        if len(files) < 2 or not files[0].is_file():
            raise SpecError(f"no adapter at {folder!r}; a folder with {CONFIG} and {WEIGHTS[0]} would do")
        return _read(path, tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files))

    @property
    def name(self) -> str:
        """Under which an engine holds it; vLLM sets adapters apart in its prefix cache by their names."""
        return f"esr-{self.sha256[:32]}"

    @property
    def number(self) -> int:
        """vLLM's whole number for it, never 0."""
        return int(self.sha256[:7], 16) + 1


@cache
def _read(path: Path, files: tuple[tuple[str, int, int], ...]) -> Adapter:
    digest = hashlib.sha256()
    for name, _, _ in files:
        digest.update(Path(name).read_bytes())
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        rank = config.get("r")
    except (ValueError, AttributeError, RecursionError):
        raise SpecError(f"{CONFIG} of the adapter at {str(path)!r} is no JSON object; train or copy the adapter again") from None
    if type(rank) is not int:
        raise SpecError(f"the adapter at {str(path)!r} has the rank {rank!r}, not a whole number; LoRA adapters are served")
    return Adapter(path, rank, digest.hexdigest())
