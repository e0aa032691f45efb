"""A file that is there whole and durable, or not at all."""

import os
import secrets
from pathlib import Path


def place(path: Path, content: bytes | bytearray) -> None:
    """Write, fsync, rename, fsync the folder; on any failure nothing is left behind."""
    temporary = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(content)
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
