"""Who holds a claim: a process of some machine, known by its number and its start, so that a reused number is another owner."""

import itertools
import os
import socket
import time
from pathlib import Path

_serial = itertools.count()


def named() -> str:
    """A new owner in this process."""
    return f"{socket.gethostname()}:{os.getpid()}:{started(os.getpid())}:{next(_serial)}"


def started(pid: int) -> str:
    """When a process began, in clock ticks since boot. Empty where it is not told."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def gone(owner: str, until: float) -> bool:
    """Whether nobody holds a claim any more: its process is gone, or is on another host and its lease is over."""
    host, pid, start, _ = owner.rsplit(":", 3)
    if host != socket.gethostname():
        return time.time() > until
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return started(int(pid)) != start
