"""What differs between two runs, by what their manifests say: parameters first, then what was run, by whom it was graded, and where."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from esr.record.changed import flat

Manifest = Mapping[str, Any]
CUT = 80
"""Characters of a value that are told."""


@dataclass(frozen=True, slots=True)
class Differs:
    what: str
    """`protocol.target`, `library vllm`, `prompt judge`."""
    a: str
    b: str


def between(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Differs]:
    """Of two rows of `runs`, their manifests as JSON read; empty: they were made alike."""
    one, two = dict(_said(a)), dict(_said(b))
    opened = all((run["manifest"] or {}).get("engine") for run in (a, b))  # a run whose replies were all stored opens none
    names = [name for name in {**one, **two} if opened or not name.startswith("engine ")]
    differing = [name for name in names if one.get(name) != two.get(name)]
    return [Differs(_place(name, a, b), _word(one.get(name)), _word(two.get(name))) for name in differing]


def _place(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """A parameter of a model or judge that both runs have by its place in params.yaml; of two, `models.*.hub`."""
    for block, key in (("models", "model"), ("judges", "judge")):
        if a[key] == b[key]:
            name = name.replace(f"{block}.*.", f"{block}.{a[key]}.", 1)
    return name


def _said(run: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Everything that may differ, by its name, in the order in which it is told."""
    manifest: Manifest = run["manifest"] or {}
    for name in ("experiment", "model", "scale", "judge"):
        yield name, run[name]
    yield from _params(run, manifest)
    model, sae = manifest.get("model") or {}, manifest.get("sae") or {}
    yield "weights", model.get("weights")
    yield from _each("meaning", _read(model.get("meaning")))
    yield from _each("layer", model.get("layers"))
    yield "SAE", sae.get("name")
    yield from _each("SAE file", sae.get("sha256"))
    yield from _each("engine", manifest.get("engine"))
    for name, judge in (manifest.get("judges") or {}).items():
        yield f"instructions of judge {name}", judge.get("prompt")
        yield f"model of judge {name}", judge.get("model")
    yield from _each("prompt", manifest.get("prompts"))
    yield "code", _revision(manifest.get("revision") or {})
    yield from _each("library", manifest.get("libraries"))
    yield from _each("host", {k: v for k, v in (manifest.get("host") or {}).items() if k != "process"})


def _params(run: Mapping[str, Any], manifest: Manifest) -> Iterator[tuple[str, object]]:
    """Those that the run could depend on: of models, SAEs and judges its own."""
    tree = dict((manifest.get("params") or {}).get("content") or {})
    blocks = {name: tree.pop(name, None) or {} for name in ("models", "saes", "judges", "experiments")}
    model = blocks["models"].get(run["model"]) or {}
    tree |= {
        "models.*": model,
        "saes.*": blocks["saes"].get(model.get("sae")) or {},
        "judges.*": blocks["judges"].get(run["judge"]) or {},
    }
    yield from flat({key: value for key, value in tree.items() if key != "scale"})
    for experiment, settings in blocks["experiments"].items():
        yield from flat(settings, experiment)


def _each(kind: str, found: Mapping[str, Any] | None) -> Iterator[tuple[str, object]]:
    for name, value in flat(dict(found or {})):
        yield f"{kind} {name}", value


def _read(text: str | None) -> dict[str, Any]:
    return dict(json.loads(text)) if text else {}


def _revision(found: Mapping[str, Any]) -> str | None:
    """`0ec4b92, with changes that were not committed`"""
    commit = found.get("commit")
    return f"{commit[:7]}{', with changes that were not committed' if found.get('dirty') else ''}" if commit else None


def _word(value: object) -> str:
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= CUT else f"{text[: CUT - 1]}…"
