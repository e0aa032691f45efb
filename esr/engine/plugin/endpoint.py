"""What the OpenAI server offers beside generation: what can be steered here, and captures, each taken once.

    GET    /v1/sae                        sites, SAEs, limits and how full the store of captures is
    GET    /v1/sae/captures/{id}          a finished request's capture; ?rows=N checks its length, ?format=safetensors is compact
    DELETE /v1/sae/captures/{id}          forget it
    POST   /v1/sae/directions?name=N      a set of directions, safetensors or a GGUF control vector; ?layer=N for a single tensor

`executed` counts how often the device applied an op, `due` how often it was to; positions read from the prefix cache are in
neither. A capture belongs to whoever sent its request, that is to the API key that came with it. vLLM loads endpoints only when they are named: VLLM_PLUGINS=esr,esr_captures. Paths under /v1 are behind --api-key.
"""

import asyncio
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from safetensors.numpy import save
from starlette.datastructures import State

from esr.engine.directions import Directions, read_directions
from esr.engine.plugin.admission import sites_of
from esr.engine.plugin.desk import Desk
from esr.engine.plugin.door import desk_of, owner
from esr.engine.plugin.loading import load_directions
from esr.errors import EngineError

DTYPES = {"positions": np.dtype("<i4"), "indices": np.dtype("<i4"), "values": np.dtype("<f4")}


def open_desk(request: Request) -> Desk:
    client = getattr(request.app.state, "engine_client", None)
    if client is None:
        raise HTTPException(503, "this server has no engine to ask for captures")
    return desk_of(request.app, client)


Open = Annotated[Desk, Depends(open_desk)]


async def limits(desk: Open) -> dict[str, Any]:
    return await desk.limits()


async def take(
    id: str,
    request: Request,
    desk: Open,
    rows: Annotated[int | None, Query(ge=0)] = None,
    format: Literal["json", "safetensors"] = "json",
) -> Response:
    found = await desk.take(f"{owner(request.scope)}:{id}", rows)
    if found is None:
        raise HTTPException(404, f"no capture {id[:80]!r}: it was taken or forgotten, or you sent no request by that id here")
    if found.get("error"):
        raise HTTPException(409, str(found["error"]))
    head = {"id": id, "executed": found["executed"], "due": found["expected"]}
    capture = found.get("capture")
    if capture is None:
        return JSONResponse(head)
    tensors = arrays(capture)
    head["mode"] = capture["mode"]
    if format == "safetensors":
        return Response(save(tensors, {key: str(value) for key, value in head.items()}), media_type="application/octet-stream")
    return JSONResponse({**head, **{key: value.tolist() for key, value in tensors.items()}})


async def load(
    request: Request, desk: Open, name: Annotated[str, Query(min_length=1, max_length=128)], layer: Annotated[int | None, Query(ge=0)] = None
) -> Response:  # fmt: skip
    """The body is a file as `read_directions` takes it, but for pickles."""
    try:
        limit = sites_of(desk.client.vllm_config).http_directions
        if not limit:
            raise HTTPException(
                403, "this server takes no directions over HTTP; start it with http_directions, the bytes that a set may have"
            )
        if getattr(request.app.state.args, "api_server_count", None) not in (None, 0, 1):
            raise HTTPException(
                501, "directions sent to one of several API servers are not known to the others; load them at the start"
            )
        body = await _at_most(request, limit)
        found = await asyncio.to_thread(_read, name, body, layer)
        sha256 = await load_directions(desk.client, name, found)
    except EngineError as error:
        raise HTTPException(400, str(error)) from None
    return JSONResponse({"name": name, "sha256": sha256, "width": found.shape.width, "layers": found.shape.layers})


async def _at_most(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise HTTPException(413, f"the set has more than {limit} bytes, which is what this server takes (http_directions)")
    return bytes(body)


def _read(name: str, body: bytes, layer: int | None) -> Directions:
    with TemporaryDirectory() as folder:
        path = Path(folder) / ("body.gguf" if body[:4] == b"GGUF" else "body.safetensors")
        path.write_bytes(body)
        return read_directions(name, path, layer)


async def forget(id: str, request: Request, desk: Open) -> Response:
    await desk.forget([f"{owner(request.scope)}:{id}"])
    return JSONResponse({"id": id})


def arrays(capture: dict[str, Any]) -> dict[str, np.ndarray]:
    """positions [rows], values, and for topk and max indices of the same shape, out of the workers' bytes."""
    found = {key: np.frombuffer(capture[key], dtype) for key, dtype in DTYPES.items() if capture.get(key) is not None}
    return {key: value if key == "positions" else value.reshape(capture["shape"]) for key, value in found.items()}


class Captures:
    """The endpoint plugin that vLLM's server attaches."""

    name = "esr_captures"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        from vllm.v1.engine.input_processor import InputProcessor

        if not getattr(InputProcessor.process_inputs, "esr", False):
            raise EngineError(
                "VLLM_PLUGINS names esr_captures without esr, so nothing would be steered; name both: esr,esr_captures"
            )
        app.add_api_route("/v1/sae", limits, methods=["GET"])
        app.add_api_route("/v1/sae/directions", load, methods=["POST"], response_model=None)
        app.add_api_route("/v1/sae/captures/{id:path}", take, methods=["GET"], response_model=None)
        app.add_api_route("/v1/sae/captures/{id:path}", forget, methods=["DELETE"], response_model=None)

    async def init_state(self, engine_client: Any, state: State, args: Namespace) -> None:
        """What the routes need, vLLM keeps itself."""


def register() -> Captures:
    return Captures()
