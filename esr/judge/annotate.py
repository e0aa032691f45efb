"""Where a corrected reply goes off topic, where it notices and where it is back: quoted by a judge, located by us.

No model counts characters: it copies the first words of each region, and a quotation that is not in the reply is no region.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from esr import prompts
from esr.judge import Ask
from esr.judge.desk import Unanswered
from esr.judge.grading import Malformed, json_object
from esr.judge.locate import locate
from esr.judge.provider import ProviderJudge
from esr.judge.request import Request, Schema, Target, Turn, clean

NAMES = ("off_topic", "correction", "on_topic")
SCHEMA: Schema = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in NAMES},
    "required": list(NAMES),
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """Offsets into the reply: off topic [off, correction), correcting [correction, on), back on topic [on, end of the reply)."""

    trial_id: str
    off: int | None = None
    correction: int | None = None
    on: int | None = None
    missing: str | None = None
    """Why there are none; None: all three stand."""


def regions(judge: ProviderJudge, asks: Sequence[Ask]) -> list[Regions]:
    """The regions of each reply, in order."""
    return judge.run(_all(judge, asks))


async def _all(judge: ProviderJudge, asks: Sequence[Ask]) -> list[Regions]:
    return list(await asyncio.gather(*(_one(judge, ask) for ask in asks)))


async def _one(judge: ProviderJudge, ask: Ask) -> Regions:
    try:
        found, missing = await judge.value(question(ask, judge.target), lambda text: placed(text, ask.reply))
    except Unanswered as error:
        return Regions(trial_id=ask.trial_id, missing=error.reason)
    if found is None:
        return Regions(trial_id=ask.trial_id, missing=missing)
    off, correction, on = found
    return Regions(trial_id=ask.trial_id, off=off, correction=correction, on=on)


def question(ask: Ask, target: Target) -> Request:
    form = prompts.text("regions_form_structured" if target.structured else "regions_form_tagged")
    label = clean(ask.latent.label) or "(unknown)"
    user = prompts.fill(prompts.text("regions_user"), prompt=clean(ask.prompt), reply=clean(ask.reply), latent=label)
    return Request(
        kind="regions", target=target, system=prompts.fill(prompts.text("regions"), form=form), turns=(Turn("user", user),),
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
