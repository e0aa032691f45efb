"""JSON as it comes over the wire: what it asks of the plugin, and what only looks as if it did.

A server that does not know a key ignores it, and a parser that meets one twice keeps the last: either way a request would be
answered as if nothing had been asked. Here both are refused.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from esr.engine.plugin.spec import FIELD
from esr.engine.plugin.text import loads
from esr.errors import SpecError

PLACE = "vllm_xargs"
"""Where vLLM's protocols take what is meant for plugins."""
MENTIONED = re.compile(rb"sae|steer|\\u00[4-7]", re.IGNORECASE)
"""Without any of it, a body asks nothing of the plugin; \\u00.. may spell a letter of it."""
FREE = {"metadata", "messages", "input", "prompt", "tools", "response_format", "structured_outputs"}
"""Of the client's own choosing."""


def spec(text: object) -> object:
    """A steering spec as it was sent, which may be text."""
    if not isinstance(text, str):
        return text
    doubled: list[str] = []
    try:
        found = loads(text)
        if text.count(":") > _keys(found):
            found = _loads(text, doubled)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"the steering spec is not JSON: {error}") from None
    _refuse(doubled, "the steering spec")
    return found


def _keys(found: object) -> int:
    """No more than a spec has keys. Each was written with a colon, so where there are no more colons than these none came twice;
    the keys of a capture, a schedule or a condition are not counted, whose specs are read once more."""
    if not isinstance(found, dict):
        return 0
    ops = found.get("ops")
    return len(found) + (sum([len(op) for op in ops if isinstance(op, dict)]) if isinstance(ops, list) else 0)


def asks(body: bytes, kind: str) -> bool:
    """Whether an HTTP body asks for steering; SpecError where it seems to and would not get it."""
    if not MENTIONED.search(body):
        return False
    if "json" not in kind and kind:
        return PLACE.encode() in body and FIELD.encode() in body
    doubled: list[str] = []
    try:
        block = _loads(body, doubled)
    except (ValueError, RecursionError):
        return False  # the route's own parser says so
    return isinstance(block, dict) and _judged(block, doubled)


def check_line(text: str | bytes) -> None:
    """A line of a batch file, whose `body` is judged as a request's."""
    doubled: list[str] = []
    try:
        block = _loads(text, doubled)
    except (ValueError, RecursionError):
        return
    body = block.get("body") if isinstance(block, dict) else None
    if isinstance(body, dict):
        _judged(body, doubled)


def _judged(block: dict[str, Any], doubled: list[str]) -> bool:
    asked = _asked(block)
    if asked or {PLACE, FIELD, "extra_args", "sampling_params"} & set(doubled):
        _refuse(doubled, "the request")
    if asked and block.get("background"):
        raise SpecError("a reply made in the background cannot say what was applied; leave out `background` or the steering spec")
    return asked


def check_keys(block: Mapping[str, Any], where: str) -> None:
    """No key that is nearly the plugin's own."""
    for key in block:
        if key != FIELD and _near(key):
            raise SpecError(f"no field {key[:100]!r} in {where}; nearest: {FIELD}")


def _asked(block: dict[str, Any]) -> bool:
    for key, value in block.items():
        if key == FIELD or _near(key):
            raise SpecError(f"the steering spec stands at the top of the request as {key[:100]!r} and goes into {PLACE}.{FIELD}")
        if isinstance(value, dict) and key not in FREE | {PLACE, "sampling_params"}:
            inner = value.get(PLACE) if key == "extra_body" else None
            if FIELD in value or (isinstance(inner, dict) and FIELD in inner):
                raise SpecError(f"the steering spec stands in {key[:100]!r}, which is not read here, and goes into {PLACE}.{FIELD}")
    places = [(PLACE, block.get(PLACE))]
    params = block.get("sampling_params")
    if isinstance(params, dict):
        for key in (FIELD, PLACE):
            if key in params:
                raise SpecError(f"sampling_params has {key!r}; the steering spec goes into sampling_params.extra_args.{FIELD}")
        places.append(("sampling_params.extra_args", params.get("extra_args")))
    asked = False
    for where, place in places:
        if isinstance(place, dict):
            check_keys(place, where)
            asked |= FIELD in place
    return asked


def _near(key: str) -> bool:
    letters = re.sub("[^a-z]", "", key.casefold())
    return letters in ("sae", "saes") or letters.startswith(("saest", "saesp", "steering"))


def _loads(text: str | bytes, doubled: list[str]) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        block = dict(items)
        if len(block) < len(items):
            keys = [key for key, _ in items]
            doubled.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return block

    return json.loads(text, object_pairs_hook=pairs)


def _refuse(doubled: list[str], what: str = "the request") -> None:
    if doubled:
        raise SpecError(f"{what} has the key {doubled[0][:100]!r} twice; JSON keeps only the last")
