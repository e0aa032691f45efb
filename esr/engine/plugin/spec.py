"""What travels: the sites an engine is started with, and the ids that a request names. Pure Python, no torch.

    additional_config = {"sae_steering": {"saes": {"l50": {"loader": "goodfire", …, "layer": 50, "d_in": 8192, "d_sae": 65536}},
                                          "layers": [50]}}
    extra_args = {"sae": '{"ops": [{"op": "add", "sae": "l50", "i": 12345, "v": 8.0}], "scope": "generated"}'}

Client, frontend and workers read the same two forms with the same checks; vectors never travel with a request.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from esr.engine import Capture
from esr.engine.admission import Admission
from esr.engine.directions import Directions, Shape, read_directions
from esr.engine.entries import Entry, Run, Windows, check_apart, check_touching, resolved, told, windows
from esr.engine.intervention import LARGEST, Condition, Intervention, plain
from esr.engine.plugin.text import FIVE, dumps, loads, op_text, read_op, read_runs, run_texts
from esr.engine.scope import span
from esr.errors import EngineError, ParamsError, SpecError, one_of
from esr.params import SaeParams
from esr.types import Op, Scope, content_id

KEY = "sae_steering"
"""In `additional_config`; its absence leaves vLLM as it is."""
FIELD = "sae"
"""In `extra_args`, or `vllm_xargs` over HTTP."""
FORMAT = 2
"""Raised when the meaning of a spec or of a site changes; part of every cache key."""
SALT = "esr:"
"""How the `cache_salt` of a steered request begins."""
MANY = 4
"""Plain ops that travel to the worker by columns."""


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
    max_directions: int = 1024
    """Rows kept free for named directions, over all sets and blocks."""
    directions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Sets loaded at the start, by name: `path`, and `layer` for a file of one tensor."""
    http_directions: int = 0
    """Bytes of a set that may be sent to the server while it runs; 0: none may."""
    known: dict[str, Shape] = field(default_factory=dict, compare=False)
    """Sets loaded so far, as this process knows them."""

    @classmethod
    def parse(cls, block: object) -> "Sites":
        if not isinstance(block, Mapping):
            raise EngineError(f"additional_config[{KEY!r}] is {block!r:.200}, not a mapping with `saes` and `layers`")
        known = (
            "format", "saes", "layers", "max_ops", "capture", "capture_bytes", "allow_layer_mismatch", "allow_untested_vllm",
            "max_directions", "directions", "http_directions",
        )  # fmt: skip
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
        if not layers or not all(isinstance(layer, int) and layer >= 0 for layer in layers):
            raise EngineError(
                f"additional_config[{KEY!r}] needs at least one SAE, or one block to hook; it has {list(saes)} and {list(layers)}"
            )
        rest = {key: block[key] for key in known[3:] if key in block}
        sites = cls(saes=saes, sha256=sha256, layers=layers, **rest)
        for found in sites.declared():
            sites.know(found.shape)
        return sites

    def declared(self) -> Iterator[Directions]:
        """The sets that are loaded at the start, read anew."""
        for name, fields in self.directions.items():
            if not isinstance(fields, Mapping) or not {"path"} <= fields.keys() <= {"path", "layer"}:
                raise EngineError(
                    f"directions {name!r} in additional_config[{KEY!r}] are {fields!r:.200}, not a `path` and perhaps a `layer`"
                )
            yield read_directions(name, Path(fields["path"]), fields.get("layer"))

    def know(self, shape: Shape) -> bool:
        """Admit what asks for this set from now on; whether it is new here."""
        if shape.name in self.saes:
            raise EngineError(f"directions {shape.name!r} have the name of an SAE; give them another")
        if (has := self.known.get(shape.name)) is not None:
            if has.sha256 != shape.sha256:
                raise EngineError(
                    f"directions {shape.name!r} are loaded with other content ({has.sha256[:16]}); give these another name"
                )
            return False
        for layer in shape.layers:
            if layer not in self.layers:
                raise EngineError(
                    f"directions {shape.name!r} are for block {layer}, which is not hooked; it has {', '.join(map(str, self.layers))}"
                )
        held = sum(sum(other.layers.values()) for other in self.known.values())
        if held + sum(shape.layers.values()) > self.max_directions:
            raise EngineError(
                f"directions {shape.name!r} are {sum(shape.layers.values())} rows and {held} of {self.max_directions} are taken (max_directions)"
            )
        self.known[shape.name] = shape
        return True

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
            "allow_untested_vllm": self.allow_untested_vllm, "max_directions": self.max_directions, "http_directions": self.http_directions,
            "directions": {name: dict(fields) for name, fields in self.directions.items()},
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

    def as_json(self, n_prompt: int | None = None) -> str:
        """n_prompt: admitted for a prompt of so many tokens; a worker steers no request of another length."""
        out = [] if n_prompt is None else [f'"n":{n_prompt}']
        if self.id:
            out.append(f'"id":{dumps(self.id)}')
        if self.ops:
            many = n_prompt is not None and len(self.ops) >= MANY and plain(self.ops)
            out.append(f'"ops":[{",".join(run_texts(self.ops) if many else [op_text(op) for op in self.ops])}]')
        if self.scope != "all":
            out.append(f'"scope":{dumps(self.scope)}')
        if (c := self.capture) is not None:
            asked = {"layer": c.layer, "mode": c.mode} | {
                key: value
                for key, value, default in (
                    ("sae", c.sae, ""), ("latents", list(c.latents), []), ("k", c.k, 0), ("positions", c.positions, "all"),
                    ("stage", c.stage, "before"),
                )
                if value != default
            }  # fmt: skip
            out.append(f'"capture":{dumps(asked)}')
        return f"{{{','.join(out)}}}"

    def salt(self, sites: Sites, user: str | None, entries: Sequence[Entry]) -> str | None:
        """Of the prefix cache: what is done alike at equal positions shares it, everything else is apart; a plain request keeps
        its own. Positions are absolute: in a conversation's next turn `generated` means others than in this one."""
        if not entries:
            return user
        done = user, sites.digest, told(entries), sorted(self.hashes(sites).items())
        return SALT + hashlib.sha256(repr(done).encode()).hexdigest()[:32]

    def hashes(self, sites: Sites) -> dict[str, str]:
        """Of the sets of directions that it names."""
        if not sites.known:
            return {}
        named = {op.sae for op in self.ops} | {op.when.sae for op in self.ops if isinstance(op, Intervention) and op.when}
        return {name: sites.known[name].sha256 for name in named if name in sites.known}

    def entries(self, n_prompt: int) -> tuple[Entry, ...]:
        return resolved(self.ops, self.scope, n_prompt)

    def windows(self, n_prompt: int) -> Windows:
        return windows(self.entries(n_prompt))

    def captured(self, n_prompt: int) -> tuple[int, int]:
        return span(self.capture.positions, n_prompt).bounds if self.capture else (0, 0)

    def check(self, sites: Sites, n_prompt: int, rows: int) -> tuple[Entry, ...]:
        """What can only be told with the prompt at hand: it has `n_prompt` tokens and at most `rows` positions are computed."""
        check_touching(self.ops, self.scope, n_prompt, rows)
        if not plain(self.ops):  # which have one scope, and were compared without the prompt
            check_apart(self.ops, self.scope, n_prompt)
        entries = self.entries(n_prompt)
        if len(entries) > sites.max_ops:
            for layer in sites.layers:
                if (n := sum(entry.layer == layer for entry in entries)) > sites.max_ops:
                    raise SpecError(
                        f"{n} interventions, pieces of schedules counted, after block {layer}; this engine takes {sites.max_ops} (max_ops)"
                    )
        return entries


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


