"""What every engine checks of a request before anything is computed; each refusal is one sentence."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from esr.engine import Capture, Request
from esr.engine.directions import Shape
from esr.engine.entries import Entry, check_apart
from esr.engine.intervention import KINDS, Intervention, check_value, plain, usual
from esr.engine.scope import span
from esr.errors import SpecError, one_of
from esr.types import Op, Scope

MAX_NUMBERS = 1 << 28
"""Numbers that a capture may return: 1 GiB of 32 bits each."""


def fitting(ids: Sequence[int], max_model_len: int, vocabulary: int | None = None) -> tuple[int, ...]:
    """A prompt's tokens, which the model has and which leave room for a reply."""
    if vocabulary is not None and (bad := [i for i in ids if not 0 <= i < vocabulary]):
        raise SpecError(f"token id {bad[0]} is not among the model's {vocabulary}")
    if len(ids) >= max_model_len:
        raise SpecError(f"the prompt has {len(ids)} tokens and the model takes fewer than {max_model_len}")
    return tuple(ids)


def check_marker(entries: Sequence[Entry], vocabulary: int) -> None:
    """What is waited for may come."""
    for entry in entries:
        if entry.after >= vocabulary:
            raise SpecError(f"a scope waits for token {entry.after}, which is not among the model's {vocabulary}")


def check_size(capture: Capture, wide: int, n_prompt: int, rows: int) -> None:
    """What is captured in a sequence of up to `rows` positions has to be worth sending; everything of a row is `wide` numbers."""
    each = {"topk": 2 * capture.k, "latents": len(capture.latents), "max": 0}.get(capture.mode, wide)
    size = len(span(capture.positions, n_prompt).within(0, rows)) * each
    if size > MAX_NUMBERS:
        raise SpecError(
            f"a capture of mode {capture.mode!r} would return {size} numbers; at most {MAX_NUMBERS}, so name positions or fewer latents"
        )


