"""How concrete latents' labels are, 0 (abstract) to 100 (a subject one could write about), asked fifty at a time.

A label is rated once per judge, whatever list it was in. One that could not be rated has no rating, which is not 0.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from esr import prompts
from esr.judge.instructed.form import Malformed, json_object, number
from esr.judge.providers.call import Call, Message, Schema, Target, clean

PER_CALL = 50
MAX_TOKENS = 10_000
PLACEHOLDER = re.compile(r"feature_\S*|\s*")
LINE = re.compile(r"^(\d+)\. (.*)$", re.MULTILINE)
SCHEMA: Schema = {
    "type": "object",
    "properties": {
        "ratings": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"number": {"type": "integer"}, "justification": {"type": "string"}, "rating": {"type": "number"}},
                "required": ["number", "justification", "rating"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["ratings"],
    "additionalProperties": False,
}


def rateable(label: str) -> bool:
    """A placeholder is not asked about."""
    return not PLACEHOLDER.fullmatch(label)


def in_parts(labels: Sequence[str]) -> list[list[str]]:
    return [list(labels[i : i + PER_CALL]) for i in range(0, len(labels), PER_CALL)]


def call_about(labels: Sequence[str], target: Target) -> Call:
    form = prompts.text("concreteness_form_structured" if target.structured else "concreteness_form_tagged")
    user = "\n".join(f"{i}. {label}" for i, label in enumerate(labels, 1))
    return Call(
        kind="concreteness", target=roomy(target), system=prompts.fill(prompts.text("concreteness"), form=form),
        messages=(Message("user", user),), schema=SCHEMA,
    )  # fmt: skip


def complete(text: str, labels: Sequence[str]) -> dict[str, float]:
    """Every label rated once, or Malformed."""
    items = json_object(text).get("ratings")
    if not isinstance(items, list):
        raise Malformed("`ratings` must be a list")
    found: dict[str, float] = {}
    for item in items:
        n = item.get("number") if isinstance(item, dict) else None
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= len(labels):
            raise Malformed(f"every rating needs a number from 1 to {len(labels)}")
        if labels[n - 1] in found:
            raise Malformed(f"number {n} is rated twice")
        found[labels[n - 1]] = number(item.get("rating"), f"the rating of number {n}")
    if len(found) != len(labels):
        raise Malformed(f"{len(labels) - len(found)} numbers have no rating")
    return found


def ratings_in(asked: str, said: str) -> dict[str, float]:
    """Of a stored call and its answer; none if the answer is not whole."""
    try:
        return complete(said, [label for _, label in LINE.findall(asked)])
    except Malformed:
        return {}


def roomy(target: Target) -> Target:
    return replace(target, max_tokens=max(target.max_tokens, MAX_TOKENS))


def line(label: str) -> str:
    return " ".join(clean(label).split())
