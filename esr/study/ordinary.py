"""A judge's reference, made: a model's own unsteered replies to each evaluation question, and what they are made of."""

from collections.abc import Callable
from dataclasses import asdict

from esr.engine import Engine, Request
from esr.judge.topical import Reference
from esr.params import Params
from esr.params.weights import identity
from esr.prompts import evaluation
from esr.types import content_id

BATCH = 512
"""Replies asked for at once."""


def reference(engine: Engine, params: Params, model: str, replies: int, say: Callable[[str], object]) -> Reference:
    """From so many replies to each question, sampled as the study samples; no seed is one of the study's."""
    sampling, form = params.sampling(model), params.protocol.prompt_format
    asked = [(question, seed(model, question, number)) for number in range(replies) for question in evaluation()]
    texts: list[tuple[str, str]] = []
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        requests = [Request(prompt=question, prompt_format=form, sampling=sampling, seed=one) for question, one in part]
        outputs = engine.generate(requests)
        texts += [(question, output.text) for (question, _), output in zip(part, outputs, strict=True)]
        say(f"{len(texts):,} of {len(asked):,} replies")
    made = {"model": model, "weights": identity(params, model), "prompt_format": form, "sampling": asdict(sampling)}
    return Reference.of(texts, made)


def seed(model: str, question: str, number: int) -> int:
    """Of a reference's reply: a stream of its own, so that no graded reply is one of the reference's."""
    return int(content_id("reference", model, question, number, length=8), 16) >> 1