class Rows(Protocol):
    """What there is to check of an SAE; Sae and SaeParams both are one."""

    @property
    def layer(self) -> int: ...
    @property
    def d_in(self) -> int: ...
    @property
    def d_sae(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Admission:
    """The checks of one model."""

    layers: int
    width: int
    sae: Callable[[str], Rows]
    """By name in params.yaml; raises when there is none."""
    allow_layer_mismatch: bool
    directions: Mapping[str, Shape] = field(default_factory=dict)
    """Sets loaded so far, by name."""

    def check(self, request: Request, *, reading: bool = False) -> None:
        if reading and request.capture is None:
            raise SpecError("a reading needs a capture that says what to read")
        if bool(request.prompt) == bool(request.token_ids):
            raise SpecError("a request has either a prompt or token ids; this one has " + ("both" if request.prompt else "neither"))
        if request.token_ids and request.prefill:
            raise SpecError("a prefill goes with a prompt, not with token ids; append its tokens to them")
        self._sampling(request)
        self.check_steering(request.ops, request.scope, request.capture)

    def check_steering(self, ops: Sequence[Op], scope: Scope, capture: Capture | None) -> None:
        """What can be told without the prompt."""
        span(scope, 1)
        sizes: dict[tuple[str, str, int], int] = {}
        for op in ops:
            at = op.kind, op.sae, op.layer
            if not (type(op) is Op and 0 <= op.latent < sizes.get(at, 0) and usual(op.value)):  # else as an earlier one
                sizes[at] = self._op(op)
        if plain(ops):
            check_apart(ops, scope, 1)
        else:
            for own in {getattr(op, "scope", "") for op in ops}:  # differing scopes need the prompt
                check_apart([op for op in ops if getattr(op, "scope", "") == own], scope, 1)
        if capture is not None:
            self._capture(capture)

    def check_size(self, capture: Capture, n_prompt: int, rows: int) -> None:
        check_size(capture, self.width if capture.mode == "residual" else self.sae(capture.sae).d_sae, n_prompt, rows)

    def _sampling(self, request: Request) -> None:
        s = request.sampling
        for name, value, good in (
            ("temperature", s.temperature, s.temperature >= 0),
            ("top_p", s.top_p, 0 < s.top_p <= 1),
            ("repetition_penalty", s.repetition_penalty, s.repetition_penalty > 0),
            ("max_tokens", s.max_tokens, s.max_tokens >= 1),
        ):
            if not (good and math.isfinite(value)):
                raise SpecError(f"{name} {value!r} is out of range")

    def _op(self, op: Op) -> int:
        """How many latents or directions such an op has to choose from."""
        if op.kind not in KINDS:
            raise SpecError(one_of("intervention", str(op.kind), list(KINDS), "the engine"))
        check_value(op)
        if op.kind == "clamp" and op.sae in self.directions:
            raise SpecError(
                f"directions {op.sae!r} have no activation to clamp; clamp_projection sets the stream's length along one"
            )
        size = self._row(op.latent, op.sae, op.layer)
        if isinstance(op, Intervention):
            if op.scope:
                span(op.scope, 1)
            if op.when is not None:
                self._row(op.when.latent, op.when.sae, op.layer)
        return size

    def _row(self, latent: int, name: str, layer: int) -> int:
        """A latent of an SAE, or a direction of a set, after a block that has it; how many there are."""
        shape = self.directions.get(name)
        if shape is None:
            self._latent(latent, name)
            self._layer(layer, name)
            return self.sae(name).d_sae
        if layer not in shape.layers:
            raise SpecError(f"directions {name!r} are for blocks {', '.join(map(str, shape.layers))}, not {layer}")
        if not 0 <= latent < shape.layers[layer]:
            raise SpecError(f"no direction {latent} in {name!r} after block {layer}, which has {shape.layers[layer]}")
        return shape.layers[layer]

    def _capture(self, capture: Capture) -> None:
        if span(capture.positions, 1).after is not None:
            raise SpecError(f"a capture's positions do not wait for a marker; {capture.positions!r} does")
        if capture.stage not in ("before", "after"):
            raise SpecError(f"no capture stage {capture.stage!r}; there are before and after")
        if capture.mode == "residual":
            if not 0 <= capture.layer < self.layers:
                raise SpecError(f"no block {capture.layer}; the model has {self.layers}, from 0")
            return
        self._layer(capture.layer, capture.sae)
        d_sae = self.sae(capture.sae).d_sae
        if capture.mode == "latents":
            if not capture.latents:
                raise SpecError("a capture of mode 'latents' names none")
            if len(set(capture.latents)) < len(capture.latents):
                raise SpecError("a capture of mode 'latents' names one twice")
            for latent in capture.latents:
                self._latent(latent, capture.sae)
        elif capture.mode == "topk" and not 1 <= capture.k <= d_sae:
            raise SpecError(f"a capture of the top {capture.k} latents; SAE {capture.sae!r} has {d_sae}")
        elif capture.mode not in ("topk", "max", "all"):
            raise SpecError(f"no capture mode {capture.mode!r}; there are latents, topk, max, all and residual")

    def _latent(self, latent: int, name: str) -> None:
        sae = self.sae(name)
        if not 0 <= latent < sae.d_sae:
            raise SpecError(f"no latent {latent} in SAE {name!r}, which has {sae.d_sae}")

    def _layer(self, layer: int, name: str) -> None:
        sae = self.sae(name)
        if not 0 <= layer < self.layers:
            raise SpecError(f"no block {layer}; the model has {self.layers}, from 0")
        if sae.d_in != self.width:
            raise SpecError(f"SAE {name!r} reads {sae.d_in} dimensions and the model has {self.width}")
        if layer != sae.layer and not self.allow_layer_mismatch:
            raise SpecError(
                f"SAE {name!r} was trained after block {sae.layer}, not {layer}; set allow_layer_mismatch: true if that is meant"
            )
