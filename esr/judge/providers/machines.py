"""How many machines ask one provider now, where results are shared through a bucket: a provider's limit is dealt out evenly to them.

Each process that asks writes an object every few seconds; a machine that has written none for a while asks no longer. Whoever comes waits
until the others have seen it, so that together they stay within the limit. What a machine does not use of its share is not handed on.
"""

import hashlib
import logging
import socket
import threading

from esr.judge.providers.limits import folder
from esr.remote.bucket import Bucket, Unreachable
from esr.remote.owner import named

log = logging.getLogger(__name__)

EVERY = 3.0
"""Seconds between two signs of a machine, and looks at the others'."""
TERM = 15.0
"""Seconds after which one without a sign is gone."""
SWEEP = 40 * TERM
"""Seconds after which what a killed process left is removed."""


def machine() -> str:
    """Processes that keep their limits in one folder are one machine."""
    return hashlib.sha256(f"{socket.gethostname()}:{folder()}".encode()).hexdigest()[:16]


class Machines:
    """Of one provider, as this process sees them."""

    def __init__(self, bucket: Bucket, provider: str) -> None:
        self._bucket = bucket
        self._folder = f"limits/{hashlib.sha256(provider.encode()).hexdigest()[:16]}/"
        self._me = f"{self._folder}{machine()}/{hashlib.sha256(named().encode()).hexdigest()[:16]}"
        self.asking = 1
        """So many, this one included."""
        self.settled = threading.Event()
        """The others count this machine in."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="judge-machines", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        known, silent = False, False
        while True:
            try:
                self._bucket.keep(self._me, b"asking")
                before, self.asking = self.asking, self._count()
                known, silent = True, False
                if self.asking > before:
                    log.info("%d machines ask this provider and share its limit", self.asking)
            except Unreachable as error:
                if not silent:
                    log.warning("%s; how many machines ask this provider is not known, %d are counted on", error, self.asking)
                silent = True
            if known and not self.settled.is_set():  # others look within this time
                self._ended.wait(EVERY if self.asking > 1 else 0)
                self.settled.set()
            if self._ended.wait(EVERY):
                break
        try:
            self._bucket.remove(self._me)
        except Unreachable:  # it is taken for gone when its term is over
            log.info("%s could not be removed", self._me)

    def _count(self) -> int:
        found = self._bucket.objects(self._folder)
        for name in [name for name, one in found.items() if one.age > SWEEP]:
            self._bucket.remove(name)
        return len({name.removeprefix(self._folder).split("/")[0] for name, one in found.items() if one.age < TERM})
