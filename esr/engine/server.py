"""A running `vllm serve` with the plugin, asked over HTTP as an engine is asked: by params.yaml's names, all requests at once.

    with Server.open(params, "8b", "http://127.0.0.1:8000", key) as server:
        outputs = server.generate([Request(prompt=…, sampling=…, ops=…)])

It is asked first what it serves and what can be steered there; a server that could not answer for this model is refused in a sentence.
"""

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import httpx
import numpy as np

from esr.engine import Output, Reading, Request
from esr.engine.chat import Chat
from esr.engine.intervention import Intervention
from esr.engine.plugin.spec import FIELD, Spec
from esr.errors import EngineError, SpecError
from esr.params import Params, source
from esr.types import Op

AT_ONCE = 256
"""Requests under way."""
PATIENCE = httpx.Timeout(600, connect=10)
"""Seconds; a long batch answers its last request late."""


class Server:
    """What of an engine the self-check needs. `served`: the model's name there; `saes`: ours to the server's."""

    def __init__(self, client: httpx.Client, chat: Chat, served: str, saes: dict[str, str], fingerprint: dict[str, str]) -> None:
        self._client, self._chat, self._served, self._saes = client, chat, served, saes
        self.fingerprint = fingerprint

    @classmethod
    def open(cls, params: Params, model: str, url: str, key: str = "", served: str = "") -> "Server":
        """served: the model's name there, where neither its name nor its hub id would tell."""
        address = url.rstrip("/").removesuffix("/v1")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None)
        try:
            client = httpx.Client(base_url=address, headers=headers, timeout=PATIENCE, limits=limits)
        except httpx.InvalidURL as error:
            raise EngineError(f"{url!r:.200} is no address of a server: {error}") from None
        with ExitStack() as refused:
            refused.enter_context(client)
            server = cls.of(client, params, model, served)
            refused.pop_all()
            return server

    @classmethod
    def of(cls, client: httpx.Client, params: Params, model: str, served: str = "") -> "Server":
        from transformers import AutoTokenizer

        block, sae = params.model(model), params.sae(params.model(model).sae)
        told = _asked(client, "GET", "/v1/sae")
        name = _served(client, params, model, served)
        theirs = _sae(client, params, sae.name, told.get("saes") or {})
        where, revision = source(block.hub, block.revision)
        layers = told.get("layers") or sorted({found["layer"] for found in told["saes"].values()})
        fingerprint = {f"{package}_version": f"{version(package)} (here)" for package in ("torch", "transformers")} | {
            "server": str(client.base_url).rstrip("/"), "served": name, "model": block.weights, "dtype": block.dtype,
            "quantization": block.quantization or "none", "vllm_version": f"{_asked(client, 'GET', '/version')['version']} (there)",
            "layers": ",".join(map(str, layers)), "sae": theirs,
        }  # fmt: skip
        return cls(
            client, Chat(AutoTokenizer.from_pretrained(where, **revision), block.family), name, {sae.name: theirs}, fingerprint
        )

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        with ThreadPoolExecutor(min(AT_ONCE, max(1, len(requests)))) as pool:
            return list(pool.map(self._generate, requests))

    def load_directions(self, name: str, path: Path, layer: int | None = None) -> str:
        """Stays on the server as long as it runs. A server that takes none is a SpecError."""
        asked = {"name": name} | ({} if layer is None else {"layer": str(layer)})
        return str(_asked(self._client, "POST", "/v1/sae/directions", params=asked, content=path.read_bytes())["sha256"])

    def _generate(self, request: Request) -> Output:
        ids = request.token_ids or self._chat.render(request.prompt, request.prompt_format, request.prefill)
        capture = request.capture and replace(request.capture, sae=self._saes.get(request.capture.sae, request.capture.sae))
        id = uuid.uuid4().hex if capture else ""
        spec = Spec(ops=tuple(map(self._theirs, request.ops)), scope=request.scope, capture=capture, id=id)
        s = request.sampling
        answer = _asked(self._client, "POST", "/v1/completions", json={
            "model": self._served, "prompt": list(ids), "max_tokens": s.max_tokens, "temperature": s.temperature, "top_p": s.top_p,
            "repetition_penalty": s.repetition_penalty, "seed": request.seed, "ignore_eos": True, "return_token_ids": True,
            "stop_token_ids": list(self._chat.stop_ids), "vllm_xargs": {FIELD: spec.as_json()} if spec.ops or capture else {},
        })  # fmt: skip
        choice = answer["choices"][0]
        reply = tuple(choice["token_ids"])
        applied = answer.get("applied", {})
        if spec.ops and not applied:
            raise EngineError("the reply to a steered request does not say what was applied, so nothing may have been")
        return Output(
            text=choice["text"], token_ids=reply, prompt_token_ids=tuple(ids), finish_reason=str(choice["finish_reason"]),
            applied=applied["done"] + applied["cached"] if spec.ops else 0,
            reading=self._capture(id, None if capture.positions != "all" else len(ids) + len(reply) - 1) if capture else None,
            directions=tuple(sorted(applied.get("directions", {}).items())),
        )  # fmt: skip

    def _capture(self, id: str, rows: int | None) -> Reading:
        from safetensors.numpy import load

        asked = {"format": "safetensors"} | ({} if rows is None else {"rows": str(rows)})
        found = load(_sent(self._client, "GET", f"/v1/sae/captures/{id}", params=asked).content)
        positions = np.asarray(found["positions"], np.int32)
        return Reading(positions=positions, values=found["values"], indices=found.get("indices"), expected=len(positions))

    def _theirs(self, op: Op) -> Op:
        if isinstance(op, Intervention) and op.when is not None:
            op = replace(op, when=replace(op.when, sae=self._saes.get(op.when.sae, op.when.sae)))
        return replace(op, sae=self._saes.get(op.sae, op.sae))


