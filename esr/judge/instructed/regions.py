"""Where a corrected reply goes off topic, where it notices and where it is back: quoted by a judge, located by us.

No model counts characters: it copies the first words of each region, and a quotation that is not in the reply is no region.
"""

from esr import prompts
from esr.judge import JudgeQuestion
from esr.judge.instructed.fence import fence
from esr.judge.instructed.form import Malformed, json_object
from esr.judge.locate import locate
from esr.judge.providers.call import Call, Message, Schema, Target, clean

NAMES = ("off_topic", "correction", "on_topic")
SCHEMA: Schema = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in NAMES},
    "required": list(NAMES),
    "additionalProperties": False,
}


def call_about(question: JudgeQuestion, target: Target) -> Call:
    form = prompts.text("regions_form_structured" if target.structured else "regions_form_tagged")
    label = clean(question.latent.label) or "(unknown)"
    values = {"prompt": clean(question.prompt), "reply": clean(question.reply), "latent": label}
    user = prompts.fill(prompts.text("regions_user"), **values, fence=fence(*values.values()))
    return Call(
        kind="regions", target=target, system=prompts.fill(prompts.text("regions"), form=form), messages=(Message("user", user),),
        schema=SCHEMA,
    )  # fmt: skip


def placed(text: str, reply: str) -> tuple[int, int, int]:
    """Where the three quotations begin, in the order of the reply, or Malformed."""
    value, reply = json_object(text), clean(reply)
    starts: list[int] = []
    after = 0
    for name in NAMES:
        quote = value.get(name)
        if not isinstance(quote, str) or not quote.strip():
            raise Malformed(f"{name} must quote the first words of a passage")
        span = locate(clean(quote), reply, after)
        if span is None:
            where = "after the passage before it" if locate(clean(quote), reply) else "in the reply"
            raise Malformed(f"the words of {name} do not stand {where}; copy them exactly")
        starts.append(span.start)
        after = span.start + 1
    return starts[0], starts[1], starts[2]
