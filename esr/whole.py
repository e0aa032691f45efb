"""A file that is there whole and durable, or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def placing(path: Path) -> Iterator[BinaryIO]:
    """What is written to it gets its name in one step at the end of the block, durable there; on any failure nothing is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def place(path: Path, content: bytes | bytearray | str) -> None:
    with placing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
