"""A lock on one piece of work, held over processes of one machine and let go when its holder dies.

Of two runs that want the same batch the second waits, and finds it done.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from esr.types import content_id


@contextmanager
def exclusive(folder: Path, *work: object) -> Iterator[None]:
    """Waits until nobody else, thread or process, works on `work`."""
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / f"{content_id(*work, length=3)}.lock", os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
