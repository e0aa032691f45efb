"""Where workers of other machines join a fleet: a socket that lets in whoever shows the key of this fleet."""

import logging
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener

from esr.engine.share import Summons

log = logging.getLogger(__name__)
PATIENCE = 60.0
"""Seconds until it is said that nobody has come."""


class Door:
    """Calls `n` workers and hands over each that comes, `call` one more."""

    def __init__(self, summons: Summons, n: int, joined: Callable[[Connection], None]) -> None:
        self._summons, self._joined = summons, joined
        self._key = secrets.token_hex(16)
        self._listener = Listener((summons.host, 0), backlog=64, authkey=self._key.encode())
        self._lock, self._closed = threading.Lock(), False
        self.awaited = 0
        """Called and not here yet."""
        threading.Thread(target=self._open, name="door", daemon=True).start()
        for _ in range(n):
            self.call()
        self._said = threading.Timer(PATIENCE, self._say)
        self._said.daemon = True
        self._said.start()

    @property
    def address(self) -> str:
        host, port = self._listener.address
        return f"{host}:{port}"

    def call(self) -> None:
        with self._lock:
            self.awaited += 1
        self._summons.call(self.address, self._key)

    def call_aside(self) -> None:
        """In a thread of its own; that it failed is said, and the others go on."""

        def tried() -> None:
            try:
                self._summons.call(self.address, self._key)
            except Exception as error:  # the server's own kinds
                with self._lock:
                    self.awaited = max(self.awaited - 1, 0)
                log.warning("no worker of the pool %s can be called in its place (%s)", self._summons.pool, type(error).__name__)

        with self._lock:
            self.awaited += 1
        threading.Thread(target=tried, name="call", daemon=True).start()

    def close(self) -> None:
        self._closed = True
        self._said.cancel()
        with suppress(OSError):
            self._listener.close()

    def _open(self) -> None:
        while not self._closed:
            try:
                line = self._listener.accept()
            except (AuthenticationError, EOFError, ConnectionError):  # somebody else's
                continue
            except OSError:
                return
            self._joined(line)
            with self._lock:  # only now: it is awaited or there, and never neither
                self.awaited = max(self.awaited - 1, 0)

    def _say(self) -> None:
        if self.awaited:
            log.warning(
                "%d workers of the pool %s were called and have not come yet; the run waits for the first",
                self.awaited,
                self._summons.pool,
            )
