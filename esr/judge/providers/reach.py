"""Whether anybody is there: an address at which no connection comes about is not a provider that is busy.

A busy one recovers, and retry.py says how often it is asked again. Where nobody listens, the host's name is not known or TLS is refused,
patience seldom helps: that is said at the first such call, and soon it ends the run.
"""

import logging
import os
import socket
import ssl
import time

from esr.errors import JudgeError
from esr.judge.providers.address import SERVED, VARIABLES, address, provider, variable
from esr.judge.providers.keys import public
from esr.judge.providers.retry import TryLater
from esr.params import JudgeParams

log = logging.getLogger(__name__)

NEVER, ONCE = 40.0, 180.0
"""Seconds that an address is tried where no call of this process has been answered, and where one has."""
PAUSE = 2.0
"""Seconds between two tries of one question."""
FORGOTTEN = 60.0
"""Seconds without a try after which an address that was given up is tried as long as a new one."""
CONNECT = 10.0
"""Seconds for a connection to come about; an answer may take much longer."""
CONNECTING = frozenset({"ConnectError", "ConnectTimeout", "ConnectionTimeoutError"})
"""Names of what the transports raise where no connection came about, besides aiohttp's ClientConnector…Error."""


class Unreachable(TryLater):
    """No connection came about, so the call is certainly not taken."""

    def __init__(self, reason: str, address: str | None) -> None:
        super().__init__(reason, sent=False)
        self.address = address


def unreachable(error: BaseException) -> Unreachable | None:
    """What a failed call says of its connection; None: there was one."""
    causes: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in causes:
        causes.append(following)
        inner = following.exceptions[0] if isinstance(following, BaseExceptionGroup) else None
        following = inner or following.__cause__ or following.__context__
    if not any(_connecting(cause) for cause in causes):
        return None
    requests = [cause.__dict__.get("_request") for cause in causes]  # the transport's; what wraps it may name another
    urls = [request.url for request in requests if request is not None]
    late = any("Timeout" in type(cause).__name__ for cause in causes)
    reason = f"no connection within {CONNECT:g} s" if late else _reason(causes[-1])
    return Unreachable(reason, f"{urls[-1].scheme}://{urls[-1].netloc.decode()}" if urls else None)


def _connecting(cause: BaseException) -> bool:
    name = type(cause).__name__
    return isinstance(cause, ConnectionRefusedError | socket.gaierror) or name in CONNECTING or name.startswith("ClientConnector")


def _reason(cause: BaseException) -> str:
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {getattr(cause, 'verify_message', '') or cause.reason or cause}"
    if isinstance(cause, socket.gaierror):
        return f"the host is not found: {cause.strerror}"
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    return str(cause)[:200] or type(cause).__name__


class Reach:
    """Of one provider, for all of this process who ask it."""

    def __init__(self, judge: JudgeParams) -> None:
        self._judge = judge
        self._answered = False
        self._since: float | None = None
        self._last = 0.0

    def heard(self, *, answered: bool = False) -> None:
        """There is somebody, also where he was busy or said no."""
        if self._since is not None:
            log.info("judge %r is reached again after %.0f s", self._judge.name, time.monotonic() - self._since)
        self._since, self._answered = None, self._answered or answered

    def lost(self, away: Unreachable) -> float:
        """Seconds until the next try; a JudgeError where it has been tried for long enough."""
        now, patience = time.monotonic(), ONCE if self._answered else NEVER
        if self._since is None or now - self._last > FORGOTTEN:
            self._since = now
            log.warning(
                "judge %r cannot be reached at %s: %s; it is tried for %.0f s more",
                self._judge.name, self._where(away), away, patience,
            )  # fmt: skip
        self._last = now
        if now - self._since >= patience:
            raise JudgeError(
                f"it cannot be reached at {self._where(away)} ({away}), which was tried for {now - self._since:.0f} s; start {self._what()}, "
                f"mend {self._set_by()}, or name another judge"
            )
        return min(PAUSE, patience / 4)

    def _where(self, away: Unreachable) -> str:
        return away.address or public(address(self._judge)) or self._judge.client

    def _what(self) -> str:
        own = provider(self._judge) == SERVED
        return f"it (`vllm serve {self._judge.model.partition('/')[2]}`)" if own else "what should answer there"

    def _set_by(self) -> str:
        """What an address comes from."""
        if self._judge.api_base is not None:
            return f"judges.{self._judge.name}.api_base in params.yaml"
        if named := variable(self._judge):
            return f"${named}"
        return f"${VARIABLES[SERVED][0]}" if provider(self._judge) == SERVED else "this machine's way to it"


_reaches: dict[tuple[str, ...], Reach] = {}


def reach(judge: JudgeParams) -> Reach:
    """The same for every caller of one judge at one address."""
    named = variable(judge)
    where = address(judge) or (os.environ.get(named, "") if named else "")
    return _reaches.setdefault((judge.name, judge.model, where), Reach(judge))
