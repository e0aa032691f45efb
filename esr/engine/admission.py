"""What every engine checks of a request before anything is computed; each refusal is one sentence."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from esr.engine import Capture, Request
from esr.errors import SpecError
from esr.types import Op, Scope

SPAN = re.compile(r"^\[(\d+),\s*(\d*)\)$")
LARGEST = 3.4028234e38
"""The largest number of float32, in which values travel to the device."""
SMALLEST = 1.1754944e-38
"""The smallest number above zero of float32 that every device keeps apart from it."""
MAX_ALL = 1 << 28
"""Numbers that a capture of mode `all` may return: 1 GiB of float32."""


@dataclass(frozen=True, slots=True)
class Span:
    """Absolute positions lo, …, hi − 1; hi None: to the end."""

    lo: int
    hi: int | None

    def within(self, start: int, stop: int) -> range:
        """Its positions among start, …, stop − 1."""
        return range(max(self.lo, start), stop if self.hi is None else min(self.hi, stop))


def span(scope: Scope, n_prompt: int) -> Span:
    """The positions that `scope` means for a request whose prompt has `n_prompt` tokens."""
    if scope == "all":
        return Span(0, None)
    if scope == "prompt":
        return Span(0, n_prompt)
    if scope == "generated":
        return Span(n_prompt, None)
    match = SPAN.match(scope)
    if match is None:
        raise SpecError(f"scope {scope[:200]!r} is none of 'all', 'prompt', 'generated', '[lo,hi)' and '[lo,)'")
    lo, hi = int(match[1]), int(match[2]) if match[2] else None
    if hi is not None and lo >= hi:
        raise SpecError(f"scope {scope!r} holds no position")
    return Span(lo, hi)


def fitting(ids: Sequence[int], max_model_len: int, vocabulary: int | None = None) -> tuple[int, ...]:
    """A prompt's tokens, which the model has and which leave room for a reply."""
    if vocabulary is not None and (bad := [i for i in ids if not 0 <= i < vocabulary]):
        raise SpecError(f"token id {bad[0]} is not among the model's {vocabulary}")
    if len(ids) >= max_model_len:
        raise SpecError(f"the prompt has {len(ids)} tokens and the model takes fewer than {max_model_len}")
    return tuple(ids)


def check_size(capture: Capture, d_sae: int, n_prompt: int, rows: int) -> None:
    """A capture of everything in a sequence of up to `rows` positions has to be worth sending."""
    size = len(span(capture.positions, n_prompt).within(0, rows)) * d_sae
    if capture.mode == "all" and size > MAX_ALL:
        raise SpecError(f"a capture of mode 'all' would return {size} numbers; at most {MAX_ALL}, so name positions or latents")


def check_reach(scope: Scope, n_prompt: int, rows: int) -> None:
    """A span of positions has to hold at least one of a sequence of up to `rows`."""
    if SPAN.match(scope) and not span(scope, n_prompt).within(0, rows):
        raise SpecError(
            f"scope {scope[:200]!r} holds no position of this sequence, whose last one that is computed is {rows - 1} at most"
        )


class Shape(Protocol):
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
    sae: Callable[[str], Shape]
    """By name in params.yaml; raises when there is none."""
    allow_layer_mismatch: bool

    def check(self, request: Request, *, reading: bool = False) -> None:
        if reading and request.capture is None:
            raise SpecError("a reading needs a capture that says what to read")
        if bool(request.prompt) == bool(request.token_ids):
            raise SpecError("a request has either a prompt or token ids; this one has " + ("both" if request.prompt else "neither"))
        if request.token_ids and request.prefill:
            raise SpecError("a prefill goes with a prompt, not with token ids; append its tokens to them")
        self._sampling(request)
        span(request.scope, 1)
        clamped: set[tuple[int, str, int]] = set()
        for op in request.ops:
            self._op(op)
            key = (op.layer, op.sae, op.latent)
            if op.kind == "clamp" and key in clamped:
                raise SpecError(f"latent {op.latent} of {op.sae!r} is clamped twice after block {op.layer}; one value would do")
            if op.kind == "clamp":
                clamped.add(key)
        if request.capture is not None:
            self._capture(request.capture)

    def check_size(self, capture: Capture, n_prompt: int, rows: int) -> None:
        check_size(capture, self.sae(capture.sae).d_sae, n_prompt, rows)

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

    def _op(self, op: Op) -> None:
        if op.kind not in ("add", "clamp"):
            raise SpecError(f"no intervention {op.kind!r}; there are add and clamp")
        if not abs(op.value) <= LARGEST:
            raise SpecError(f"{op.kind} of latent {op.latent} has the value {op.value!r}, not a finite number of 32 bits")
        if 0 < abs(op.value) < SMALLEST:
            raise SpecError(
                f"{op.kind} of latent {op.latent} has the value {op.value!r}, which is nothing in 32 bits; 0 would say so"
            )
        self._latent(op.latent, op.sae)
        self._layer(op.layer, op.sae)

    def _capture(self, capture: Capture) -> None:
        span(capture.positions, 1)
        self._layer(capture.layer, capture.sae)
        d_sae = self.sae(capture.sae).d_sae
        if capture.mode == "latents":
            if not capture.latents:
                raise SpecError("a capture of mode 'latents' names none")
            for latent in capture.latents:
                self._latent(latent, capture.sae)
        elif capture.mode == "topk" and not 1 <= capture.k <= d_sae:
            raise SpecError(f"a capture of the top {capture.k} latents; SAE {capture.sae!r} has {d_sae}")
        elif capture.mode not in ("topk", "max", "all"):
            raise SpecError(f"no capture mode {capture.mode!r}; there are latents, topk, max and all")
        if capture.stage not in ("before", "after"):
            raise SpecError(f"no capture stage {capture.stage!r}; there are before and after")

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
