"""A server with two data-parallel engines, behind one and behind two API servers, counts and captures as if it were one engine."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]  # it comes without types
import pytest
from engine_client import PROMPTS, ask, bearer
from safetensors.numpy import load, save
from tiny_models import Toy, make_toy
from vllm_server import serving

from esr.engine import Capture, Output, Request
from esr.engine.hf import HfEngine
from esr.engine.plugin.spec import KEY, Sites, Spec
from esr.sae import open_sae
from esr.types import Op

pytest.importorskip("vllm")

pytestmark = pytest.mark.slow

ENGINES = 2
BOOST = (Op("add", 5, 3.0, 1, "early"),)
MIXED = (
    (),
    BOOST,
    (Op("add", 5, -3.0, 1, "early"),),
    (Op("clamp", 9, 4.0, 2, "late"),),
    (Op("clamp", 9, 4.0, 2, "late"), Op("add", 9, 2.0, 2, "late"), Op("add", 40, 2.5, 1, "early")),
    (),
)
CAPTURES = (
    Capture(layer=2, sae="late", mode="topk", k=4),
    Capture(layer=1, sae="early", mode="latents", latents=(3, 50), stage="after"),
    Capture(layer=2, mode="residual", positions="[2,)"),
    Capture(layer=2, sae="late", mode="max"),
    None,
)


@dataclass(frozen=True)
class Line:
    """A connection that stays, to one API server of those that listen at an address."""

    http: httpx.Client
    server: int
    """Its process."""

    def complete(self, prompt: Any, request: Request, id: str = "", rank: int | None = None, **more: Any) -> httpx.Response:
        text = Spec(ops=request.ops, scope=request.scope, capture=request.capture, id=id).as_json()
        body = {"prompt": prompt, "max_tokens": request.sampling.max_tokens, "temperature": 0, "stop_token_ids": [2], **more}
        body |= {"model": "toy", "return_token_ids": True} | ({"vllm_xargs": {"sae": text}} if text != "{}" else {})
        headers = {} if rank is None else {"X-data-parallel-rank": str(rank)}
        return self.http.post("/v1/completions", json=body, headers=headers)

    def take(self, id: str, key: str = "key", **params: Any) -> httpx.Response:
        return self.http.get(f"/v1/sae/captures/{id}", params=params, headers=bearer(key))

    def forget(self, id: str, key: str = "key") -> None:
        assert self.http.delete(f"/v1/sae/captures/{id}", headers=bearer(key)).status_code == 200

    def now(self) -> dict[str, int]:
        return dict(self.http.get("/v1/sae").json()["now"])


@dataclass(frozen=True)
class Replicas:
    """A running server, the reference it must agree with, and what its ends are."""

    url: str
    api_servers: int
    toy: Toy
    hf: HfEngine
    open: ExitStack

    def line(self) -> Line:
        http = self.open.enter_context(httpx.Client(base_url=self.url, headers=bearer(), timeout=120))
        stream = http.get("/health").extensions["network_stream"]
        port = stream.get_extra_info("client_addr")[1]
        ends = (c for c in psutil.net_connections("tcp") if c.raddr and c.status == psutil.CONN_ESTABLISHED)
        (server,) = (c.pid for c in ends if (c.laddr.port, c.raddr.port) == (http.base_url.port, port))
        return Line(http, server)

    def lines(self, n: int) -> list[Line]:
        """n of them, as many to each API server."""
        found: dict[int, list[Line]] = {}
        for _ in range(50 * n):
            if len(found) == self.api_servers and all(len(lines) * self.api_servers >= n for lines in found.values()):
                break
            line = self.line()
            found.setdefault(line.server, []).append(line)
        assert len(found) == self.api_servers
        return [line for lines in zip(*found.values(), strict=False) for line in lines][:n]

    def prompt(self, request: Request) -> list[int]:
        return list(self.hf.render(request.prompt))

    def served(self) -> Counter[str]:
        """Requests that each engine has finished."""
        lines = httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("vllm:request_success_total{"))
        out: Counter[str] = Counter()
        for name, value in pairs:
            out[name.split('engine="')[1].split('"')[0]] += int(float(value))
        return out


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("replicas"))


@pytest.fixture(scope="module", params=[2, 1], ids=lambda n: f"{n}-api")
def replicas(request: pytest.FixtureRequest, toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    saes = {name: toy.params.sae(name) for name in ("early", "late")}
    sites = Sites(saes=saes, sha256={}, layers=(1, 2), http_directions=1 << 16)
    more = ["--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "32", "--api-key", "key", "another"]
    more += ["--enforce-eager", "--additional-config", json.dumps({KEY: sites.as_config()}), "--data-parallel-size", str(ENGINES)]
    more += [] if request.param == ENGINES else ["--api-server-count", str(request.param)]  # as many by themselves
    log = tmp_path_factory.mktemp("server") / "log"
    settings = {"VLLM_PLUGINS": "esr,esr_captures", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "600"}
    settings["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"  # engines and workers import nothing anew, which is most of the start
    with serving(toy.folder, "toy", more, log, **settings) as url, ExitStack() as stack:
        yield Replicas(url, request.param, toy, HfEngine.open(toy.params, toy.name), stack)


def takes(line: Line, id: str, expected: Output, key: str = "key", **params: Any) -> None:
    """A capture over HTTP is the reference's reading."""
    reading = expected.reading
    assert reading is not None
    answer = line.take(id, key, rows=int(reading.positions[-1]) + 1, **params)
    assert answer.status_code == 200, answer.text
    found: Any = answer.json() if answer.headers["content-type"] == "application/json" else load(answer.content)
    values = np.asarray(found["values"], np.float32)
    assert np.asarray(found["positions"]).tolist() == reading.positions.tolist()
    assert values.shape == reading.values.shape
    assert np.allclose(values, reading.values, atol=1e-4), id
    if reading.indices is not None:
        clear = reading.values > 1e-3  # among equal zeros any latent may be named
        assert np.array_equal(np.asarray(found["indices"])[clear], reading.indices[clear])


