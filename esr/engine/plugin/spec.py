"""What travels: the sites an engine is started with, and the ids that a request names. Pure Python, no torch.

    additional_config = {"sae_steering": {"saes": {"l50": {"loader": "goodfire", …, "layer": 50, "d_in": 8192, "d_sae": 65536}},
                                          "layers": [50]}}
    extra_args = {"sae": '{"ops": [{"op": "add", "sae": "l50", "i": 12345, "v": 8.0}], "scope": "generated"}'}

Client, frontend and workers read the same two forms with the same checks; vectors never travel.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

from esr.engine import Capture, Request
from esr.engine.admission import LARGEST, Admission, span
from esr.errors import EngineError, ParamsError, SpecError, one_of
from esr.params import SaeParams
from esr.types import Op, Sampling, Scope, content_id

KEY = "sae_steering"
"""In `additional_config`; its absence leaves vLLM as it is."""
FIELD = "sae"
"""In `extra_args`, or `vllm_xargs` over HTTP."""
FORMAT = 1
"""Raised when the meaning of a spec or of a site changes; part of every cache key."""
END = 2**31 - 1
"""Beyond every position."""


@dataclass(frozen=True)
class Sites:
    """Where an engine can be steered and read, fixed when it starts."""

    saes: Mapping[str, SaeParams]
    sha256: Mapping[str, str]
    """By SAE name; a worker whose tensors differ refuses to start. May lack some."""
    layers: tuple[int, ...]
    """Hooked blocks, ascending."""
    max_ops: int = 64
    """Interventions of one request after one block."""
    capture: bool = True
    capture_bytes: int = 1 << 31
    """Of captured rows held by a worker until they are taken."""
    allow_layer_mismatch: bool = False
    allow_untested_vllm: bool = False

    @classmethod
    def parse(cls, block: object) -> "Sites":
        if not isinstance(block, Mapping):
            raise EngineError(f"additional_config[{KEY!r}] is {block!r:.200}, not a mapping with `saes` and `layers`")
        known = ("format", "saes", "layers", "max_ops", "capture", "capture_bytes", "allow_layer_mismatch", "allow_untested_vllm")
        for key in block:
            if key not in known:
                raise EngineError(one_of("key", str(key), list(known), f"additional_config[{KEY!r}]"))
        if block.get("format", FORMAT) != FORMAT:
            raise EngineError(f"sites in format {block['format']!r}; this plugin reads format {FORMAT}")
        saes, sha256 = {}, {}
        for name, fields in dict(block.get("saes") or {}).items():
            fields = dict(fields)
            if sha := fields.pop("sha256", None):
                sha256[name] = sha
            try:
                saes[name] = SaeParams(name=name, **fields)
            except (TypeError, ValueError) as error:
                raise EngineError(f"SAE {name!r} in additional_config[{KEY!r}]: {' '.join(str(error).split())[:200]}") from None
        layers = tuple(sorted(set(block.get("layers") or [sae.layer for sae in saes.values()])))
        if not saes or not layers or not all(isinstance(layer, int) and layer >= 0 for layer in layers):
            raise EngineError(
                f"additional_config[{KEY!r}] needs at least one SAE and one block; it has {list(saes)} and {list(layers)}"
            )
        rest = {key: block[key] for key in known[3:] if key in block}
        return cls(saes=saes, sha256=sha256, layers=layers, **rest)

    def as_config(self) -> dict[str, Any]:
        """The block for `additional_config`; vLLM hashes it into its compile cache key."""
        saes = {
            name: sae.model_dump(mode="json", exclude={"name", "labels"}, exclude_none=True)
            | ({"sha256": self.sha256[name]} if name in self.sha256 else {})
            for name, sae in self.saes.items()
        }
        return {
            "format": FORMAT, "saes": saes, "layers": list(self.layers), "max_ops": self.max_ops, "capture": self.capture,
            "capture_bytes": self.capture_bytes, "allow_layer_mismatch": self.allow_layer_mismatch,
            "allow_untested_vllm": self.allow_untested_vllm,
        }  # fmt: skip

    @cached_property
    def digest(self) -> str:
        return content_id(self.as_config())

    def sae(self, name: str) -> SaeParams:
        if name not in self.saes:
            raise SpecError(one_of("SAE", name, list(self.saes), "this engine"))
        return self.saes[name]


@dataclass(frozen=True, slots=True)
class Spec:
    """What one request asks for."""

    ops: tuple[Op, ...] = ()
    scope: Scope = "all"
    capture: Capture | None = None
    id: str = ""
    """By which `applied` and the capture are taken afterwards; chosen by the client, new for each request."""

    def as_json(self) -> str:
        out: dict[str, Any] = {}
        if self.id:
            out["id"] = self.id
        if self.ops:
            out["ops"] = [{"op": op.kind, "sae": op.sae, "i": op.latent, "v": op.value, "layer": op.layer} for op in self.ops]
        if self.scope != "all":
            out["scope"] = self.scope
        if (c := self.capture) is not None:
            out["capture"] = {"sae": c.sae, "layer": c.layer, "mode": c.mode} | {
                key: value
                for key, value, default in (
                    ("latents", list(c.latents), []), ("k", c.k, 0), ("positions", c.positions, "all"), ("stage", c.stage, "before"),
                )
                if value != default
            }  # fmt: skip
        return json.dumps(out, separators=(",", ":"))

    def salt(self, sites: Sites, user: str | None) -> str | None:
        """Of the prefix cache: equal interventions share it, everything else is apart; a plain request keeps its own."""
        if not self.ops:
            return user
        ops = sorted((op.kind, op.sae, op.latent, op.value, op.layer) for op in self.ops)
        return "esr:" + hashlib.sha256(repr((user, sites.digest, ops, self.scope)).encode()).hexdigest()[:32]

    def steered(self, n_prompt: int) -> tuple[int, int]:
        """[lo, hi) in absolute positions."""
        return _bounds(self.scope, n_prompt)

    def captured(self, n_prompt: int) -> tuple[int, int]:
        return _bounds(self.capture.positions, n_prompt) if self.capture else (0, 0)


def _bounds(scope: Scope, n_prompt: int) -> tuple[int, int]:
    found = span(scope, n_prompt)
    return min(found.lo, END), min(END if found.hi is None else found.hi, END)


def parse(text: object, sites: Sites, *, layers: int, width: int) -> Spec:
    """A request's spec, checked against the sites; every refusal is one sentence."""
    if isinstance(text, str):
        try:
            text = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"the steering spec is not JSON: {error}") from None
    block = _fields(text, "the steering spec", {"ops", "scope", "capture", "id"})
    ops = block.get("ops", [])
    if not isinstance(ops, list):
        raise SpecError(f"`ops` is {ops!r:.200}, not a list")
    spec = Spec(
        ops=tuple(_op(op, sites) for op in ops),
        scope=_typed(block, "scope", str, "all"),
        capture=_capture(block["capture"], sites) if block.get("capture") is not None else None,
        id=_typed(block, "id", str, ""),
    )
    _check(spec, sites, layers, width)
    return spec


