"""What the server's middleware lets through, holds back and refuses; routes and engine are stand-ins, the middleware is the real one."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esr.engine.plugin import wire
from esr.engine.plugin.desk import Desk
from esr.engine.plugin.door import Door, owner, spliced, streamed
from esr.engine.plugin.records import BROKEN
from esr.engine.plugin.spec import Spec
from esr.engine.plugin.tally import NOW, Sequence
from esr.errors import SpecError
from esr.types import Op

ADD = Op("add", 5, 2.0, 1, "early")
ASKED = {"vllm_xargs": {"sae": Spec(ops=(ADD,)).as_json()}}
N_PROMPT, N_REPLY = 5, 4
DUE = N_PROMPT + N_REPLY - 1


def two_ranks(additional: Any) -> Any:
    """Tensor parallel; the second one's answers count for nothing."""
    parallel = SimpleNamespace(tensor_parallel_size=2, pipeline_parallel_size=1)
    return SimpleNamespace(additional_config=additional, parallel_config=parallel)


class Core:
    """An engine of as many data-parallel ones as asked for; each request is known to the last only."""

    def __init__(self, engines: int = 1, **counts: Any) -> None:
        self.core_engines = list(range(engines))
        self.engine_core = self
        self.vllm_config: Any = two_ranks(None)
        self.counts = {"request": "r0", "executed": DUE, "expected": DUE, "stays": 1, "error": None} | counts
        self.calls: list[tuple[Any, ...]] = []

    async def collective_rpc(self, method: str, args: tuple[Any, ...]) -> list[Any]:
        self.calls.append((method, *args))
        if method == "esr_stats":
            return [{"live": 2}, {"live": 2}]
        return [[dict(self.counts) for _ in args[0]], None] if method == "esr_count" else [None, None]

    async def _call_utility_async(self, _: str, method: str, timeout: None, args: Any, kwargs: None, *, engine: int) -> list[Any]:
        answers = await self.collective_rpc(method, args)
        return answers if engine == self.core_engines[-1] or not args else [[None for _ in args[0]]]


def steer() -> None:
    """What admission and the engine do for a request that is honoured."""
    tally = NOW.get()
    assert tally is not None
    tally.sequences["cmpl", 0] = Sequence("r0", "r0", False, Spec(ops=(ADD,)), [1] * N_PROMPT, {}, 0, [2] * N_REPLY)


async def events(*texts: str) -> AsyncIterator[str]:
    for text in texts:
        yield text


def server(core: Core | None = None) -> TestClient:
    app = FastAPI()
    app.add_middleware(Door)
    app.state.engine_client = core or Core()

    @app.post("/drops")
    async def drops(body: dict[str, Any]) -> dict[str, str]:
        return {"text": "unsteered"}

    @app.post("/drops/stream")
    async def drops_stream(body: dict[str, Any]) -> StreamingResponse:
        return StreamingResponse(events("data: {}\n\n"), media_type="text/event-stream")

    @app.post("/raw")
    async def raw(request: Request) -> dict[str, str]:
        await request.json()
        return {"text": "unsteered"}

    @app.post("/steers")
    async def steers(body: dict[str, Any]) -> JSONResponse:
        if "vllm_xargs" in body:
            steer()
        return JSONResponse({"text": "é}", "last": None})

    @app.post("/stream")
    async def stream(body: dict[str, Any]) -> StreamingResponse:
        async def reply() -> AsyncIterator[str]:
            steer()
            for event in body["events"]:
                yield event

        return StreamingResponse(reply(), media_type="text/event-stream")

    @app.post("/fails")
    async def fails(body: dict[str, Any]) -> JSONResponse:
        return JSONResponse({"error": {"message": "no"}}, status_code=404)

    return TestClient(app)


@pytest.mark.parametrize("path", ["/drops", "/drops/stream", "/raw"])
def test_a_route_that_drops_a_spec_is_a_400_and_one_without_is_left_alone(path: str) -> None:
    client = server()
    assert client.post(path, json={"prompt": "steering and sae"}).status_code == 200
    answer = client.post(path, json=ASKED)
    assert answer.status_code == 400
    assert "drops the steering spec" in answer.json()["error"]["message"]


