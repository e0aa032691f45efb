"""One event loop in a daemon thread for all judges of a process, because litellm keeps its connections per loop."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Loop:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judges", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result, waited for in the calling thread; an interrupt there cancels the work here."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()


_loops: dict[int, Loop] = {}
_making = threading.Lock()


def loop() -> Loop:
    """This process's; a forked child has none of its parent's threads."""
    with _making:
        return _loops.setdefault(os.getpid(), _loops.get(os.getpid()) or Loop())
