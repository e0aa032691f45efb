"""A running server with the plugin, as its clients ask it, and the reference that it must agree with."""

import json
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from tiny_models import Toy

from esr.engine import Request
from esr.engine.hf import HfEngine
from esr.types import Sampling

openai = pytest.importorskip("openai")
pytest.importorskip("vllm")
spec = pytest.importorskip("esr.engine.plugin.spec")

GREEDY = Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=16)
PROMPTS = ("How do I whittle a spoon?", "Why is the sky blue?", "How do I whittle a chair?")


@dataclass(frozen=True)
class Server:
    """A running server and the reference it must agree with."""

    url: str
    toy: Toy
    hf: HfEngine

    @property
    def client(self) -> Any:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="key", max_retries=0, timeout=60)

    def body(self, request: Request, id: str = "") -> dict[str, Any]:
        """The keyword arguments of the client's call for `request`."""
        asked = spec.Spec(ops=request.ops, scope=request.scope, capture=request.capture, id=id).as_json()
        return {
            "model": "toy", "max_tokens": request.sampling.max_tokens, "temperature": 0.0,
            "extra_body": {"vllm_xargs": {"sae": asked} if asked != "{}" else {}, "return_token_ids": True, "stop_token_ids": [2]},
        }  # fmt: skip

    def complete(self, request: Request, id: str = "") -> tuple[int, ...]:
        return tuple(self.reply(request, id).choices[0].token_ids)

    def reply(self, request: Request, id: str = "", **more: Any) -> Any:
        """more: fields of vLLM's own."""
        body = self.body(request, id)
        body["extra_body"] |= more
        return self.client.completions.create(prompt=list(request.token_ids or self.hf.render(request.prompt)), **body)

    def reference(self, request: Request) -> tuple[int, ...]:
        return self.hf.generate([request])[0].token_ids

    def get(self, path: str, key: str = "key", **params: Any) -> httpx.Response:
        return httpx.get(f"{self.url}/v1/sae{path}", params=params, headers=bearer(key), timeout=30)

    def post(self, path: str, body: str | dict[str, Any]) -> httpx.Response:
        raw = body if isinstance(body, str) else json.dumps({"model": "toy", **body})
        headers = bearer() | {"Content-Type": "application/json"}
        return httpx.post(self.url + path, content=raw, headers=headers, timeout=60)


def bearer(key: str = "key") -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def send(server: Server, name: str, body: bytes, **params: Any) -> httpx.Response:
    url = f"{server.url}/v1/sae/directions"
    return httpx.post(url, params={"name": name, **params}, content=body, headers=bearer(), timeout=30)


def ask(prompt: str = PROMPTS[0], **changes: Any) -> Request:
    return replace(Request(prompt=prompt, sampling=GREEDY), **changes)
