"""Interventions beyond an `Op`: with positions, a schedule and a condition of their own.

Op("add", 7, 8.0, 19, "l19")                                              over the request's scope
Intervention("add", 7, 8.0, 19, "l19", scope="generated[20,)")            from the twentieth generated token
Intervention("add_norm", 0, 0.3, 19, "mood", schedule=((0, 1.0), (64, 0.0)))     fading over 64 generated tokens
Intervention("project_out", 7, 1.0, 19, "l19", when=Condition("l19", 12, above=2.0))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from esr.engine.scope import Span, span
from esr.errors import SpecError
from esr.types import Op, Scope

KINDS: Final = ("add", "clamp", "project_out", "clamp_projection", "add_norm")
"""In the order of their codes on the device; `clamp` needs an encoder, the others work on any direction."""
LARGEST: Final = 1e9
"""The strongest value: beyond it a stream's square leaves float32, and every reply would be one token repeated."""
SMALLEST: Final = 2.0**-126
"""The weakest value but 0: float32, in which values travel, has nothing below it with full precision."""
LATEST: Final = 2**30
"""The last generated token that a schedule may name: with a prompt before it, it is still a number of 32 bits."""
Points = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """Only where a latent of this block's SAE is active above a bound, or the stream's projection on a direction is."""

    sae: str
    """Name of an SAE or of a set of directions."""
    latent: int
    above: float


@dataclass(frozen=True, slots=True)
class Intervention(Op):
    scope: Scope = ""
    """Its positions; empty: the request's."""
    schedule: Points = ()
    """(generated token, factor on the value), ascending; the first factor holds before its token, the last one after."""
    shape: Literal["linear", "step"] = "linear"
    """Between two points: a straight line, or the earlier factor."""
    when: Condition | None = None

    def factor(self, generated: int) -> float:
        """On the value at the generated token of this number; negative numbers are positions of the prompt."""
        points = self.schedule
        if not points or generated <= points[0][0]:
            return points[0][1] if points else 1.0
        for (a, f), (b, g) in pairwise(points):
            if generated < b:
                return f if self.shape == "step" else f + (g - f) * (generated - a) / (b - a)
        return points[-1][1]


def plain(ops: Sequence[Op]) -> bool:
    """Whether there are ops and none has a scope, a schedule or a condition of its own; most requests are so, and soon dealt with."""
    return set(map(type, ops)) == {Op}


def place(op: Op, scope: Scope, n_prompt: int) -> Span:
    """The absolute positions of one op in a request whose own scope is `scope`."""
    own = op.scope if isinstance(op, Intervention) else ""
    return span(own or scope, n_prompt)


def usual(value: float) -> bool:
    """Whether it means on the device what it says."""
    return value == 0 or SMALLEST <= abs(value) <= LARGEST


def check_value(op: Op) -> None:
    """Values and schedules that mean what they say on the device."""
    values = (op.value, *(op.value * factor for _, factor in op.schedule)) if isinstance(op, Intervention) else (op.value,)
    for value in values:
        if usual(value):
            continue
        if not abs(value) <= LARGEST:
            raise SpecError(f"{op.kind} of {op.latent} has the value {value!r}, not a finite number of at most {LARGEST:g}")
        raise SpecError(f"{op.kind} of {op.latent} has the value {value!r}, which is 0 in 32 bits; at least {SMALLEST:g} would do")
    if not isinstance(op, Intervention):
        return
    at = [token for token, _ in op.schedule]
    if at != sorted(set(at)) or any(not 0 <= token <= LATEST for token in at):
        raise SpecError(f"a schedule's tokens are {at!r:.200}; they count generated tokens from 0 to {LATEST} at most, and ascend")
    if op.shape not in ("linear", "step"):
        raise SpecError(f"no schedule shape {op.shape!r}; there are linear and step")
    if op.when is not None and not abs(op.when.above) <= 3.4e38:
        raise SpecError(f"a condition's bound is {op.when.above!r}, not a finite number of 32 bits")
