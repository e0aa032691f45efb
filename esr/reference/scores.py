"""A judge's verdict as the authors' files hold it: what counts as a score, an attempt, a grade."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]


def number(value: object) -> float | None:
    """A finite number, also written as text; None for anything else, a truth value included."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: object, bits: int = 31) -> int | None:
    """An integer that fits its column, also written as text or as 3.0."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(1 << bits) <= value < 1 << bits else None
    found = number(value)
    return int(found) if found is not None and found.is_integer() and abs(found) < 1 << bits else None


def words(value: object) -> str:
    """Text that can be stored: a lone surrogate becomes the replacement character; what is not text is written out."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def verdict(score: object, problems: Counter[str]) -> tuple[list[Row], str | None]:
    """The attempts in order, a null score kept as NULL, and why there is no valid grade."""
    if not isinstance(score, Mapping):
        return [], "no score" if score is None else _odd(problems, "a score is not an object")
    found = score.get("attempts")
    if found is None:
        error = score.get("error")
        return [], f"judge: {words(error)[:200]}" if error else "no attempts"
    if not isinstance(found, list):
        return [], _odd(problems, "attempts are not a list")
    attempts = [attempt for item in found if (attempt := _attempt(item, problems)) is not None]
    if not found:
        return [], "no attempt"
    return attempts, None if any(a["score"] is not None for a in attempts) else "no score"


def _attempt(item: object, problems: Counter[str]) -> Row | None:
    if not isinstance(item, Mapping):
        problems["attempts that are not objects are left out"] += 1
        return None
    value = item.get("score")
    score = number(value)
    if score is None and value is not None:
        problems[f"a score that is no number counts as none, such as {words(value)[:40]!r}"] += 1
    elif score is not None and not 0 <= score <= 100:
        problems["scores outside 0 to 100 are taken as they stand"] += 1
    return {"score": score, "text": words(item.get("attempt_text")), "start": None, "end": None}


def _odd(problems: Counter[str], what: str) -> str:
    problems[what] += 1
    return what
