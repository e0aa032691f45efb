"""The pages with their data as a folder of files, which opens from the disk and from any plain static server.

A browser lets a page from the disk load scripts beside it and nothing else, so data are scripts: data/N.js hands a packed piece of
JSON to the page. The answers of one page lie in the order of their addresses, some hundred in a file; mode.js knows the first of
each file.
"""

import base64
import json
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from esr.errors import DataError
from esr.store import Store
from esr.store.snapshot import Snapshot
from esr.view import server
from esr.view.data.copied import COPIED, key
from esr.view.kept import encoded

PIECE = 1 << 20
"""Bytes of JSON after which a new file is begun."""
MARK = ".esr-pages"
"""A file that says that the folder is ours to write anew."""


@dataclass
class Written:
    """What a bundle came to hold."""

    folder: Path
    answers: int = 0
    size: int = 0
    first: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    """Of each page: the first address in each of its files, and the file's number."""
    files: int = 0


def write(store: Snapshot, folder: Path, experiments: Sequence[str] = ()) -> Written:
    """The pages of these experiments, of all without any; the folder is made, or was made by an earlier bundle."""
    if folder.exists() and not (folder / MARK).is_file() and any(folder.iterdir()):
        raise DataError(f"{str(folder)!r} holds other files; name a new folder, or one that an earlier --bundle wrote")
    known = {row["experiment"] for row in store.sql("select distinct experiment from members").to_pylist()}
    if lacking := sorted(set(experiments) - known):
        raise DataError(f"the store has nothing of {', '.join(lacking)}; it has {', '.join(sorted(known)) or 'no experiment'}")
    if folder.exists():
        shutil.rmtree(folder)
    (folder / "data").mkdir(parents=True)
    (folder / MARK).write_text("written by python -m esr view --bundle\n", encoding="utf-8")
    found = Written(folder)
    for name, content in server.pages().items():
        _put(found, folder / name, content)
    with store.held():
        for page, answers in COPIED.items():
            _page(found, page, answers(store, experiments))
    _figures(found, store, experiments)
    told = {"made": f"{datetime.now(UTC):%Y-%m-%d}", "experiments": list(experiments), "first": found.first}
    _put(found, folder / "mode.js", b'"use strict";\nesr.bundled(' + json.dumps(told).encode() + b");\n")
    return found


def _page(found: Written, page: str, answers: Iterator[tuple[Mapping[str, str], Any]]) -> None:
    """Some answers in each file, in the order in which a browser compares texts."""
    piece: dict[str, Any] = {}
    size = 0
    for address, value in answers:
        name = key(address)
        told = encoded(value)
        piece[name] = told
        size += len(told)
        found.answers += 1
        if size >= PIECE:
            _file(found, page, piece)
            piece, size = {}, 0
    if piece:
        _file(found, page, piece)


def _file(found: Written, page: str, piece: Mapping[str, bytes]) -> None:
    number = found.files
    found.files += 1
    found.first.setdefault(page, []).append((next(iter(piece)), number))
    whole = b"{" + b",".join(json.dumps(name).encode() + b":" + told for name, told in piece.items()) + b"}"
    packed = base64.b64encode(zlib.compress(whole, 9))
    _put(found, found.folder / "data" / f"{number}.js", b'esr.bundle.take(%d,"%b");\n' % (number, packed))


def _figures(found: Written, store: Store, experiments: Sequence[str]) -> None:
    folder = store.root / "figures"
    for file in sorted(folder.glob("*.png")) if folder.is_dir() else ():
        if not experiments or file.name.split("-")[0] in experiments:
            (found.folder / "figures").mkdir(exist_ok=True)
            _put(found, found.folder / "figures" / file.name, file.read_bytes())


def _put(found: Written, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    found.size += len(content)
