"""A stock `vllm serve` with the plugin steers, clamps and captures for the stock openai client."""

import asyncio
import io
import json
import random
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from engine_client import GREEDY, PROMPTS, Server, ask, bearer, openai, send, spec
from engine_refused import BAD, MISPLACED
from engine_routes import DROPS, ROUTES, with_spec
from safetensors.numpy import load, save
from test_engine_directions import gguf
from tiny_models import WIDTH, make_toy
from vllm_server import serving

from esr.engine import Capture, Request
from esr.engine.hf import HfEngine
from esr.sae import open_sae
from esr.types import Op

pytestmark = pytest.mark.slow

LIMIT = 1 << 16
"""Bytes of a set of directions that the server takes."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    toy = make_toy(folder, "llama")
    params = toy.params
    sites = spec.Sites(saes={name: params.sae(name) for name in ("early", "late")}, sha256={}, layers=(1, 2), http_directions=LIMIT)
    more = [
        "--dtype",
        "float32",
        "--max-model-len",
        "512",
        "--max-num-seqs",
        "32",
        "--block-size",
        "32",
        "--api-key",
        "key",
        "another",
    ]
    more += ["--enforce-eager", "--additional-config", json.dumps({spec.KEY: sites.as_config()})]
    with serving(toy.folder, "toy", more, folder / "log", VLLM_PLUGINS="esr,esr_captures") as url:
        yield Server(url, toy, HfEngine.open(params, toy.name))


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


def turns(server: Server, opening: str, ops: tuple[Op, ...], scope: str) -> tuple[Request, Request]:
    """Of a conversation: the second has the reply to the first, whose positions lie in whole blocks, and another question."""
    long = replace(GREEDY, max_tokens=70)
    first = Request(token_ids=server.hf.render(opening), sampling=long, ops=ops, scope=scope)
    reply = server.reference(first)
    assert len(reply) == long.max_tokens
    return first, replace(first, token_ids=(*first.token_ids, *reply, *server.hf.render("And then?")))


@pytest.mark.parametrize("ops", [MIXED[1], MIXED[4]], ids=["a boost", "a clamp and boosts"])
@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "backwards"])
def test_a_second_turn_under_generated_is_what_it_is_under_a_salt_of_its_own(
    server: Server, ops: tuple[Op, ...], backwards: bool
) -> None:
    """What the first turn generated was steered then and is prompt now, so the second one reads none of it."""
    first, second = turns(server, f"How are walls built, {len(ops)} {backwards}?", ops, "generated")
    between = f"[{len(first.token_ids)},)"
    assert server.reference(second) != server.reference(replace(second, scope=between)), "the two must differ to show anything"
    wanted = {request: server.hf.generate([request])[0] for request in (first, second)}
    for request in (second, first, second) if backwards else (first, second, first):
        reply, alone = server.reply(request), server.reply(request, cache_salt=uuid.uuid4().hex)
        for one in (reply, alone):
            assert tuple(one.choices[0].token_ids) == wanted[request].token_ids
            assert one.applied["due"] == wanted[request].applied
        assert alone.applied["cached"] == 0


def test_a_second_turn_under_all_reads_what_the_first_one_left(server: Server) -> None:
    first, second = turns(server, "How are walls built, all of them?", MIXED[1], "all")
    assert server.complete(first) == server.reference(first)
    reply = server.reply(second)
    assert tuple(reply.choices[0].token_ids) == server.reference(second)
    assert reply.applied["cached"] > len(first.token_ids), "blocks of the first reply"


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


@pytest.mark.parametrize("text", BAD, ids=BAD.values())
def test_a_malformed_spec_is_a_400_with_a_sentence(server: Server, text: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        server.client.completions.create(model="toy", prompt=[1, 3, 4], max_tokens=2, extra_body={"vllm_xargs": {"sae": text}})
    assert BAD[text] in str(caught.value)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("where", MISPLACED)
def test_a_spec_in_the_wrong_place_is_a_400_with_a_sentence(server: Server, where: str, stream: bool) -> None:
    form, says = MISPLACED[where]
    text = json.dumps(spec.Spec(ops=MIXED[1]).as_json())
    plain = json.dumps({"model": "toy", "prompt": [1, 3, 4], "max_tokens": 2, "stream": stream})
    answer = server.post("/v1/completions", plain[:-1] + ", " + (form % text)[1:])
    assert answer.status_code == 400, answer.text
    assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_bad_spec_is_a_400_in_a_stream_too(server: Server, path: str) -> None:
    answer = server.post(path, with_spec(ROUTES[path], "[") | {"stream": True})
    assert answer.status_code == 400, answer.text
    assert "is not JSON" in answer.json()["error"]["message"]


def test_every_route_steers_and_says_so_or_refuses(server: Server) -> None:
    listed = httpx.get(f"{server.url}/openapi.json", timeout=30).json()
    posts = {path for path, methods in listed["paths"].items() if "post" in methods}
    assert posts - set(ROUTES) == set(), "routes of which docs/engine.md says nothing"
    text = spec.Spec(ops=MIXED[1]).as_json()
    for path in sorted(posts):
        route = ROUTES[path]
        if route.here == "steers" or path == DROPS:
            plain = server.post(path, route.body)
            assert plain.status_code == 200, (path, plain.text)
            assert b'"applied"' not in plain.content
        answer = server.post(path, with_spec(route, text))
        if route.here == "steers":
            assert answer.status_code == 200, (path, answer.text)
            applied = answer.json()["applied"]
            assert applied["due"] == applied["done"] + applied["cached"] > 0, path
        elif route.here == "refuses":
            assert answer.status_code >= 400, (path, answer.text)
        if path == DROPS:
            assert "drops the steering spec" in answer.json()["error"]["message"]
        if route.here == "steers":
            bad = server.post(path, with_spec(route, text.replace("early", "erly")))
            assert bad.status_code == 400, (path, bad.text)
            assert "no SAE 'erly'" in bad.text


def test_a_reply_says_what_was_applied(server: Server) -> None:
    request = ask("How do I " + "please " * 40, ops=MIXED[4])
    prompt = list(server.hf.render(request.prompt))
    for _ in range(2):
        reply = server.client.completions.create(prompt=prompt, **server.body(request))
        due = 2 * (len(prompt) + len(reply.choices[0].token_ids) - 1)
        assert reply.applied["due"] == due == server.hf.generate([request])[0].applied
        assert reply.applied["done"] == due - reply.applied["cached"]
    assert reply.applied["cached"] > 0, "the second time whole blocks of the prompt were there"
    plain = server.client.completions.create(prompt=[1, 3, 4], **server.body(ask()))
    assert not hasattr(plain, "applied")


@pytest.mark.parametrize("kind", ["completions", "chat"])
@pytest.mark.parametrize("usage", [False, True], ids=["", "with usage"])
def test_the_last_event_of_a_stream_says_what_was_applied(server: Server, kind: str, usage: bool) -> None:
    body = server.body(ask(ops=MIXED[1], scope="generated"))
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
    if kind == "completions":
        events = list(server.client.completions.create(prompt=[1, 3, 4], stream=True, **body, **more))
    else:
        messages = [{"role": "user", "content": PROMPTS[0]}]
        events = list(server.client.chat.completions.create(messages=messages, stream=True, **body, **more))
    told = [getattr(event, "applied", None) for event in events]
    assert told[:-1] == [None] * (len(events) - 1)
    reply = sum(len(getattr(choice, "token_ids", None) or ()) for event in events for choice in event.choices)
    assert told[-1] == {"due": reply - 1, "done": reply - 1, "cached": 0}


def test_replies_of_one_request_are_counted_together(server: Server) -> None:
    body = server.body(ask(ops=MIXED[1], scope="prompt")) | {"n": 2, "temperature": 1.0}
    reply = server.client.completions.create(prompt=[[1, 3, 4], [1, 5, 6, 7]], **body)
    assert len(reply.choices) == 4
    assert reply.applied == {"due": 14, "done": 14, "cached": 0}


def test_a_capture_belongs_to_the_key_that_asked(server: Server) -> None:
    server.complete(ask(capture=Capture(layer=1, sae="early", mode="topk", k=2)), "mine")
    assert server.get("/captures/mine", key="another").status_code == 404
    assert httpx.get(f"{server.url}/v1/sae/captures/mine", timeout=30).status_code == 401
    httpx.delete(f"{server.url}/v1/sae/captures/mine", headers=bearer("another"), timeout=30)
    assert server.get("/captures/mine").status_code == 200


def test_one_id_under_two_keys_is_two_captures(server: Server) -> None:
    capture = Capture(layer=1, sae="early", mode="latents", latents=(3,))
    for key, prompt in (("key", [1, 3, 4]), ("another", [1, 3, 4, 5, 6])):
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60)
        client.completions.create(prompt=prompt, **server.body(ask(capture=capture), "same"))
    rows = [len(server.get("/captures/same", key=key).json()["positions"]) for key in ("key", "another")]
    assert rows[1] > rows[0] > 0


def test_directions_sent_to_a_server_steer_from_then_on(server: Server) -> None:
    rows = open_sae(server.toy.params, "early").W_dec[[5]].numpy()
    asked = {"ops": [{"op": "add", "sae": "sent", "i": 0, "v": 3.0, "layer": 1}]}
    body = {"prompt": [1, 3, 4, 40, 41], "max_tokens": 8, "temperature": 0, "return_token_ids": True}
    early = server.post("/v1/completions", body | {"vllm_xargs": {"sae": spec.Spec(ops=MIXED[1]).as_json()}}).json()
    assert server.post("/v1/completions", body | {"vllm_xargs": {"sae": json.dumps(asked)}}).status_code == 400
    answer = send(server, "sent", save({"layer.1": rows}))
    assert answer.status_code == 200, answer.text
    assert answer.json()["layers"] == {"1": 1}
    reply = server.post("/v1/completions", body | {"vllm_xargs": {"sae": json.dumps(asked)}})
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["token_ids"] == early["choices"][0]["token_ids"], "one of an SAE's own rows"
    assert reply.json()["applied"]["directions"] == {"sent": answer.json()["sha256"]}
    assert server.get("").json()["directions"]["sent"]["sha256"] == answer.json()["sha256"]
    assert send(server, "sent", save({"layer.1": rows})).json() == answer.json()
    assert send(server, "sent", save({"layer.1": 2 * rows})).status_code == 400


def test_a_control_vector_sent_as_gguf_steers_as_the_same_rows_in_safetensors_do(server: Server, tmp_path: Path) -> None:
    rows = {f"direction.{layer}": open_sae(server.toy.params, sae).W_dec[7].numpy() for layer, sae in ((1, "early"), (2, "late"))}
    sent = {"gguf": gguf(tmp_path / "a.gguf", rows).read_bytes(), "tensors": save(rows)}
    taken = {name: send(server, name, body) for name, body in sent.items()}
    assert [answer.status_code for answer in taken.values()] == [200, 200], [answer.text for answer in taken.values()]
    server.hf.load_directions("gguf", tmp_path / "a.gguf")
    replies = {}
    for name in sent:
        reply = server.reply(ask(ops=(Op("add", 0, 5.0, 1, name), Op("clamp_projection", 0, 4.0, 2, name))))
        assert reply.applied["directions"] == {name: taken[name].json()["sha256"]}
        replies[name] = tuple(reply.choices[0].token_ids)
    wanted = ask(ops=(Op("add", 0, 5.0, 1, "gguf"), Op("clamp_projection", 0, 4.0, 2, "gguf")))
    assert replies["gguf"] == replies["tensors"] == server.reference(wanted) != server.reference(ask())


def test_directions_that_cannot_be_taken_are_refused_in_a_sentence(server: Server) -> None:
    rows = np.ones((1, WIDTH), np.float32)
    pickled = io.BytesIO()
    torch.save({"layer.1": torch.from_numpy(rows)}, pickled)
    for body, params, status, says in (
        (save({"layer.1": np.ones((LIMIT // WIDTH // 4 + 1, WIDTH), np.float32)}), {}, 413, "more than 65536 bytes"),
        (pickled.getvalue(), {}, 400, "cannot be read"),
        (b"GGUF", {}, 400, "cannot be read"),
        (save({"layer.3": rows}), {}, 400, "not hooked"),
        (save({"x": rows}), {}, 400, "give `layer`"),
        (save({"layer.1": rows[:, :3]}), {}, 400, "3 dimensions and the model has 64"),
        (save({"layer.1": rows * np.nan}), {}, 400, "NaN"),
    ):
        answer = send(server, "refused", body, **params)
        assert answer.status_code == status, answer.text
        assert says in answer.json()["error"]["message"]
    assert send(server, "early", save({"layer.1": rows})).status_code == 400
    assert "refused" not in server.get("").json()["directions"]


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


def test_two_prompts_under_one_id_are_a_400(server: Server) -> None:
    body = server.body(ask(capture=Capture(layer=1, sae="early", mode="all")), "twice")
    with pytest.raises(openai.BadRequestError, match="an `id` names one reply and this request has several prompts"):
        server.client.completions.create(prompt=[[1, 3, 4], [1, 5, 6]], **body)


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
        httpx.delete(f"{server.url}/v1/sae/captures/broken-{number}", headers=bearer(), timeout=30)
    assert server.complete(ask(PROMPTS[1])) == server.reference(ask(PROMPTS[1]))
    deadline = time.monotonic() + 120
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
