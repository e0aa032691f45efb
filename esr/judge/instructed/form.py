"""The form of an answer: one JSON object, by itself or between the tags <json> and </json>, and numbers from 0 to 100.

What a judge quotes from a reply may hold such tags and such JSON too; it is never taken for the answer.
"""

import json
import math
import re
from typing import Any

OPENING, CLOSING = re.compile(r"<json>\s*", re.IGNORECASE), re.compile(r"\s*</json>", re.IGNORECASE)


class Malformed(ValueError):
    """An answer without the form asked for; the message tells the judge what is wrong."""


def number(value: object, name: str) -> float:
    """A JSON number from 0 to 100; neither true nor "85" is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed(f"{name} must be a number, not {'text' if isinstance(value, str) else 'something else'}")
    if not 0 <= value <= 100 or (isinstance(value, float) and not math.isfinite(value)):
        raise Malformed(f"{name} must lie between 0 and 100")
    return float(value)


def json_object(text: str, *, cut: bool = False) -> dict[str, Any]:
    """The answer's JSON: the whole of it, else what stands between the last tags, else from the first brace to the last. `cut`: it broke
    off at the length limit, so that a quotation may be all that stands between tags."""
    whole = text.strip()
    if whole.startswith("{"):
        try:
            return _object(DECODER.decode(whole))
        except (ValueError, RecursionError):
            pass
    if OPENING.search(text):
        return _tagged(text, cut)
    try:
        value = DECODER.decode(text[text.find("{") : text.rfind("}") + 1])
    except (ValueError, RecursionError):
        raise Malformed("it holds no valid JSON object between <json> and </json>") from None
    return _object(value)


def _tagged(text: str, cut: bool) -> dict[str, Any]:
    found, at = [], 0
    while opening := OPENING.search(text, at):
        at = opening.end()
        if text[at : at + 1] not in ("{", "["):
            continue  # the tag is spoken of
        try:
            value, at = DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise Malformed("it holds no valid JSON object between <json> and </json>") from None
        closing = CLOSING.match(text, at)
        at = closing.end() if closing else at
        found.append(value)
    if not found:
        raise Malformed("it holds no valid JSON object between <json> and </json>")
    if text[at:].strip(" \n\t`") and (cut or len(found) > 1):
        raise Malformed("text follows the JSON, which must come last")
    return _object(found[-1])


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed("its JSON must be an object")
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


DECODER = json.JSONDecoder(parse_constant=_refuse)
