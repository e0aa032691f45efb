"""A lock on one piece of work, held over processes of one machine, and over machines that share a bucket, until its holder dies.

Of two runs that want the same batch the second waits, and finds it done.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from esr.remote import mirror
from esr.remote.lease import leased
from esr.types import content_id


@contextmanager
def exclusive(folder: Path, *work: object) -> Iterator[None]:
    """Waits until nobody else, thread or process, works on `work`. `folder`: `locks` of a store, or of other work."""
    folder.mkdir(parents=True, exist_ok=True)
    named = f"{content_id(*work, length=3)}.lock"
    fd = os.open(folder / named, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if (copy := mirror.of(folder.parent)) is None:
            yield
        else:
            with leased(copy.bucket, f"locks/{named}"):
                copy.refresh(at_once=True)
                yield
    finally:
        os.close(fd)