@dataclass(frozen=True, slots=True)
class Admitted:
    """What `as_json` wrote, as a worker gets it: admission has checked it."""

    bare: Spec
    """Without its ops."""
    listed: Sequence[dict[str, Any]]
    """The ops in JSON."""
    n_prompt: int | None
    """Of the prompt that it was admitted for; None: it never passed admission."""

    @classmethod
    def read(cls, text: str) -> "Admitted":
        block = loads(text)
        capture = block.get("capture")
        if capture is not None:
            capture = Capture(**{**capture, "latents": tuple(capture.get("latents", ()))})
        return cls(Spec((), block.get("scope", "all"), capture, block.get("id", "")), block.get("ops", ()), block.get("n"))

    @property
    def runs(self) -> list[Run]:
        """Of plain ops; none where one is not plain."""
        return read_runs(self.listed)

    @property
    def spec(self) -> Spec:
        ops = [
            Op(cast("Any", run.kind), latent, value, run.layer, run.sae)
            for run in self.runs
            for latent, value in zip(run.latents, run.values, strict=True)
        ]
        return Spec(tuple(ops or map(read_op, self.listed)), self.bare.scope, self.bare.capture, self.bare.id)


def _check(spec: Spec, sites: Sites, layers: int, width: int) -> None:
    sae = cast("Any", sites.sae)  # an Admission asks an SAE's d_sae, d_in and layer, which its block has too
    try:
        Admission(layers, width, sae, sites.allow_layer_mismatch, sites.known).check_steering(spec.ops, spec.scope, spec.capture)
    except ParamsError as error:
        raise SpecError(str(error)) from None
    for layer in {op.layer for op in spec.ops} | ({spec.capture.layer} if spec.capture else set()):
        if layer not in sites.layers:
            raise SpecError(f"block {layer} is not hooked in this engine; it has {', '.join(map(str, sites.layers))}")
        if len(spec.ops) > sites.max_ops and (n := sum(op.layer == layer for op in spec.ops)) > sites.max_ops:
            raise SpecError(f"{n} interventions after block {layer}; this engine takes {sites.max_ops} (max_ops)")
    if spec.capture and not sites.capture:
        raise SpecError("this engine was started without capture; set capture: true")
    if spec.capture and not spec.id:
        raise SpecError("a capture needs an `id` to take it by")
    if len(spec.id) > 128:
        raise SpecError("the `id` is longer than 128 characters")


