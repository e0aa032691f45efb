"""How concrete latents' labels are, 0 (abstract) to 100 (a subject one could write about), asked fifty at a time.

A label is rated once per judge, whatever list it was in. One that could not be rated has no rating, which is not 0.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace

from esr import prompts
from esr.judge.desk import Unanswered
from esr.judge.grading import Malformed, json_object, number
from esr.judge.provider import ProviderJudge
from esr.judge.request import Kind, Request, Schema, Target, Turn, clean

PER_REQUEST = 50
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


def rate(judge: ProviderJudge, labels: Sequence[str]) -> dict[str, float | None]:
    """A rating per distinct label; None: a placeholder, or missing."""
    asked = sorted({_line(label) for label in labels if not PLACEHOLDER.fullmatch(label)})
    known = stored(judge)
    unknown = [label for label in asked if label not in known]
    found = judge.run(_rate(judge, unknown)) if unknown else {}
    return {label: known.get(_line(label), found.get(_line(label))) for label in labels}


async def _rate(judge: ProviderJudge, labels: Sequence[str]) -> dict[str, float]:
    parts = await asyncio.gather(*(_part(judge, part) for part in in_parts(labels)))
    return {label: rating for part in parts for label, rating in part.items()}


def in_parts(labels: Sequence[str]) -> list[list[str]]:
    return [list(labels[i : i + PER_REQUEST]) for i in range(0, len(labels), PER_REQUEST)]


async def _part(judge: ProviderJudge, labels: list[str]) -> dict[str, float]:
    try:
        ratings, _ = await judge.value(question(labels, judge.target), lambda text: complete(text, labels))
    except Unanswered:
        return {}
    return ratings or {}


def question(labels: Sequence[str], target: Target) -> Request:
    form = prompts.text("concreteness_form_structured" if target.structured else "concreteness_form_tagged")
    user = "\n".join(f"{i}. {label}" for i, label in enumerate(labels, 1))
    return Request(
        kind="concreteness", target=_roomy(target), system=prompts.fill(prompts.text("concreteness"), form=form),
        turns=(Turn("user", user),), schema=SCHEMA,
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


def stored(judge: ProviderJudge) -> dict[str, float]:
    """Ratings this judge has already given, in any request."""
    known: dict[str, float] = {}
    target = _roomy(judge.target)
    kinds: tuple[Kind, ...] = ("concreteness", "concreteness-repair")
    for kind in kinds:
        for turns, answer in judge.desk.answers.of_kind(kind, target):
            try:
                ratings = complete(answer.text, [label for _, label in LINE.findall(turns[0].text)])
            except Malformed:
                continue
            known = ratings | known
    return known


def _roomy(target: Target) -> Target:
    return replace(target, max_tokens=max(target.max_tokens, MAX_TOKENS))


def _line(label: str) -> str:
    return " ".join(clean(label).split())
