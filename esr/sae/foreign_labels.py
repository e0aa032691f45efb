"""Labels from files of other shapes: CSV, TSV, JSON or JSON lines, packed or not, under other column names."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from esr.errors import SaeError

INDEX = ("index_in_sae", "index", "latent", "latent_index", "feature", "feature_index", "feature_id", "latent_id", "id")
LABEL = ("label", "description", "explanation", "feature_label", "latent_label", "text", "name", "title")
"""Names that are looked for, the first that is there."""


def read(path: Path, *, index: str | None = None, label: str | None = None) -> dict[int, str]:
    """Labels by latent. The columns are found by their usual names unless they are named."""
    rows = list(_rows(path))
    if not rows:
        raise SaeError(f"{path.name} holds no rows; a CSV, TSV, JSON or JSONL file with an index and a label a row would do")
    number, text = _column(rows[0], INDEX, index, "index", path), _column(rows[0], LABEL, label, "label", path)
    found: dict[int, str] = {}
    for n, row in enumerate(rows, 1):
        try:
            at = int(str(row[number]))
        except (KeyError, ValueError):
            raise SaeError(
                f"{path.name} row {n}: {number} is {row.get(number)!r:.80}, not a number; --index names another column"
            ) from None
        said = " ".join(str(row.get(text) or "").encode("utf-8", "replace").decode().split())
        if found.setdefault(at, said) != said:
            raise SaeError(f"{path.name} labels latent {at} twice, {found[at]!r:.80} and {said!r:.80}; keep one")
    return {at: said for at, said in sorted(found.items()) if said}


def _column(row: Mapping[str, Any], usual: Iterable[str], asked: str | None, what: str, path: Path) -> str:
    by_name = {key.strip().lower(): key for key in row if key}
    for name in (asked,) if asked else usual:
        if name and name.lower() in by_name:
            return by_name[name.lower()]
    missing = f"no column {asked!r}" if asked else f"no column that is known for the {what}"
    raise SaeError(f"{path.name} has {missing}; it has {', '.join(map(str, row))[:200]}; name one with --{what}")


def _rows(path: Path) -> Iterable[Mapping[str, Any]]:
    if not path.is_file():
        raise SaeError(f"no file at {str(path)!r}; a CSV, TSV, JSON or JSONL file with an index and a label a row would do")
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
        kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
        if kind in ("jsonl", "ndjson"):
            return _dicts([json.loads(line) for line in text.split("\n") if line.strip()], path)
        if kind == "json":
            return _dicts(json.loads(text), path)
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if kind == "tsv" else ","))
    except (OSError, EOFError, ValueError, RecursionError, zlib.error, csv.Error) as error:
        if isinstance(error, SaeError):
            raise
        raise SaeError(f"{path.name} cannot be read: {error}") from None


def _dicts(tree: object, path: Path) -> list[Mapping[str, Any]]:
    """A list of objects, or one object of labels by index."""
    if isinstance(tree, dict) and all(key.isdecimal() and isinstance(value, str) for key, value in tree.items()):
        return [{"index": key, "label": value} for key, value in tree.items()]
    if isinstance(tree, list) and all(isinstance(row, dict) for row in tree):
        return tree
    raise SaeError(f"{path.name} holds neither a list of objects nor labels by index")