def test_a_reply_keeps_its_bytes_and_gets_one_field() -> None:
    core = Core()
    client = server(core)
    plain = client.post("/steers", json={})
    answer = client.post("/steers", json=ASKED)
    assert answer.content.startswith(plain.content[:-1])
    assert answer.json()["applied"] == {"due": DUE, "done": DUE, "cached": 0}
    assert core.calls == [("esr_count", ["r0"], [False])]


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"executed": DUE - 1}, "applied 7 times where 8 were due"),
        ({"executed": 2, "expected": 2}, "due 8 times outside the prefix cache was applied 2 times"),
        ({"request": "another"}, "was its `id` used for another"),
        ({"error": BROKEN}, "left float32"),
    ],
)
def test_a_reply_that_was_not_steered_as_due_is_an_error(counts: dict[str, Any], says: str) -> None:
    client = server(Core(**counts))
    answer = client.post("/steers", json=ASKED)
    assert answer.status_code == 500
    assert says in answer.json()["error"]["message"]
    streamed = client.post("/stream", json=ASKED | {"events": CHAT})
    assert says in json.loads(streamed.text.strip().split("data: ")[-1])["error"]["message"]
    assert "[DONE]" not in streamed.text


CHAT = [
    'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n',
    'data: {"choices":[{"delta":{"content":"b"},"finish_reason":"stop"}]}\n\n',
    "data: [DONE]\n\n",
]
USAGE = [*CHAT[:2], 'data: {"choices":[],"usage":{"total_tokens":3}}\n\n', CHAT[2]]
TWO = [CHAT[1], CHAT[0], CHAT[1], CHAT[2]]
TOGETHER = ["".join(CHAT)]
MESSAGES = ['event: message_delta\ndata: {"type":"message_delta"}\n\n', 'event: message_stop\ndata: {"type":"message_stop"}\n\n']
RESPONSES = ['event: x\ndata: {"type":"x"}\n\n', 'event: response.completed\ndata: {"type":"response.completed"}\n\n']


@pytest.mark.parametrize(
    "sent", [CHAT, USAGE, TWO, TOGETHER, MESSAGES, RESPONSES], ids=["chat", "usage", "two", "one", "messages", "responses"]
)
def test_the_last_event_of_a_stream_says_what_was_applied_and_all_else_is_as_it_was(sent: list[str]) -> None:
    answer = server().post("/stream", json=ASKED | {"events": sent}).text
    applied = f', "applied": {json.dumps({"due": DUE, "done": DUE, "cached": 0})}'
    assert answer.replace(applied, "") == "".join(sent)
    assert answer.count(applied) == 1
    last = [line for line in answer.splitlines() if line.startswith("data: {")][-1]
    assert last.endswith(applied + "}")


def test_an_error_of_the_route_stays_what_it_is() -> None:
    assert server().post("/fails", json=ASKED).status_code == 404
    assert server().post("/nowhere", json=ASKED).status_code == 404


def test_counts_are_asked_of_every_data_parallel_engine() -> None:
    answer = server(Core(engines=3)).post("/steers", json=ASKED)
    assert answer.json()["applied"]["done"] == DUE


def test_a_rank_is_not_an_engine() -> None:
    import asyncio

    for engines in (1, 3):
        core = Core(engines)
        core.vllm_config = two_ranks(None)
        assert asyncio.run(Desk(core).limits())["now"] == {"live": 2 * engines}


def test_what_many_wait_for_is_asked_for_together() -> None:
    import asyncio

    core = Core()

    async def all_of_them() -> list[Any]:
        desk = Desk(core)
        return await asyncio.gather(*(desk.count(str(i), keep=False) for i in range(300)))

    assert len(asyncio.run(all_of_them())) == 300
    assert len(core.calls) <= 3


def test_nobody_asks_for_what_a_client_that_left_was_owed() -> None:
    core = Core()
    app = FastAPI()
    app.add_middleware(Door)
    app.state.engine_client = core

    @app.post("/breaks")
    async def breaks(body: dict[str, Any]) -> None:
        steer()
        raise RuntimeError("the client has gone")

    with pytest.raises(RuntimeError):
        TestClient(app).post("/breaks", json=ASKED)
    assert core.calls == [("esr_forget", ["r0"])]


def test_an_owner_is_a_key() -> None:
    def asked(**headers: str) -> dict[str, Any]:
        return {"headers": [(name.encode(), value.encode()) for name, value in headers.items()]}

    assert (
        owner(asked(authorization="Bearer a")) == owner(asked(Authorization="Bearer a")) != owner(asked(authorization="Bearer b"))
    )
    assert owner(asked()) == owner(asked(accept="x"))


PLAIN = [
    {"messages": [{"role": "user", "content": "sae"}]},
    {"prompt": "x", "metadata": {"sae": "l19"}},
    {"tools": [{"parameters": {"properties": {"sae": {"type": "string"}}}}]},
    {"vllm_xargs": {"safe": 1, "seed": 2, "steps": 3}},
    {"response_format": {"sae": {}}},
    {"sampling_params": {"extra_args": {"safe": True}}},
]