def _served(client: httpx.Client, params: Params, model: str, served: str) -> str:
    """The name by which the server knows params.yaml's `model`."""
    block = params.model(model)
    there = {str(one["id"]): str(one.get("root") or "") for one in _asked(client, "GET", "/v1/models")["data"]}
    alike = {served} if served else {block.name} if block.adapter else {block.name, block.hub, source(block.hub, block.revision)[0]}
    for name, root in there.items():
        if name in alike or (root in alike and not served):
            return name
    known = ", ".join(f"{name!r} ({root})" if root != name else repr(name) for name, root in there.items())
    raise EngineError(
        f"the server at {client.base_url} serves {known:.400} and not {served or model!r}"
        + ("" if served else f" ({block.hub}); where that is the same model by another name, --served-as says so")
    )


def _sae(client: httpx.Client, params: Params, name: str, there: dict[str, dict[str, Any]]) -> str:
    """The server's name for an SAE of params.yaml: of the same content, else of the same name or the only one of its form."""
    from esr.sae import open_sae

    ours = open_sae(params, name)
    form = {"layer": ours.layer, "d_in": ours.d_in, "d_sae": ours.d_sae}
    fitting = [
        other
        for other, block in there.items()
        if all(block.get(key) == value for key, value in form.items()) and block.get("sha256") in (None, ours.sha256)
    ]
    same = [other for other in fitting if there[other].get("sha256")] or [other for other in fitting if other == name] or fitting
    if len(same) == 1 or name in same:
        return name if name in same else same[0]
    raise EngineError(
        f"the server at {client.base_url} steers by {', '.join(there) or 'no SAE'}, "
        + (f"of which {', '.join(same)} may be {name!r}; " if same else f"none of which is {name!r}; ")
        + "start it with that SAE under that name"
    )


def _asked(client: httpx.Client, method: str, path: str, **more: Any) -> Any:
    answer = _sent(client, method, path, **more)
    try:
        return answer.json()
    except ValueError:
        raise EngineError(f"what answers at {client.base_url} is no server of vLLM: {answer.text!r:.100}") from None


def _sent(client: httpx.Client, method: str, path: str, **more: Any) -> httpx.Response:
    try:
        answer = client.request(method, path, **more)
    except httpx.TransportError as error:
        raise EngineError(f"no server answers at {client.base_url}: {error or type(error).__name__}") from None
    if not answer.is_success:
        _refuse(client, path, answer)
    return answer


def _refuse(client: httpx.Client, path: str, answer: httpx.Response) -> NoReturn:
    at, status = client.base_url, answer.status_code
    if status in (401, 403) and path != "/v1/sae/directions":
        raise EngineError(f"the server at {at} wants another key than it got; --key or $VLLM_API_KEY gives one")
    if status == 404 and path == "/v1/sae":
        raise EngineError(
            f"the server at {at} has no plugin, so it would not steer; start it with VLLM_PLUGINS=esr,esr_captures and additional_config"
        )
    said = f"the server at {at} answers {status}: {_sentence(answer)}"
    raise SpecError(said) if status < 500 or status == 501 else EngineError(said)


def _sentence(answer: httpx.Response) -> str:
    """Of vLLM's own errors, of a route's, or whatever came."""
    try:
        found = answer.json()
        error = found.get("error", found)
        return str(error.get("message") or error.get("detail") or found)[:300]
    except (ValueError, AttributeError):
        return repr(answer.text[:200])
