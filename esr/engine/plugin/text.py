"""JSON text of a spec, read and written: of 26 clamps in a quarter of the time that `json` takes, and with its results."""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any

from esr.engine.entries import Run
from esr.engine.intervention import LARGEST, Condition, Intervention
from esr.types import Op

FIVE = itemgetter("op", "i", "v", "layer", "sae")
"""Of an op in JSON, in the order of an Op's fields."""

ALIKE = attrgetter("layer", "kind", "sae")
"""What the ops of a run have in common."""

dumps = json.JSONEncoder(separators=(",", ":")).encode


def loads(text: str) -> Any:
    """What msgspec takes, it reads as `json` does; what it does not take, `json` judges in its own words."""
    import msgspec  # vLLM has it; who only writes a spec need not

    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return json.loads(text)


@lru_cache(maxsize=1024)
def _start(kind: str, sae: str) -> str:
    return dumps({"op": kind, "sae": sae})[:-1]


def op_text(op: Op) -> str:
    if type(op) is Op and type(op.latent) is type(op.layer) is int and type(op.value) is float and abs(op.value) <= LARGEST:
        return f'{_start(op.kind, op.sae)},"i":{op.latent},"v":{op.value!r},"layer":{op.layer}}}'  # what follows, in short
    out: dict[str, Any] = {"op": op.kind, "sae": op.sae, "i": op.latent, "v": op.value, "layer": op.layer}
    if isinstance(op, Intervention):
        if op.scope:
            out["scope"] = op.scope
        if op.schedule:
            out["schedule"] = {"shape": op.shape, "points": [list(point) for point in op.schedule]}
        if op.when:
            out["when"] = {"sae": op.when.sae, "i": op.when.latent, "above": op.when.above}
    return dumps(out)


def read_op(op: dict[str, Any]) -> Op:
    """Of what `op_text` wrote."""
    kind, latent, value, layer, sae = FIVE(op)
    if len(op) == 5:
        return Op(kind, latent, value, layer, sae)
    schedule, when = op.get("schedule") or {"points": [], "shape": "linear"}, op.get("when")
    points = tuple((token, factor) for token, factor in schedule["points"])
    return Intervention(
        kind, latent, value, layer, sae, op.get("scope", ""), points, schedule["shape"],
        Condition(when["sae"], when["i"], when["above"]) if when else None,
    )  # fmt: skip


def run_texts(ops: Sequence[Op]) -> Iterator[str]:
    """Of plain ops, those that stand together and are alike in one object, whose latents and values are lists; one alone as `op_text` does."""
    for (layer, kind, sae), run in groupby(ops, ALIKE):
        some = list(run)
        if len(some) == 1:
            yield op_text(some[0])
            continue
        latents, values = dumps([op.latent for op in some]), dumps([op.value for op in some])
        yield f'{_start(kind, sae)},"i":{latents},"v":{values},"layer":{layer}}}'


def read_runs(ops: Sequence[dict[str, Any]]) -> list[Run]:
    """Of plain ops, as `run_texts` or `op_text` wrote them; none where one of the ops is not plain."""
    if any(len(op) > 5 for op in ops):
        return []
    return [
        Run(layer, kind, sae, latent, value) if type(latent) is list else Run(layer, kind, sae, (latent,), (value,))
        for kind, latent, value, layer, sae in map(FIVE, ops)
    ]