@pytest.mark.parametrize("body", PLAIN)
def test_a_body_that_only_speaks_of_it_asks_for_nothing(body: dict[str, Any]) -> None:
    assert not wire.asks(json.dumps(body).encode(), "application/json")


def test_a_body_that_asks_is_seen_however_it_is_spelt() -> None:
    for text in (
        json.dumps(ASKED),
        json.dumps(ASKED).replace('"sae"', '"\\u0073ae"'),
        '{"sampling_params": {"extra_args": {"sae": 7}}}',
    ):
        assert wire.asks(text.encode(), "application/json")
    assert wire.asks(b'--x\r\nname="vllm_xargs"\r\n\r\n{"sae": "{}"}', "multipart/form-data; boundary=x")


@pytest.mark.parametrize("key", ["SAE", "Sae", " sae ", "saes", "sae_spec", "sae-steering", "steering"])
def test_a_key_that_is_nearly_the_plugin_s_is_refused_with_the_nearest(key: str) -> None:
    with pytest.raises(SpecError, match="nearest: sae"):
        wire.check_keys({key: "{}"}, "extra_args")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200))
def test_a_body_of_any_bytes_is_judged_without_a_crash(body: bytes) -> None:
    with suppress(SpecError):
        wire.asks(body, "application/json")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4))
def test_splicing_adds_one_field_and_changes_none(block: dict[str, Any]) -> None:
    block.pop("applied", None)
    found = json.loads(spliced(json.dumps(block).encode(), {"due": 1}))
    assert found == block | {"applied": {"due": 1}}


def test_an_event_that_is_no_object_is_left_alone() -> None:
    assert streamed(b"data: [DONE]\n\n", {"due": 1}) == b"data: [DONE]\n\n"


def test_a_server_without_the_steering_plugin_does_not_offer_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    """VLLM_PLUGINS=esr_captures alone."""
    from vllm.v1.engine.input_processor import InputProcessor

    from esr.engine.plugin import register
    from esr.engine.plugin.endpoint import Captures
    from esr.errors import EngineError

    register()
    Captures().attach_router(FastAPI())
    plain: Callable[..., Any] = InputProcessor.process_inputs.__wrapped__
    monkeypatch.setattr(InputProcessor, "process_inputs", plain)
    with pytest.raises(EngineError, match="name both: esr,esr_captures"):
        Captures().attach_router(FastAPI())


def test_the_command_line_of_a_server_gets_the_middleware_once(tmp_path: Path) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    from esr.engine.plugin import DOOR, register

    register()
    args = SimpleNamespace(model=str(tmp_path), middleware=["mine.Middleware"])
    for _ in range(2):
        AsyncEngineArgs.from_cli_args(args)
        assert args.middleware == [DOOR, "mine.Middleware"]
    AsyncEngineArgs.from_cli_args(SimpleNamespace(model=str(tmp_path)))


def test_a_line_of_a_batch_is_judged_as_a_request_is(tmp_path: Path) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    try:
        from vllm.entrypoints.launchers.run_batch import BatchRequestInput
    except ImportError:  # vLLM 0.26
        from vllm.entrypoints.openai.run_batch import BatchRequestInput

    from esr.engine.plugin import register

    register()
    AsyncEngineArgs.from_cli_args(SimpleNamespace(model=str(tmp_path)))
    body = {"model": "x", "messages": [{"role": "user", "content": "sae"}]}

    def line(**more: Any) -> str:
        return json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body | more})

    for text in (line(), line(**ASKED)):
        assert BatchRequestInput.model_validate_json(text).custom_id == "1"
    for text, says in (
        (line(sae="{}"), "goes into vllm_xargs.sae"),
        (line(vllm_xargs={"SAE": "{}"}), "nearest: sae"),
        (line(**ASKED).replace('"vllm_xargs": {', '"vllm_xargs": {"sae": "{}", '), "has the key 'sae' twice"),
    ):
        with pytest.raises(SpecError, match=says):
            BatchRequestInput.model_validate_json(text)


@pytest.mark.parametrize(("allowed", "servers", "status"), [(0, 1, 403), (64, 2, 501), (64, 1, 413)])
def test_directions_come_over_http_only_where_they_were_allowed(allowed: int, servers: int, status: int) -> None:
    from esr.engine.plugin import KEY
    from esr.engine.plugin.endpoint import load

    core = Core()
    core.vllm_config = two_ranks({KEY: {"layers": [1], "http_directions": allowed}})
    app = FastAPI()
    app.state.engine_client, app.state.args = core, SimpleNamespace(api_server_count=servers)
    app.add_api_route("/v1/sae/directions", load, methods=["POST"], response_model=None)
    assert TestClient(app).post("/v1/sae/directions?name=a", content=b"x" * 65).status_code == status
    assert core.calls == []