def read(text: str) -> Spec:
    """What `as_json` wrote, as a worker gets it: admission has checked it."""
    block = json.loads(text)
    ops = tuple(Op(op["op"], op["i"], op["v"], op["layer"], op["sae"]) for op in block.get("ops", ()))
    capture = block.get("capture")
    if capture is not None:
        capture = Capture(**{**capture, "latents": tuple(capture.get("latents", ()))})
    return Spec(ops, block.get("scope", "all"), capture, block.get("id", ""))


def _check(spec: Spec, sites: Sites, layers: int, width: int) -> None:
    sampling = Sampling(temperature=0, top_p=1, repetition_penalty=1, max_tokens=1)
    request = Request(token_ids=(0,), sampling=sampling, ops=spec.ops, scope=spec.scope, capture=spec.capture)
    sae = cast("Any", sites.sae)  # an Admission asks an SAE's d_sae, d_in and layer, which its block has too
    try:
        Admission(layers, width, sae, sites.allow_layer_mismatch).check(request)
    except ParamsError as error:
        raise SpecError(str(error)) from None
    for layer in {op.layer for op in spec.ops} | ({spec.capture.layer} if spec.capture else set()):
        if layer not in sites.layers:
            raise SpecError(f"block {layer} is not hooked in this engine; it has {', '.join(map(str, sites.layers))}")
        if (n := sum(op.layer == layer for op in spec.ops)) > sites.max_ops:
            raise SpecError(f"{n} interventions after block {layer}; this engine takes {sites.max_ops} (max_ops)")
    if spec.capture and not sites.capture:
        raise SpecError("this engine was started without capture; set capture: true")
    if spec.capture and not spec.id:
        raise SpecError("a capture needs an `id` to take it by")
    if len(spec.id) > 128:
        raise SpecError("the `id` is longer than 128 characters")


