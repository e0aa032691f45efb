"""What a latent stands for, said from passages in which it fires, and tested on others: the two questions and what is made of the answers.

Passages are shown as JSON, which no text can close.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Literal

from esr import prompts
from esr.judge import Passage
from esr.judge.instructed.form import Malformed, json_object
from esr.judge.providers.call import Call, Message, Schema, Target, clean

LONGEST = 120
"""Characters of a label."""
NAMES = (
    "label",
    "detection",
    "label_form_structured",
    "label_form_tagged",
    "detection_form_structured",
    "detection_form_tagged",
    "repair",
)
LABEL: Schema = {
    "type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"], "additionalProperties": False,
}  # fmt: skip
ACTIVE: Schema = {
    "type": "object", "properties": {"active": {"type": "array", "items": {"type": "integer"}}}, "required": ["active"],
    "additionalProperties": False,
}  # fmt: skip


def call_for(shown: Sequence[Passage], target: Target) -> Call:
    return _call("label", _rows(shown), target, LABEL)


def call_about(label: str, passages: Sequence[str], target: Target) -> Call:
    return _call("detection", f"{_line(label)}\n{_numbered(map(_line, passages))}", target, ACTIVE)


def fixed(kind: Literal["label", "detection"], *, structured: bool) -> int:
    """Characters of the instructions."""
    return len(_system(kind, structured=structured))


def characters(shown: Sequence[Passage], *, structured: bool) -> int:
    """Of the question for a label."""
    return fixed("label", structured=structured) + len(_rows(shown))


def _rows(shown: Sequence[Passage]) -> str:
    rows = [{"before": clean(p.before), "fires_on": clean(p.fires_on), "after": clean(p.after)} for p in shown]
    return _numbered(json.dumps(row, ensure_ascii=False) for row in rows)


def _numbered(rows: Iterable[str]) -> str:
    return "\n".join(f"{i}. {row}" for i, row in enumerate(rows, 1))


def _system(kind: Literal["label", "detection"], *, structured: bool) -> str:
    return prompts.fill(prompts.text(kind), form=prompts.text(f"{kind}_form_{'structured' if structured else 'tagged'}"))


def _call(kind: Literal["label", "detection"], user: str, target: Target, schema: Schema) -> Call:
    return Call(
        kind=kind, target=target, system=_system(kind, structured=target.structured), messages=(Message("user", user),), schema=schema
    )  # fmt: skip


def _line(text: str) -> str:
    return json.dumps(" ".join(clean(text).split()), ensure_ascii=False)


def label_in(text: str) -> str:
    """Empty: the passages have nothing in common."""
    found = json_object(text).get("label")
    if not isinstance(found, str):
        raise Malformed("label must be a text")
    said = " ".join(clean(found).split())
    if len(said) > LONGEST:
        raise Malformed(f"the label has {len(said)} characters and may have {LONGEST}")
    return said


def active_in(text: str, n: int) -> frozenset[int]:
    """Places in the list, 0 the first."""
    found = json_object(text).get("active")
    if not isinstance(found, list) or not all(isinstance(i, int) and not isinstance(i, bool) and 1 <= i <= n for i in found):
        raise Malformed(f"active must be a list of numbers from 1 to {n}")
    return frozenset(i - 1 for i in found)
