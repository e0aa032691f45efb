"""What a worker says of one request, held against what was due."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from esr.engine import Reading
from esr.engine.plugin.spec import Spec
from esr.errors import EngineError


@dataclass(frozen=True, slots=True)
class Taken:
    """What a worker says of one request."""

    executed: int
    expected: int
    stays: int
    """On the device; more than one where it was preempted."""
    error: str | None
    capture: dict[str, Any] | None


def applied(spec: Spec, taken: Taken | None, ids: Sequence[int], n_prompt: int, cached: int) -> int:
    """Positions of the sequence `ids` steered, over the request's blocks. Those read from the prefix cache were steered when made;
    the device must have steered the others itself. After a preemption more may come from the cache than vLLM tells."""
    if taken is None or not spec.ops:
        return 0
    where = spec.windows(n_prompt)
    since = where.since(ids)
    due, fresh = (where.touched(first, len(ids), since) for first in (0, cached))
    if taken.error and spec.capture is None:
        raise EngineError(f"a request failed: {taken.error}")
    if taken.executed != taken.expected:
        raise EngineError(
            f"an intervention was applied {taken.executed} times where {taken.expected} were due; the reply is discarded"
        )
    if taken.executed < fresh and taken.stays == 1:
        raise EngineError(
            f"an intervention due {fresh} times outside the prefix cache was applied {taken.executed} times; the reply is discarded"
        )
    return due


def reading(spec: Spec, taken: Taken | None) -> Reading | None:
    if spec.capture is None or taken is None:
        return None
    if taken.error or taken.capture is None:
        raise EngineError(f"a capture failed: {taken.error or 'nothing came back'}")
    found = taken.capture
    indices = found["indices"]
    positions = np.frombuffer(found["positions"], np.int32)
    return Reading(
        positions=positions, values=np.frombuffer(found["values"], np.float32).reshape(found["shape"]),
        indices=None if indices is None else np.frombuffer(indices, np.int32).reshape(found["shape"]), expected=found["expected"],
    )  # fmt: skip
