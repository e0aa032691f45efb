"""What the OpenAI server offers beside generation: what can be steered here, and captures, each taken once.

    GET    /v1/sae                        sites, SAEs, limits and how full the store of captures is
    GET    /v1/sae/captures/{id}          a finished request's capture; ?rows=N checks its length, ?format=safetensors is compact
    DELETE /v1/sae/captures/{id}          forget it

`executed` counts how often the device applied an op, `due` how often it was to; positions read from the prefix cache are in
neither. vLLM loads endpoints only when they are named: VLLM_PLUGINS=esr,esr_captures. Paths under /v1 are behind --api-key.
"""

from argparse import Namespace
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from safetensors.numpy import save
from starlette.datastructures import State

DTYPES = {"positions": np.dtype("<i4"), "indices": np.dtype("<i4"), "values": np.dtype("<f4")}


@dataclass(slots=True)
class Desk:
    """Hands out what the workers hold."""

    client: Any
    """vLLM's EngineClient."""

    async def limits(self) -> dict[str, Any]:
        steering = dict((self.client.vllm_config.additional_config or {}).get("sae_steering") or {})
        saes = {
            name: {key: block.get(key) for key in ("layer", "d_in", "d_sae", "sha256")}
            for name, block in (steering.pop("saes", None) or {}).items()
        }
        return {"saes": saes, **steering, "now": await self._ask("esr_stats")}

    async def take(self, id: str, rows: int | None) -> dict[str, Any] | None:
        found: list[dict[str, Any] | None] | None = await self._ask("esr_take", [id], [rows])
        return found[0] if found else None

    async def forget(self, id: str) -> None:
        await self._ask("esr_forget", [id])

    async def _ask(self, method: str, *args: object) -> Any:
        """Every rank answers; those that hold nothing answer None."""
        answers = await self.client.collective_rpc(method, args=args)
        return next((answer for answer in answers if answer is not None), None)


def open_desk(request: Request) -> Desk:
    desk: Desk | None = getattr(request.app.state, "esr_desk", None)
    if desk is None:
        raise HTTPException(503, "this server has no engine to ask for captures")
    if getattr(request.app.state.args, "data_parallel_size", 1) > 1:
        # a collective call reaches every engine core and returns the answer of only one, so a capture would be lost
        raise HTTPException(501, "captures cannot be taken from a data-parallel server; run one server an engine")
    return desk


Open = Annotated[Desk, Depends(open_desk)]


async def limits(desk: Open) -> dict[str, Any]:
    return await desk.limits()


async def take(
    id: str, desk: Open, rows: Annotated[int | None, Query(ge=0)] = None, format: Literal["json", "safetensors"] = "json"
) -> Response:
    found = await desk.take(id, rows)
    if found is None:
        raise HTTPException(404, f"no capture {id[:80]!r}: it was taken or forgotten, or no request by that id ran here")
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


async def forget(id: str, desk: Open) -> Response:
    await desk.forget(id)
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
        app.add_api_route("/v1/sae", limits, methods=["GET"])
        app.add_api_route("/v1/sae/captures/{id:path}", take, methods=["GET"], response_model=None)
        app.add_api_route("/v1/sae/captures/{id:path}", forget, methods=["DELETE"], response_model=None)

    async def init_state(self, engine_client: Any, state: State, args: Namespace) -> None:
        if engine_client is not None:
            state.esr_desk = Desk(engine_client)


def register() -> Captures:
    return Captures()
