"""What judging would take, before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from esr.judge import Passage
from esr.judge.cost import CHARACTERS_PER_TOKEN, price
from esr.judge.instructed import concreteness, naming
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
    if not spec.told:
        return CostEstimate(calls, 0, 0, 0.0, 0.0)
    fixed = (len(system(structured=spec.structured, blind=params.judging.blind)) + prompt_characters) / CHARACTERS_PER_TOKEN
    asked = round(calls * (1 + repairs))
    input_tokens = round(asked * (fixed + reply_tokens + 40))
    output_tokens = round(asked * (80 + 60 * attempts))  # a few sentences of feedback, and the shortened quotations
    cost = price(spec, input_tokens, output_tokens, batch=params.judging.mode == "batch")
    hours = asked / spec.per_minute / 60 if spec.per_minute else None
    return CostEstimate(asked, input_tokens, output_tokens, cost, hours)


SAID, GUESSED, RATED = 30, 25, 25
"""Tokens that a judge writes for a label, for a list of numbers, and for one rating."""


def estimate_naming(params: Params, judge: str, shown: Sequence[Sequence[Passage]], tested: int) -> CostEstimate:
    """For a label a list of passages, a test of each on `tested` others, and a rating of each."""
    spec = params.judge(judge)
    each = [naming.characters(passages, structured=spec.structured) for passages in shown]
    long = sum(len(p.text) for passages in shown for p in passages) / max(sum(map(len, shown)), 1)
    guess = naming.fixed("detection", structured=spec.structured) + tested * (long + 8)
    calls = 2 * len(shown) + -(-len(shown) // concreteness.PER_CALL)
    input_tokens = round((sum(each) + len(shown) * (guess + 40)) / CHARACTERS_PER_TOKEN)
    output_tokens = len(shown) * (SAID + GUESSED + RATED)
    cost = price(spec, input_tokens, output_tokens, batch=params.judging.mode == "batch")
    return CostEstimate(calls, input_tokens, output_tokens, cost, calls / spec.per_minute / 60 if spec.per_minute else None)
