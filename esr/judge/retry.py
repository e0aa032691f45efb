"""Asking again: which failures are worth it, how long to wait, when to stop.

A failure is one of three: Busy (rate limit, overload, time-out, broken connection: ask again later), Rejected (this one request is
not acceptable: it will not be asked again), and JudgeError (nothing will be accepted: a wrong key, no such model).
"""

import email.utils
import random
import time
from collections.abc import Mapping

from esr.errors import JudgeError

BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
REJECTED = frozenset({400, 413, 422})
FIRST, LONGEST = 0.5, 30.0
"""Seconds of the first and the longest wait that we choose ourselves."""
OBEYED = 300.0
"""The longest wait that is taken from a provider."""


class Busy(Exception):
    """Worth asking again, after `wait` seconds if the provider says so."""

    def __init__(self, reason: str, wait: float | None = None, *, too_many: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.too_many = too_many
        """The provider is there and says that we ask too much."""


class Rejected(Exception):
    """This request will never be answered."""


class Garbled(Busy):
    """A success whose body is not the provider's JSON; kept as evidence, asked again."""

    def __init__(self, body: str) -> None:
        super().__init__("the body of the answer is not JSON")
        self.body = body


def failure(status: int | None, message: str, headers: Mapping[str, str] | None) -> Exception:
    """The provider's status, as one of the three."""
    message = " ".join(message.split())[:200]
    if status is None:
        return Busy(message)
    if status in BUSY or (status >= 500):
        return Busy(f"{status}: {message}", retry_after(headers or {}), too_many=status in (429, 529))
    if status in REJECTED:
        return Rejected(f"{status}: {message}")
    gone = "; a model that is no longer served needs another one in params.yaml, judges" if status == 404 else ""
    return JudgeError(f"the provider refuses with status {status}: {message}{gone}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or `retry-after` (a number or a date)."""
    low = {name.lower(): value for name, value in headers.items()}
    try:
        if "retry-after-ms" in low:
            return clipped(float(low["retry-after-ms"]) / 1000)
        if "retry-after" in low:
            return clipped(float(low["retry-after"]))
    except ValueError:
        date = email.utils.parsedate_tz(low.get("retry-after", ""))
        return clipped(email.utils.mktime_tz(date) - time.time()) if date else None
    return None


def clipped(seconds: float) -> float | None:
    """Negative or not a number is not an instruction."""
    return min(seconds, OBEYED) if seconds >= 0 else None


def delay(attempt: int, told: float | None, rng: random.Random) -> float:
    """Seconds before the try after `attempt` (0-based): never less than told, jittered so that callers do not return together."""
    if told is not None:
        return told + rng.uniform(0.0, 0.1 * told + 0.05)
    return rng.uniform(0.5, 1.0) * min(LONGEST, FIRST * float(2**attempt))