def test_replies_and_captures_of_many_at_once_are_the_reference_s_on_both_engines(replicas: Replicas) -> None:
    mixed = zip(cycle(MIXED), cycle(CAPTURES), cycle(PROMPTS), strict=False)
    requests = [ask(prompt, ops=ops, capture=capture) for ops, capture, prompt in islice(mixed, 30)]
    expected = replicas.hf.generate(requests)
    lines, before = replicas.lines(len(requests)), replicas.served()
    jobs = list(zip(lines, requests, [f"many-{i}" if r.capture else "" for i, r in enumerate(requests)], strict=True))
    with ThreadPoolExecutor(len(jobs)) as pool:
        replies = list(pool.map(lambda job: job[0].complete(replicas.prompt(job[1]), *job[1:]), jobs))
    counted = replicas.served() - before
    assert set(counted) == {"0", "1"}
    assert sum(counted.values()) == len(requests)
    for (line, request, id), reply, wanted, elsewhere in zip(jobs, replies, expected, lines[1:] + lines[:1], strict=True):
        assert reply.status_code == 200, reply.text
        body = reply.json()
        assert tuple(body["choices"][0]["token_ids"]) == wanted.token_ids
        if not (request.ops or request.capture):
            assert "applied" not in body
            continue
        assert body["applied"]["due"] == body["applied"]["done"] + body["applied"]["cached"] == wanted.applied
        if request.capture is None:
            continue
        assert replicas.api_servers == 1 or elsewhere.server != line.server
        assert elsewhere.take(id, key="another").status_code == 404
        takes(elsewhere, id, wanted, format="safetensors")
        assert [end.take(id).status_code for end in (line, elsewhere)] == [404, 404]
    now = lines[0].now()
    assert now["held_bytes"] == now["live"] == now["nonzero"] == 0


@pytest.mark.parametrize("rank", range(ENGINES))
def test_a_capture_is_its_key_s_alone_and_is_forgotten_when_asked(replicas: Replicas, rank: int) -> None:
    request = ask(ops=BOOST, capture=CAPTURES[0])
    here, there = replicas.lines(2)
    before = replicas.served()
    ids = [f"mine-{rank}-{i}" for i in range(2)]
    for id in ids:
        assert here.complete(replicas.prompt(request), request, id, rank).status_code == 200
    assert replicas.served() - before == {str(rank): 2}
    for id in ids:
        assert there.take(id, key="another").status_code == 404
        there.forget(id, key="another")
    there.forget(ids[0])
    assert here.take(ids[0]).status_code == 404
    takes(there, ids[1], replicas.hf.generate([request])[0])
    assert here.now()["held_bytes"] == 0


@pytest.mark.parametrize("ranks", [(0, 0), (0, 1), (1, 0), (1, 1)], ids=str)
def test_an_id_that_two_requests_used_names_neither(replicas: Replicas, ranks: tuple[int, int]) -> None:
    """Whichever engines they went to: never is one's capture handed out for the other's."""
    id, lines = f"twice-{ranks}", replicas.lines(2)
    requests = [ask(prompt, capture=CAPTURES[0]) for prompt in (PROMPTS[0], PROMPTS[1] + " Please")]
    first, second = (
        line.complete(replicas.prompt(request), request, id, rank)
        for line, request, rank in zip(lines, requests, ranks, strict=True)
    )
    assert first.status_code == 200
    assert second.status_code == 500, second.text
    assert "was its `id` used for another" in second.json()["error"]["message"]
    assert lines[0].take(id).status_code == 404
    assert lines[0].complete(replicas.prompt(requests[1]), requests[1], id, ranks[1]).status_code == 200
    takes(lines[1], id, replicas.hf.generate(requests[1:])[0])