def _op(given: Any, sites: Sites) -> Op:
    try:
        kind, latent, number, layer, sae = FIVE(given)
        if (
            type(given) is dict
            and len(given) == 5
            and type(kind) is type(sae) is str
            and type(latent) is type(layer) is int
            and type(number) is float
        ):
            return Op(kind, latent, number, layer, sae)  # type: ignore[arg-type]  # Admission knows the kinds
    except (TypeError, LookupError):
        pass  # most ops are of this form; the others, and what is none, are taken apart below
    if not (isinstance(given, dict) and OP_NEEDS <= given.keys() <= OP_KNOWS):
        _fields(given, "an intervention", OP_KNOWS, OP_NEEDS)
    block: dict[str, Any] = given
    kind, sae, latent, number = block["op"], block["sae"], block["i"], block["v"]
    if not type(kind) is type(sae) is str:
        raise SpecError(f"`op` and `sae` are {kind!r:.100} and {sae!r:.100}, not text")
    layer = block.get("layer")
    if layer is None:
        layer = _layer(sae, sites)
    if not type(latent) is type(layer) is int:
        raise SpecError(f"`i` and `layer` are {latent!r:.100} and {layer!r:.100}, not whole numbers")
    five = cast("Any", kind), latent, _number(number, "v"), layer, sae
    if not (block.keys() & OP_MORE):
        return Op(*five)
    schedule = _fields(block.get("schedule", {"points": []}), "a schedule", {"shape", "points"}, {"points"})
    points = schedule["points"]
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 and type(p[0]) is int for p in points):
        raise SpecError(f"`points` is {points!r:.200}, not a list of [generated token, factor]")
    return Intervention(
        *five, _typed(block, "scope", str, ""), tuple((token, _number(factor, "points")) for token, factor in points),
        cast("Any", _typed(schedule, "shape", str, "linear")), _when(block["when"]) if "when" in block else None,
    )  # fmt: skip


def _layer(name: str, sites: Sites) -> int:
    """The block of an SAE, or of a set of directions that has one only."""
    if name in sites.known:
        layers = list(sites.known[name].layers)
        if len(layers) > 1:
            raise SpecError(f"directions {name!r} are for blocks {', '.join(map(str, layers))}; name a `layer`")
        return layers[0]
    return sites.sae(name).layer


def _when(given: object) -> Condition:
    block = _fields(given, "a condition", {"sae", "i", "above"}, {"sae", "i", "above"})
    return Condition(_typed(block, "sae", str, ""), _typed(block, "i", int, 0), _number(block["above"], "above"))


def _number(number: object, what: str) -> float:
    if type(number) is float:
        return number
    if type(number) is not int:
        raise SpecError(f"`{what}` is {number!r:.200}, not a number")
    return float(number) if abs(number) <= LARGEST else math.inf  # not every int is a float


def _capture(value: object, sites: Sites) -> Capture:
    block = _fields(value, "a capture", {"sae", "layer", "mode", "latents", "k", "positions", "stage"}, {"mode"})
    mode = _typed(block, "mode", str, "")
    _fields(value, f"a capture of mode {mode!r}", set(block), {"layer"} if mode == "residual" else {"sae"})
    sae = _typed(block, "sae", str, "")
    latents = block.get("latents", [])
    if not isinstance(latents, list) or not all(type(latent) is int for latent in latents):
        raise SpecError(f"`latents` is {latents!r:.200}, not a list of numbers")
    return Capture(
        layer=_typed(block, "layer", int, sites.sae(sae).layer if sae else 0),
        sae=sae,
        mode=cast("Any", mode),
        latents=tuple(latents),
        k=_typed(block, "k", int, 0),
        positions=_typed(block, "positions", str, "all"),
        stage=cast("Literal['before', 'after']", _typed(block, "stage", str, "before")),
    )


OP_MORE = {"scope", "schedule", "when"}
OP_KNOWS, OP_NEEDS = {"op", "sae", "i", "v", "layer"} | OP_MORE, {"op", "sae", "i", "v"}


def _fields(value: object, what: str, known: Set[str], needed: Set[str] = frozenset()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SpecError(f"{what} is {value!r:.200}, not a JSON object")
    for key in value:
        if key not in known:
            raise SpecError(one_of("field", str(key), sorted(known), what))
    if missing := needed - value.keys():
        raise SpecError(f"{what} lacks {', '.join(sorted(missing))}")
    return value


def _typed(block: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    value = block.get(key, default)
    if type(value) is not kind:
        raise SpecError(f"`{key}` is {value!r:.200}, not {'text' if kind is str else 'a whole number'}")
    return value
