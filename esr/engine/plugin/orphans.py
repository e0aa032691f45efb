"""No process of an engine outlives the process that opened it.

vLLM ends its children when it is closed; when the opener is killed, they would stay and hold the device's memory.
"""

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """In a child of multiprocessing: exit as soon as the parent is gone. Elsewhere, and a second time: nothing."""
    parent = multiprocessing.parent_process()
    if parent is None or any(thread.name == NAME for thread in threading.enumerate()):
        return
    threading.Thread(target=_watch, args=(parent.sentinel,), name=NAME, daemon=True).start()


NAME = "esr-end-with-parent"


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