def test_a_capture_while_another_engine_has_its_id_is_an_error(replicas: Replicas) -> None:
    short, long = (ask(prompt, capture=CAPTURES[2]) for prompt in PROMPTS[:2])
    here, there = replicas.lines(2)
    for rank in range(ENGINES):
        id = f"meanwhile-{rank}"
        assert here.complete(replicas.prompt(short), short, id, rank).status_code == 200
        body = {"model": "toy", "prompt": replicas.prompt(long), "max_tokens": 400, "ignore_eos": True, "stream": True}
        body["vllm_xargs"] = {"sae": Spec(capture=long.capture, id=id).as_json()}
        headers = {"X-data-parallel-rank": str(1 - rank)}
        with there.http.stream("POST", "/v1/completions", json=body, headers=headers) as stream:
            events = stream.iter_lines()
            assert next(events).startswith("data: {")
            answer = here.take(id)
            assert answer.status_code == 409, answer.text
            assert "an `id` names one reply" in answer.json()["error"]["message"]
            assert "used for another" in "".join(events)
        assert here.take(id).status_code == 404


def test_one_id_under_two_keys_is_two_captures_on_two_engines(replicas: Replicas) -> None:
    here, there = replicas.lines(2)
    requests = [ask(prompt, capture=CAPTURES[1]) for prompt in PROMPTS[:2]]
    there.http.headers.update(bearer("another"))
    for rank, line in enumerate((here, there)):
        assert line.complete(replicas.prompt(requests[rank]), requests[rank], "same", rank).status_code == 200
    for line, key, request in ((there, "key", requests[0]), (here, "another", requests[1])):
        takes(line, "same", replicas.hf.generate([request])[0], key)


def test_replies_of_one_request_are_counted_together_from_both_engines(replicas: Replicas) -> None:
    (line,), before = replicas.lines(1), replicas.served()
    request = ask(ops=BOOST, scope="prompt")
    reply = line.complete([[1, 3, 4], [1, 5, 6, 7]], request, n=4, temperature=1)
    assert reply.status_code == 200, reply.text
    assert len(reply.json()["choices"]) == 8
    assert reply.json()["applied"] == {"due": 28, "done": 28, "cached": 0}
    assert set(replicas.served() - before) == {"0", "1"}
    body = {"prompt": [1, 3, 4], "model": "toy", "max_tokens": 4, "ignore_eos": True, "stream": True}
    spec = Spec(ops=request.ops, scope="all").as_json()
    for rank in range(ENGINES):
        headers = {"X-data-parallel-rank": str(rank)}
        answer = line.http.post("/v1/completions", json=body | {"vllm_xargs": {"sae": spec}}, headers=headers)
        last = [json.loads(event[6:]) for event in answer.text.splitlines() if event.startswith("data: {")][-1]
        assert last["applied"] == {"due": 6, "done": 6, "cached": 0}


def test_directions_sent_to_the_only_api_server_steer_on_every_engine_and_one_of_several_takes_none(replicas: Replicas) -> None:
    rows = open_sae(replicas.toy.params, "early").W_dec[[5]].numpy()
    (line,) = replicas.lines(1)
    answer = line.http.post("/v1/sae/directions", params={"name": "sent"}, content=save({"layer.1": rows}))
    if replicas.api_servers > 1:
        assert answer.status_code == 501
        assert "several API servers" in answer.json()["error"]["message"]
        return
    assert answer.status_code == 200, answer.text
    request = ask(ops=BOOST)
    expected = replicas.hf.generate([request])[0]
    body = {"model": "toy", "prompt": replicas.prompt(request), "max_tokens": 16, "temperature": 0, "return_token_ids": True}
    asked = {"ops": [{"op": "add", "sae": "sent", "i": 0, "v": 3.0, "layer": 1}]}
    for rank in range(ENGINES):
        headers = {"X-data-parallel-rank": str(rank)}
        sent = body | {"stop_token_ids": [2], "vllm_xargs": {"sae": json.dumps(asked)}}
        reply = line.http.post("/v1/completions", json=sent, headers=headers)
        assert reply.status_code == 200, reply.text
        assert tuple(reply.json()["choices"][0]["token_ids"]) == expected.token_ids, "one of an SAE's own rows"
        assert reply.json()["applied"]["due"] == expected.applied
        assert reply.json()["applied"]["directions"] == {"sent": answer.json()["sha256"]}
