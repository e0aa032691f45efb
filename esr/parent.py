"""What a process that is started owes to whoever started it."""

import ctypes
import signal
import sys

PDEATHSIG = 1


def end_with_parent() -> None:
    """Of a process to be: it is killed with whoever started it, however that ends. Linux alone can; elsewhere it goes on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)
