"""What tasks return, as bytes and back: frozen dataclasses, named tuples and arrays of this library, and what JSON holds.

A value says of which class it is, and only classes of `esr` are made again. The same value gives the same bytes, so these also
stand for it in keys.
"""

import importlib
import io
import json
from base64 import b64decode, b64encode
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from prefect.serializers import Serializer
from pydantic import Field

MARK = "!"


class Values(Serializer):  # of any type: Prefect registers kinds of serializer, and a parametrised one is none
    type: str = Field(default="esr", frozen=True)

    def dumps(self, obj: Any) -> bytes:
        return json.dumps(plain(obj), ensure_ascii=False, separators=(",", ":")).encode()

    def loads(self, blob: bytes) -> Any:
        return made(json.loads(blob))


def plain(value: Any) -> Any:
    """As JSON: `{"!": class, "v": …}` for what JSON does not know."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray):
        file = io.BytesIO()
        np.save(file, value, allow_pickle=False)
        return {MARK: "array", "v": b64encode(file.getvalue()).decode()}
    if isinstance(value, np.generic):
        return plain(value.item())
    if is_dataclass(value):
        return {MARK: _name(kind), "v": {field.name: plain(getattr(value, field.name)) for field in fields(value)}}
    if isinstance(value, tuple):
        return {MARK: _name(kind) if hasattr(kind, "_fields") else "tuple", "v": [plain(item) for item in value]}
    if kind is list:
        return [plain(item) for item in value]
    if kind is dict and all(isinstance(key, str) and key != MARK for key in value):
        return {key: plain(item) for key, item in value.items()}
    raise TypeError(f"a task cannot return a {kind.__module__}.{kind.__qualname__}; a frozen dataclass of esr would do")


def _name(kind: type) -> str:
    if not kind.__module__.startswith("esr.") or "." in kind.__qualname__:
        raise TypeError(f"a task cannot return a {kind.__module__}.{kind.__qualname__}; a frozen dataclass of esr would do")
    return f"{kind.__module__}:{kind.__qualname__}"


def made(value: Any) -> Any:
    if isinstance(value, list):
        return [made(item) for item in value]
    if not isinstance(value, dict):
        return value
    if MARK not in value:
        return {key: made(item) for key, item in value.items()}
    name, inner = value[MARK], value["v"]
    if name == "array":
        return np.load(io.BytesIO(b64decode(inner)), allow_pickle=False)
    if name == "tuple":
        return tuple(made(item) for item in inner)
    module, _, kind = name.partition(":")
    if not module.startswith("esr."):
        raise ValueError(f"a stored value names the class {name!r}, which is none of esr")
    found = getattr(importlib.import_module(module), kind)
    return (
        found(**{key: made(item) for key, item in inner.items()}) if isinstance(inner, dict) else found(*(made(i) for i in inner))
    )
