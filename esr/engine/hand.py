"""A worker as the process sees it that asks: its line, what it has at work, and its process where that is on this machine."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from signal import SIGKILL
from typing import TYPE_CHECKING, Any, Literal

from esr.engine.share import POOL, VARIABLE, Share
from esr.params import HOME

if TYPE_CHECKING:
    from esr.engine.piece import Piece

SILENCE = 45.0
"""Seconds without a sign of life after which a worker is taken for dead and killed."""
State = Literal["opens", "open", "gone"]
Heard = Callable[["Hand", tuple[Any, ...] | None], None]
"""What a worker said; None: it has died."""


class Hand:
    """One worker. Whatever it says is handed to `heard` by a thread of its own; what it is told never blocks."""

    def __init__(
        self,
        number: int,
        line: Connection,
        heard: Heard,
        *,
        process: "subprocess.Popen[bytes] | None" = None,
        log: Path | None = None,
        share: Share | None = None,
    ) -> None:
        self.number, self._line, self._heard = number, line, heard
        self.process, self.log, self.share = process, log, share
        self.state: State = "opens"
        self.pieces: dict[int, Piece] = {}
        """At work, by the number of the call."""
        self.done = 0
        """Requests answered, also by those who had its place before."""
        self.before = 0
        """Of these, by others."""
        self.since = time.monotonic()
        """When its engine was open."""
        self.refused = ""
        """Why it is given up, in a sentence; from then on it gets no work and what it says does not count."""
        self._dropped = False
        self._outbox: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()

    def begin(self) -> None:
        for work in (self._send, self._listen):
            threading.Thread(target=work, name=f"worker-{self.number}", daemon=True).start()

    @property
    def ended(self) -> str:
        """How."""
        code = self.process.returncode if self.process else None
        return "its line is closed" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"

    @property
    def load(self) -> int:
        """Requests at work."""
        return sum(piece.size for piece in self.pieces.values())

    def tell(self, *message: Any) -> None:
        self._outbox.put(message)

    def close(self, patience: float = 30.0) -> None:
        """Ask it to end, and end it."""
        self.tell("close")
        if self.process is not None:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
        else:
            time.sleep(0.2)  # what it is told goes out first
        self.kill()

    def kill(self) -> None:
        """With all that it started, also where it has died itself; not once its number may be another's. A worker elsewhere ends itself
        when its line is closed."""
        self._dropped = True
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, SIGKILL)
        self._outbox.put(None)

    def _send(self) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                self._line.send(message)
            except OSError:  # it has died, as the other thread learns too
                return

    def _listen(self) -> None:
        last = time.monotonic()
        while not (self._dropped and self.process is None):
            try:
                if self._line.poll(1.0):
                    message, last = self._line.recv(), time.monotonic()
                elif time.monotonic() > last + SILENCE:
                    break
                else:
                    continue
            except (EOFError, OSError):
                break
            if message[0] != "beat":
                self._heard(self, message)
        self.kill()
        self._line.close()
        if self.process is not None:
            self.process.wait()
        self._heard(self, None)


def started(number: int, share: Share, log: Path, heard: Heard) -> Hand:
    """A worker on this machine."""
    mine, theirs = socket.socketpair()
    env = {**os.environ, **share.env, "PYTHONPATH": os.pathsep.join(filter(None, [str(HOME), os.environ.get("PYTHONPATH")]))}
    for variable in (VARIABLE, POOL):
        env.pop(variable, None)
    with log.open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "esr.engine.worker", str(theirs.fileno()), share.cores],
            env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=[theirs.fileno()], start_new_session=True,
        )  # fmt: skip
    theirs.close()
    return Hand(number, Connection(mine.detach()), heard, process=process, log=log, share=share)
