"""How many calls fly at once, and how many start in a minute, over all processes of one machine; of several, each has an equal share.

Both live in small files under the machine's temporary folder, one pair per provider, and both are kept by the kernel: a call holds
an flock on one slot file while it flies, so a killed process gives its slots back at once; and the time of the next free start
stands in eight bytes that are read and moved under an flock. A process books one start at a time, so a kill loses at most one.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import stat
import struct
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from esr.errors import JudgeError

BURST = 0.3
"""Seconds of unused starts that may be caught up on: what a stall loses is made good, and ten seconds hold their limit within 3 %."""
SLOT_POLL = 0.01
"""Seconds between two looks for a slot that another process may have given back."""
LINE_POLL = 0.002
"""Seconds between two tries to be the process whose turn it is; after its turn a process stays back for twice as long."""
RECENT, MANY = 20, 4
"""Of the last 20 calls, how many refusals for being too many tell that the provider's own limit is lower than ours."""
PAUSE, REST = 0.3, 0.25
"""Seconds between two steps back, and without a new call after each such refusal."""
FIRST = 16
"""Calls in the air at first where no limit is set; twice as many with every round of answers, until the provider refuses some."""
EIGHT = struct.Struct("<d")


def folder() -> Path:
    """Of this user on this machine; $ESR_LIMITS names another. Whatever lies there and is somebody else's is not used."""
    named = os.environ.get("ESR_LIMITS")
    path = Path(named or Path(tempfile.gettempdir()) / f"esr-limits-{os.getuid()}")
    try:
        if named:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            return path
        with suppress(FileExistsError):
            path.mkdir(mode=0o700, parents=True)
        found = path.lstat()
    except OSError as error:
        raise JudgeError(
            f"the judges' limits cannot be kept in {str(path)!r:.200} ({error.strerror or error}); set ESR_LIMITS to a folder that you can write"
        ) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise JudgeError(
            f"the judges' limits would be kept in {str(path)!r}, which is not a folder that only you can write; "
            "remove it, or set ESR_LIMITS to one that is"
        )
    return path


def own_file(path: str) -> int:
    """Open for reading and writing, and made where it is lacking; no link is followed and nobody else's file is touched."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise JudgeError(
                "each place in the air takes a file and no more can be open; lower the judge's `concurrency`"
            ) from None
        raise JudgeError(f"{path!r}, where the judges' limits are kept, cannot be used ({error.strerror}); remove it") from None
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_nlink > 1:
        os.close(file)
        raise JudgeError(f"{path!r}, where the judges' limits are kept, is not a file of its own and yours; remove it")
    return file


class Limits:
    """The gate before one provider. To be used on one event loop."""

    def __init__(self, provider: str, concurrency: int, per_minute: int, machines: Callable[[], int] = lambda: 1) -> None:
        """`machines`: how many share the limit now."""
        self.concurrency, self._machines = concurrency, machines
        self.interval = 60.0 / per_minute if per_minute else 0.0
        base = folder() / hashlib.sha256(provider.encode()).hexdigest()[:16]
        self._slots = [own_file(f"{base}.slot{i}") for i in range(concurrency)]
        self._clock, self._line, self._waiting = (own_file(f"{base}.{name}") for name in ("clock", "turn", "waiting"))
        self._stay_back = False
        self._rising = not per_minute
        self.allowed = float(min(concurrency, FIRST) if self._rising else concurrency)
        """Places that this process uses at most: fewer when the provider says that we are too many, more again with every answer."""
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._stepped_back = self._rest_until = 0.0
        self._idle = list(range(concurrency))
        self._given_back = asyncio.Event()
        self._taking = asyncio.Lock()
        self._booking = asyncio.Lock()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """One of the places in the air."""
        async with self._taking:  # one of us looks at the files, in the order of asking
            place = await self._take()
        try:
            yield
        finally:
            fcntl.flock(self._slots[place], fcntl.LOCK_UN)
            self._idle.append(place)
            self._given_back.set()

    async def _take(self) -> int:
        while self.concurrency - len(self._idle) >= min(int(self.allowed), max(1, self.concurrency // self._machines())):
            self._given_back.clear()
            await self._given_back.wait()
        while (rest := self._rest_until - time.monotonic()) > 0:
            await asyncio.sleep(rest)
        await self._wait_in_line()
        try:
            while (place := self._free_place()) is None:  # held by other processes, which cannot wake us
                await asyncio.sleep(SLOT_POLL)
            return place
        finally:
            fcntl.flock(self._line, fcntl.LOCK_UN)
            self._stay_back = not _try_lock(self._waiting)
            fcntl.flock(self._waiting, fcntl.LOCK_UN)

    def _free_place(self) -> int | None:
        for i, place in enumerate(self._idle):
            if _try_lock(self._slots[place]):
                del self._idle[i]
                return place
        return None

    async def _wait_in_line(self) -> None:
        """Processes take places by turns: without this, whoever gives a place back would be first to take it again."""
        if self._stay_back:
            await asyncio.sleep(2 * LINE_POLL)
        try:
            while not _try_lock(self._line):
                fcntl.flock(self._waiting, fcntl.LOCK_SH | fcntl.LOCK_NB)
                await asyncio.sleep(LINE_POLL)
        finally:
            fcntl.flock(self._waiting, fcntl.LOCK_UN)

    def answered(self) -> None:
        self._recent.append(False)
        self.allowed = min(float(self.concurrency), self.allowed + (1 if self._rising else 1 / self.allowed))
        self._given_back.set()

    def refused(self) -> None:
        """The provider said that we are too many."""
        self._recent.append(True)
        now = time.monotonic()
        if sum(self._recent) >= MANY and now > self._stepped_back + PAUSE:
            self.allowed, self._stepped_back = max(1.0, 0.5 * self.allowed), now
        if sum(self._recent) >= MANY:
            self._rising, self._rest_until = False, now + REST

    async def start(self) -> None:
        """Waits for a start; called right before each call goes out."""
        if not self.interval:
            return
        async with self._booking:
            wait = self._book() - time.time()
            if wait > 0:
                await asyncio.sleep(wait)

    def _book(self) -> float:
        fcntl.flock(self._clock, fcntl.LOCK_EX)
        try:
            now = time.time()
            stored = os.pread(self._clock, EIGHT.size, 0)
            following = EIGHT.unpack(stored)[0] if len(stored) == EIGHT.size else now
            # a clock that was set back must not stop the world
            following = now if following > now + 3600 else max(following, now - BURST)
            os.pwrite(self._clock, EIGHT.pack(following + self.interval * self._machines()), 0)
            return float(following)
        finally:
            fcntl.flock(self._clock, fcntl.LOCK_UN)

    def close(self) -> None:
        for file in [*self._slots, self._clock, self._line, self._waiting]:
            os.close(file)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
