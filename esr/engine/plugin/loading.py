"""Named directions brought to a running engine: once to its workers, then known to its front end."""

from typing import Any

import numpy as np

from esr.engine.directions import Directions
from esr.engine.plugin.admission import sites_of
from esr.errors import EngineError


async def load_directions(client: Any, name: str, found: Directions) -> str:
    """`client`: vLLM's engine client in this process, whose requests may name the set from now on; its hash."""
    sites, shape = sites_of(client.vllm_config), found.shape
    width = client.vllm_config.model_config.get_hidden_size()
    if shape.width != width:
        raise EngineError(f"directions {name!r} have {shape.width} dimensions and the model has {width}")
    if not sites.know(shape):
        return shape.sha256
    try:
        hashes = await client.collective_rpc("esr_load", args=(packed(found),))
    except BaseException:
        sites.known.pop(name, None)
        raise
    if set(hashes) != {shape.sha256}:
        sites.known.pop(name, None)
        raise EngineError(f"directions {name!r} came to the workers as {hashes} and were sent as {shape.sha256}")
    return shape.sha256


def packed(found: Directions) -> dict[str, Any]:
    """As bytes, for every worker of the engine, on this machine or another."""
    layers = [[layer, *rows.shape, rows.tobytes()] for layer, rows in found.layers.items()]
    return {"name": found.name, "layers": layers}


def unpacked(sent: dict[str, Any]) -> Directions:
    layers = {layer: np.frombuffer(data, np.float32).reshape(n, width).copy() for layer, n, width, data in sent["layers"]}
    return Directions(sent["name"], layers)
