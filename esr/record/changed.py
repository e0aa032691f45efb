"""Which parameters of a run are not those of params.yaml as it was committed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from esr.errors import EsrError
from esr.params import Params
from esr.params.load import parse
from esr.record.manifest import content, git


@dataclass(frozen=True, slots=True)
class Changed:
    name: str
    """Path of the key: `protocol.temperature`."""
    default: object
    now: object


def changed(params: Params, model: str) -> list[Changed] | None:
    """In the order of the file. None: there is nothing to compare with, outside a checkout or where the committed file has no such model."""
    text = git("show", "HEAD:params.yaml")
    if text is None:
        return None
    try:
        before = content(parse(yaml.safe_load(text), model, params.scale))
    except (EsrError, yaml.YAMLError):
        return None
    old, new = dict(flat(before)), dict(flat(content(params)))
    return [
        Changed(name.removeprefix("experiments."), old.get(name), new.get(name))
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]


def flat(tree: Any, name: str = "") -> Iterator[tuple[str, object]]:
    if not isinstance(tree, dict):
        yield name, tree
        return
    for key, value in tree.items():
        yield from flat(value, f"{name}.{key}" if name else str(key))


def markdown(found: list[Changed] | None) -> str:
    """A table of them, or the sentence that there is none."""
    if found is None:
        return "Parameters cannot be held against committed ones here."
    if not found:
        return "Every parameter is that of params.yaml as it was committed."
    rows = [f"| `{one.name}` | {_said(one.default)} | {_said(one.now)} |" for one in found]
    return "\n".join(["| parameter | committed | here |", "|---|---|---|", *rows])


WIDE = 34
"""Characters of a value in a line of the table; a page cuts what is wider."""


def _said(value: object) -> str:
    if value is None:
        return "–"
    text = json.dumps(value, ensure_ascii=False, default=str).replace("|", "\\|").replace("`", "'")[:200]
    return "<br>".join(f"`{text[i : i + WIDE]}`" for i in range(0, len(text), WIDE))
