"""Reply → question, answer → attempts. Pure: no provider, no file, no clock.

An answer is believed only if it has the whole form: attempts with a text and a number from 0 to 100, in the order of the reply, or
the explicit word that there is none. A quotation that is not in the reply makes its attempt unlocated. One repair is asked for;
what still has no form is missing, never zero.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from esr import prompts
from esr.judge import Ask
from esr.judge.locate import locate
from esr.judge.request import Answer, Kind, Request, Schema, Target, Turn, clean
from esr.types import Attempt

TAGGED = re.compile(r"<json>(.*?)</json>", re.DOTALL | re.IGNORECASE)
SCHEMA: Schema = {
    "type": "object",
    "properties": {
        "feedback": {"type": "string"},
        "attempts": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"attempt_text": {"type": "string"}, "score": {"type": "number"}},
                "required": ["attempt_text", "score"],
                "additionalProperties": False,
            },
        },
        "no_attempt": {"type": "boolean"},
    },
    "required": ["feedback", "attempts", "no_attempt"],
    "additionalProperties": False,
}
REPAIRS: dict[Kind, Kind] = {"grade": "grade-repair", "concreteness": "concreteness-repair", "regions": "regions-repair"}
LONGEST_QUOTED = 12_000
"""Characters of an unusable answer that go back with the repair."""


class Malformed(ValueError):
    """An answer without the form asked for; the message tells the judge what is wrong."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says once it is checked."""

    attempts: tuple[Attempt, ...] = ()
    problem: str | None = None
    """What a repair should mend. With attempts: only that some quotations are not in the reply."""
    missing: str | None = None
    """`refused`, `truncated`, `malformed` or `no attempt`; None: it has attempts."""


PROMPTS = ("judge", "judge_told", "judge_told_resists", "judge_blind", "judge_form_structured", "judge_form_tagged",
           "judge_user", "judge_user_blind", "repair")  # fmt: skip


def system(*, structured: bool, blind: bool) -> str:
    return prompts.fill(
        prompts.text("judge"),
        told=prompts.text("judge_blind" if blind else "judge_told"),
        resists="" if blind else prompts.text("judge_told_resists"),
        form=prompts.text("judge_form_structured" if structured else "judge_form_tagged"),
    )


def question(ask: Ask, target: Target, *, blind: bool, round: int = 0) -> Request:
    """What the judge is asked about one reply."""
    values = {"prompt": clean(ask.prompt), "reply": clean(ask.reply)}
    if not blind:
        values["latent"] = clean(ask.latent.label) or "(unknown)"
    user = prompts.fill(prompts.text("judge_user_blind" if blind else "judge_user"), **values)
    return Request(
        kind="grade", target=target, system=system(structured=target.structured, blind=blind), turns=(Turn("user", user),),
        schema=SCHEMA, round=round,
    )  # fmt: skip


def repair(request: Request, answer: Answer, problem: str) -> Request:
    """The same question, the unusable answer, and what is wrong with it."""
    said = clean(answer.text).strip()[:LONGEST_QUOTED].rstrip() or "(nothing)"
    user = prompts.fill(prompts.text("repair"), problem=problem)
    return Request(
        kind=REPAIRS[request.kind], target=request.target, system=request.system, turns=(*request.turns, Turn("assistant", said), Turn("user", user)),
        schema=request.schema, round=request.round,
    )  # fmt: skip


def read(answer: Answer, reply: str) -> Reading:
    """The attempts of an answer, or what is wrong with it."""
    if answer.stop == "refusal":
        return Reading(missing="refused")
    try:
        attempts = placed(parsed(answer.text), clean(reply))
    except Malformed as error:
        if answer.stop == "length":
            return Reading(missing="truncated", problem="it was cut off at the length limit; be brief and shorten every quotation")
        return Reading(missing="malformed", problem=str(error))
    if not attempts:
        return Reading(missing="no attempt")
    lost = [attempt.text for attempt in attempts if not attempt.located]
    if lost:
        quoted = "; ".join(json.dumps(text[:60], ensure_ascii=False) for text in lost[:3])
        return Reading(attempts, problem=f"these passages do not stand in the reply: {quoted}; copy them exactly")
    return Reading(attempts)


def better(first: Reading, second: Reading) -> Reading:
    """Of an answer and its repair, the one to go by."""
    if second.problem is None:
        return first if second.missing == "refused" and first.attempts else second
    if first.attempts and second.attempts:
        return second if _located(second) >= _located(first) else first
    return first if first.attempts else second


def _located(reading: Reading) -> float:
    return sum(attempt.located for attempt in reading.attempts) / len(reading.attempts)


def parsed(text: str) -> list[tuple[str, float]]:
    """(quotation, score) pairs in the judge's order; empty only if it says so."""
    value = json_object(text)
    items = value.get("attempts")
    none = value.get("no_attempt", False)
    if not isinstance(items, list):
        raise Malformed("`attempts` must be a list")
    if not isinstance(none, bool):
        raise Malformed("`no_attempt` must be true or false")
    if none and items:
        raise Malformed("`no_attempt` is true although attempts are listed")
    if not items and not none:
        raise Malformed("`attempts` is empty and `no_attempt` is not true")
    return [_pair(item, i) for i, item in enumerate(items, 1)]


def _pair(item: object, i: int) -> tuple[str, float]:
    if not isinstance(item, dict):
        raise Malformed(f"attempt {i} must be an object with attempt_text and score")
    text, score = item.get("attempt_text"), item.get("score")
    if not isinstance(text, str) or not text.strip():
        raise Malformed(f"attempt_text of attempt {i} must be a passage of the reply")
    return clean(text), number(score, f"score of attempt {i}")


def number(value: object, name: str) -> float:
    """A JSON number from 0 to 100; neither true nor "85" is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed(f"{name} must be a number, not {'text' if isinstance(value, str) else 'something else'}")
    if not 0 <= value <= 100 or (isinstance(value, float) and not math.isfinite(value)):
        raise Malformed(f"{name} must lie between 0 and 100")
    return float(value)


def json_object(text: str) -> dict[str, Any]:
    """The answer's JSON: between the last pair of tags, else from the first brace to the last."""
    tagged = TAGGED.findall(text)
    body = tagged[-1] if tagged else text[text.find("{") : text.rfind("}") + 1]
    try:
        value = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Malformed("it holds no valid JSON object" + ("" if tagged else " between <json> and </json>")) from None
    if not isinstance(value, dict):
        raise Malformed("its JSON must be an object")
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def placed(pairs: list[tuple[str, float]], reply: str) -> tuple[Attempt, ...]:
    """Each quotation found in the reply, after the one before it."""
    attempts: list[Attempt] = []
    last_start, last_end = -1, 0
    for i, (text, score) in enumerate(pairs, 1):
        span = locate(text, reply, last_end) or locate(text, reply, last_start + 1)
        if span is None:
            if last_start >= 0 and locate(text, reply) is not None:
                raise Malformed(f"attempt {i} stands before or at attempt {i - 1} in the reply; list every passage once, in order")
            attempts.append(Attempt(score, text))
            continue
        last_start, last_end = span.start, span.end
        attempts.append(Attempt(score, text, span.start, span.end))
    return tuple(attempts)
