"""What judging would take, before anything runs."""

from dataclasses import dataclass

from esr.judge.cost import CHARACTERS_PER_TOKEN, price
from esr.judge.instructed.grading import system
from esr.params import Params


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What judging would take, before anything runs."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    """US dollars; None: the judge's price is unknown."""
    hours: float | None
    """At the configured calls a minute; None: no limit is configured."""


def estimate(
    params: Params,
    judge: str,
    calls: int,
    *,
    reply_tokens: int,
    prompt_characters: int = 60,
    attempts: float = 1.1,
    repairs: float = 0.02,
) -> CostEstimate:
    """For `calls` replies of up to `reply_tokens` tokens. The share of repairs and the attempts per reply are rough on purpose."""
    spec = params.judge(judge)
    if spec.client == "lexical":
        return CostEstimate(calls, 0, 0, 0.0, 0.0)
    fixed = (len(system(structured=spec.structured, blind=params.judging.blind)) + prompt_characters) / CHARACTERS_PER_TOKEN
    asked = round(calls * (1 + repairs))
    input_tokens = round(asked * (fixed + reply_tokens + 40))
    output_tokens = round(asked * (80 + 60 * attempts))  # a few sentences of feedback, and the shortened quotations
    cost = price(spec, input_tokens, output_tokens, batch=params.judging.mode == "batch")
    hours = asked / spec.per_minute / 60 if spec.per_minute else None
    return CostEstimate(asked, input_tokens, output_tokens, cost, hours)
