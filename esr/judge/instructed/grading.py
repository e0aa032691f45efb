"""Reply → question, answer → attempts. Pure: no provider, no file, no clock.

An answer is believed only if it has the whole form: attempts with a text and a number from 0 to 100, in the order of the reply, or
the explicit word that there is none. A quotation that is not in the reply leaves its attempt without a place, and outcomes do not
count it. One repair is asked for; what still has no form is missing, never zero.
"""

import json
from dataclasses import dataclass

from esr import prompts
from esr.judge import JudgeQuestion
from esr.judge.instructed.fence import fence
from esr.judge.instructed.form import Malformed, json_object, number
from esr.judge.locate import locate
from esr.judge.providers.call import Answer, Call, Kind, Message, Schema, Target, clean
from esr.types import Attempt, content_id

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
REPAIRS: dict[Kind, Kind] = {
    "grade": "grade-repair", "concreteness": "concreteness-repair", "regions": "regions-repair", "label": "label-repair",
    "detection": "detection-repair", "relevance": "relevance-repair",
}  # fmt: skip
SAME = 0.8
"""Share of the longer of two quotations beyond which they are one passage, quoted twice."""
LONGEST_QUOTED = 12_000
"""Characters of an unusable answer that go back with the repair."""


@dataclass(frozen=True, slots=True)
class Verdict:
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


def call_about(question: JudgeQuestion, target: Target, *, blind: bool, round: int = 0) -> Call:
    """What the judge is asked about one reply."""
    values = {"prompt": clean(question.prompt), "reply": clean(question.reply)}
    if not blind:
        values["latent"] = clean(question.latent.label) or "(unknown)"
    user = prompts.fill(prompts.text("judge_user_blind" if blind else "judge_user"), **values, fence=fence(*values.values()))
    return Call(
        kind="grade", target=target, system=system(structured=target.structured, blind=blind), messages=(Message("user", user),),
        schema=SCHEMA, round=round,
    )  # fmt: skip


def shown(question: JudgeQuestion, *, blind: bool) -> str:
    """Hash of what the judge is shown besides its instructions and the reply; the tags around them follow from all three."""
    return content_id("shown", clean(question.prompt), None if blind else clean(question.latent.label), length=16)


def repair(call: Call, answer: Answer, problem: str) -> Call:
    """The same question, the unusable answer, and what is wrong with it."""
    said = clean(answer.text).strip()[:LONGEST_QUOTED].rstrip() or "(nothing)"
    user = prompts.fill(prompts.text("repair"), problem=problem)
    return Call(
        kind=REPAIRS[call.kind], target=call.target, system=call.system, messages=(*call.messages, Message("assistant", said), Message("user", user)),
        schema=call.schema, round=call.round,
    )  # fmt: skip


def read(answer: Answer, reply: str) -> Verdict:
    """The attempts of an answer, or what is wrong with it."""
    if answer.stop == "refusal":
        return Verdict(missing="refused")
    try:
        attempts = placed(parsed(answer.text, cut=answer.stop == "length"), clean(reply))
    except Malformed as error:
        if answer.stop == "length":
            return Verdict(missing="truncated", problem="it was cut off at the length limit; be brief and shorten every quotation")
        return Verdict(missing="malformed", problem=str(error))
    if not attempts:
        return Verdict(missing="no attempt")
    lost = [attempt.text for attempt in attempts if not attempt.located]
    if lost:
        quoted = "; ".join(json.dumps(text[:60], ensure_ascii=False) for text in lost[:3])
        return Verdict(attempts, problem=f"these passages do not stand in the reply: {quoted}; copy them exactly")
    return Verdict(attempts)


def better(first: Verdict, second: Verdict) -> Verdict:
    """Of an answer and its repair, the one to go by."""
    if second.problem is None:
        return first if second.missing == "refused" and first.attempts else second
    if first.attempts and second.attempts:
        return second if _located(second) >= _located(first) else first
    return first if first.attempts else second


def _located(verdict: Verdict) -> float:
    return sum(attempt.located for attempt in verdict.attempts) / len(verdict.attempts)


def parsed(text: str, *, cut: bool = False) -> list[tuple[str, float]]:
    """(quotation, score) pairs in the judge's order; empty only if it says so."""
    value = json_object(text, cut=cut)
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
        if min(span.end, last_end) - span.start > SAME * max(span.end - span.start, last_end - last_start):
            raise Malformed(f"attempt {i} is attempt {i - 1} once more; list every passage once, in order")
        last_start, last_end = span.start, span.end
        attempts.append(Attempt(score, text, span.start, span.end))
    return tuple(attempts)
