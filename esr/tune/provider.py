"""A provider's model as the writer of examples, through the judges' durable answers: what was written once is not paid for again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from esr import prompts
from esr.judge.cost import CHARACTERS_PER_TOKEN, price
from esr.judge.instructed.form import Malformed, json_object
from esr.judge.open import open_instructed, target
from esr.judge.providers.call import Call, Message, Schema
from esr.params import Params
from esr.study.plan import stream
from esr.tune.rows import Example
from esr.tune.settings import Tuning
from esr.tune.split import Wish

if TYPE_CHECKING:
    from esr.study.study import Study

PARTS = {True: ("off_topic", "acknowledgement", "answer"), False: ("answer",)}
"""Fields of an example and of an answer."""

WRITTEN = 260
"""Tokens of an example, by the lengths of the authors' rows."""


class Provider:
    def __init__(self, study: "Study", tuning: Tuning) -> None:
        self.params, self.tuning = study.params, tuning
        self.judge = open_instructed(study.params, tuning.provider, store=study.store.root, budget=study.budget)

    def write(self, wishes: Sequence[Wish]) -> list[Example | None]:
        said = self.judge.texts([call(wish, self.params, self.tuning) for wish in wishes])
        return [None if text is None else read(wish, text) for wish, text in zip(wishes, said, strict=True)]


def call(wish: Wish, params: Params, tuning: Tuning) -> Call:
    """What is asked. Wishes that are alike differ by their number, which is a round of the same question."""
    asked = target(params.judge(tuning.provider))
    kind = "example" if wish.subject else "answer"
    values = {"form": prompts.text(f"tuning/{kind}_form_{'structured' if asked.structured else 'tagged'}")}
    if wish.subject:
        values |= {"subject": wish.subject, "manner": manner(wish, params, tuning)}
    return Call(
        kind="example",
        target=asked,
        system=prompts.fill(prompts.text(f"tuning/{kind}"), **values),
        messages=(Message("user", wish.question),),
        schema=schema(bool(wish.subject)),
        round=wish.number,
    )


def manner(wish: Wish, params: Params, tuning: Tuning) -> str:
    """How the acknowledgement is to be worded."""
    if tuning.acknowledgements == "one":
        return f"Write exactly: {prompts.text('tuning/acknowledgement_one')}"
    some = stream(params, "manner", wish.question, wish.subject).sample(prompts.lines("tuning/acknowledgements"), 2)
    return f"Word it as you like, in the manner of “{some[0]}” or “{some[1]}”, but in words of your own."


def schema(masked: bool) -> Schema:
    parts = PARTS[masked]
    fields: dict[str, Any] = {part: {"type": "string"} for part in parts}
    return {"type": "object", "properties": fields, "required": list(parts), "additionalProperties": False}


def read(wish: Wish, text: str) -> Example | None:
    """None where a part is missing."""
    try:
        found = json_object(text)
    except Malformed:
        return None
    parts = {part: found.get(part) for part in PARTS[bool(wish.subject)]}
    said = {part: value.strip() for part, value in parts.items() if isinstance(value, str) and value.strip()}
    if len(said) < len(parts):
        return None
    if not wish.subject:
        return Example(question=wish.question, answer=said["answer"])
    return Example(
        question=wish.question, subject=wish.subject, passage=said["off_topic"], acknowledgement=said["acknowledgement"], answer=said["answer"]
    )  # fmt: skip


def cost(params: Params, tuning: Tuning) -> float | None:
    """US dollars that the examples take at most, at the rule of thumb for tokens; 0 where no provider writes; None: the price is unknown."""
    if tuning.writer != "provider":
        return 0.0
    read_by = {kind: len(prompts.text(f"tuning/{kind}")) / CHARACTERS_PER_TOKEN + 60 for kind in ("example", "answer")}
    asked = tuning.masked * read_by["example"] + tuning.normal * read_by["answer"]
    written = (tuning.masked + tuning.normal) * WRITTEN
    return price(params.judge(tuning.provider), round(asked), round(written), batch=params.judging.mode == "batch")