def _op(given: object, sites: Sites) -> Op:
    if not (isinstance(given, dict) and OP_NEEDS <= given.keys() <= OP_KNOWS):
        _fields(given, "an intervention", OP_KNOWS, OP_NEEDS)
    block = cast("dict[str, Any]", given)
    kind, sae, latent, number = block["op"], block["sae"], block["i"], block["v"]
    if not type(kind) is type(sae) is str:
        raise SpecError(f"`op` and `sae` are {kind!r:.100} and {sae!r:.100}, not text")
    layer = block.get("layer", sites.sae(sae).layer)
    if not type(latent) is type(layer) is int:
        raise SpecError(f"`i` and `layer` are {latent!r:.100} and {layer!r:.100}, not whole numbers")
    if type(number) is not float and type(number) is not int:
        raise SpecError(f"`v` is {number!r:.200}, not a number")
    value = number if type(number) is float else float(number) if abs(number) <= LARGEST else math.inf  # not every int is a float
    return Op(cast("Literal['add', 'clamp']", kind), latent, value, layer, sae)


def _capture(value: object, sites: Sites) -> Capture:
    block = _fields(value, "a capture", {"sae", "layer", "mode", "latents", "k", "positions", "stage"}, {"sae", "mode"})
    sae = _typed(block, "sae", str, "")
    latents = block.get("latents", [])
    if not isinstance(latents, list) or not all(type(latent) is int for latent in latents):
        raise SpecError(f"`latents` is {latents!r:.200}, not a list of numbers")
    return Capture(
        layer=_typed(block, "layer", int, sites.sae(sae).layer),
        sae=sae,
        mode=cast("Literal['latents', 'topk', 'max', 'all']", _typed(block, "mode", str, "")),
        latents=tuple(latents),
        k=_typed(block, "k", int, 0),
        positions=_typed(block, "positions", str, "all"),
        stage=cast("Literal['before', 'after']", _typed(block, "stage", str, "before")),
    )


OP_KNOWS, OP_NEEDS = {"op", "sae", "i", "v", "layer"}, {"op", "sae", "i", "v"}


def _fields(value: object, what: str, known: set[str], needed: set[str] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]  # an empty frozenset is never changed
    if not isinstance(value, dict):
        raise SpecError(f"{what} is {value!r:.200}, not a JSON object")
    for key in value:
        if key not in known:
            raise SpecError(one_of("field", str(key), sorted(known), what))
    if missing := sorted(needed - set(value)):
        raise SpecError(f"{what} lacks {', '.join(missing)}")
    return value


def _typed(block: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    value = block.get(key, default)
    if type(value) is not kind:
        raise SpecError(f"`{key}` is {value!r:.200}, not {'text' if kind is str else 'a whole number'}")
    return value
