"""Asking again: which failures are worth it, how long to wait, when to stop.

A failure is one of three: TryLater (rate limit, overload, time-out, broken connection: ask again later), Rejected (this one call is
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


class TryLater(Exception):
    """Worth asking again, after `wait` seconds if the provider says so."""

    def __init__(self, reason: str, wait: float | None = None, *, too_many: bool = False, sent: bool = True) -> None:
        super().__init__(reason)
        self.wait = wait
        self.too_many = too_many
        """The provider is there and says that we ask too much."""
        self.sent = sent
        """The provider may have taken the call for all that; False: it certainly has not."""


class Rejected(Exception):
    """This call will never be answered."""


class Garbled(TryLater):
    """A success whose body is not the provider's JSON; kept as evidence, asked again."""

    def __init__(self, body: str) -> None:
        super().__init__("the body of the answer is not JSON")
        self.body = body


class NotThere(JudgeError):
    """The provider knows nothing of that name."""


def failure(status: int | None, message: str, headers: Mapping[str, str] | None, *, sent: bool = True) -> Exception:
    """The provider's status, as one of the three. `sent`: without a status, whether the call may have reached it."""
    message = " ".join(message.split())[:200]
    if status is None:
        return TryLater(message, sent=sent)
    if status in BUSY or (status >= 500):
        too_many = status in (429, 529)
        wait = retry_after(headers or {})
        return TryLater(f"{status}: {message}", wait, too_many=too_many, sent=status != 429)
    if status in REJECTED:
        return Rejected(f"{status}: {message}")
    gone = "; a model that is no longer served needs another one in params.yaml, judges" if status == 404 else ""
    return (NotThere if status == 404 else JudgeError)(f"the provider refuses with status {status}: {message}{gone}")


ERRORS = {"rate_limit_error": 429, "overloaded_error": 529, "timeout_error": 504, "authentication_error": 401, "permission_error": 403,
          "not_found_error": 404, "billing_error": 402, "request_too_large": 413}  # fmt: skip
"""Statuses of errors that come inside a success, by the type that they name; any other is taken for 500 and asked again."""


def hidden(error: object) -> Exception:
    """The failure that a success is about: its body holds an error instead of an answer."""
    error = error if isinstance(error, dict) else {"message": str(error)}
    code, kind = error.get("code"), error.get("type")
    status = code if isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599 else ERRORS.get(str(kind), 500)
    message = f"status 200 with an error inside: {kind or ''} {error.get('message') or ''}"
    return failure(500 if status in REJECTED else status, message, None)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or `retry-after` (a number or a date)."""
    low = {name.lower(): value for name, value in headers.items()}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if name in low:
            try:
                return clipped(float(low[name]) * unit)
            except ValueError:
                return until(low[name])
    return None


def until(date: str) -> float | None:
    """Seconds to a moment; one beyond every calendar is far away."""
    try:
        parsed = email.utils.parsedate_tz(date)
        return clipped(email.utils.mktime_tz(parsed) - time.time()) if parsed else None
    except (ValueError, OverflowError):
        return OBEYED


def clipped(seconds: float) -> float | None:
    """Negative or not a number is not an instruction."""
    return min(seconds, OBEYED) if seconds >= 0 else None


def delay(attempt: int, told: float | None, rng: random.Random) -> float:
    """Seconds before the try after `attempt` (0-based): never less than told, jittered so that callers do not return together."""
    if told is not None:
        return told + rng.uniform(0.0, 0.1 * told + 0.05)
    return rng.uniform(0.5, 1.0) * min(LONGEST, FIRST * float(2**attempt))
