"""How far two passages are about a question, by a judge that is not told which of them comes first in the reply."""

from esr import prompts
from esr.judge import JudgeQuestion
from esr.judge.instructed.fence import fence
from esr.judge.instructed.form import json_object, number
from esr.judge.providers.call import Call, Message, Schema, Target, clean
from esr.judge.thirds import Thirds

NAMES = ("passage_a", "passage_b")
SCHEMA: Schema = {
    "type": "object",
    "properties": {name: {"type": "number"} for name in NAMES},
    "required": list(NAMES),
    "additionalProperties": False,
}
PROMPTS = ("relevance", "relevance_user", "relevance_form_structured", "relevance_form_tagged")


def swapped(question: JudgeQuestion) -> bool:
    """Whether the last third stands first, by the trial's id: half do."""
    return int(question.trial_id[-1:] or "0", 36) % 2 == 1


def call_about(question: JudgeQuestion, parts: Thirds, target: Target) -> Call:
    form = prompts.text("relevance_form_structured" if target.structured else "relevance_form_tagged")
    a, b = (parts.last, parts.first) if swapped(question) else (parts.first, parts.last)
    values = {"prompt": clean(question.prompt), "a": clean(a), "b": clean(b)}
    user = prompts.fill(prompts.text("relevance_user"), **values, fence=fence(*values.values()))
    return Call(
        kind="relevance", target=target, system=prompts.fill(prompts.text("relevance"), form=form), messages=(Message("user", user),),
        schema=SCHEMA,
    )  # fmt: skip


def read(text: str, question: JudgeQuestion) -> tuple[float, float]:
    """Of the first third and the last, 0 to 100; Malformed where the answer has not the form."""
    value = json_object(text)
    a, b = (number(value.get(name), name) for name in NAMES)
    return (b, a) if swapped(question) else (a, b)
