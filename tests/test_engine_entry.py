"""Every way into an engine: a spec is applied as admission wrote it, or the request ends in a sentence, and the engine goes on."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_models import make_toy
from vllm import SamplingParams, TokensPrompt
from vllm.engine.protocol import StreamingInput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.output_processor import RequestOutputCollector

from esr.engine.plugin import FIELD, Spec
from esr.engine.vllm import VllmEngine
from esr.errors import SpecError
from esr.types import Op

pytestmark = pytest.mark.slow

STEERED = Spec(ops=(Op("add", 5, 6.0, 1, "early"),)).as_json()
PROMPT = tuple(range(10, 90))
"""Five blocks of the prefix cache."""


class Doors:
    """A running engine and the ways into it that pass by its own `generate`."""

    def __init__(self, engine: VllmEngine) -> None:
        self.engine, self.llm = engine, engine._engine

    def run(self, work: Any) -> Any:
        return self.engine._call(asyncio.wait_for(work, 60))

    def params(self, spec: str | None = None, **more: Any) -> SamplingParams:
        extra = {FIELD: spec} if spec else None
        return SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, extra_args=extra, **more)

    async def collect(self, prompt: Any, params: SamplingParams, prepare: Any = None) -> tuple[list[int], int]:
        """The reply, and how much of the prompt came from the cache."""
        tokens: list[int] = []
        cached = 0
        async for output in self.llm.generate(prompt, params, uuid.uuid4().hex):
            if params.output_kind == RequestOutputKind.DELTA:
                tokens += output.outputs[0].token_ids
            else:
                tokens = list(output.outputs[0].token_ids)
            cached = output.num_cached_tokens or 0
        return tokens, cached

    def plain(self, *, fresh: bool = False) -> list[int]:
        salt: Any = {"cache_salt": uuid.uuid4().hex} if fresh else {}
        return self.run(self.collect(TokensPrompt(prompt_token_ids=list(PROMPT), **salt), self.params()))[0]

    def built(self, params: SamplingParams, **more: Any) -> EngineCoreRequest:
        return EngineCoreRequest(**{
            "request_id": uuid.uuid4().hex, "prompt_token_ids": list(PROMPT), "mm_features": None, "sampling_params": params,
            "pooling_params": None, "arrival_time": time.time(), "lora_request": None, "cache_salt": None, "data_parallel_rank": None,
        } | more)  # fmt: skip

    async def send(self, request: EngineCoreRequest) -> str:
        """Straight to the engine's process, as a front end that is not vLLM's Python one does; the finish reason."""
        self.llm._run_output_handler()
        request.external_req_id = request.request_id
        queue = RequestOutputCollector(request.sampling_params.output_kind, request.request_id)
        self.llm.output_processor.add_request(request, None, None, 0, queue)
        await self.llm.engine_core.add_request_async(request)
        while True:
            output = await queue.get()
            if output.finished:
                return str(output.outputs[0].finish_reason)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    toy = make_toy(tmp_path_factory.mktemp("toy"), "llama")
    engine = VllmEngine(toy.params, toy.name)
    try:
        yield Doors(engine)
    finally:
        engine.close()


@pytest.fixture(autouse=True)
def nothing_is_left_in_the_cache(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test sends, a plain request afterwards is answered as under a salt of its own."""
    yield
    if "doors" in request.fixturenames:
        doors: Doors = request.getfixturevalue("doors")
        assert doors.plain() == doors.plain(fresh=True)
        doors.run(doors.llm.reset_prefix_cache())
        assert not doors.engine.closed


def test_what_vllm_s_own_front_end_lays_out_is_steered(doors: Doors) -> None:
    steered, _ = doors.run(doors.collect(TokensPrompt(prompt_token_ids=list(PROMPT)), doors.params(STEERED)))
    assert steered != doors.plain()


def test_a_request_without_admission_ends_in_an_error_and_the_engine_goes_on(doors: Doors) -> None:
    assert doors.run(doors.send(doors.built(doors.params(STEERED)))) == "error"
    assert doors.run(doors.send(doors.built(doors.params()))) == "length"


BROKEN = [
    '{"ops":[{"op":"add","sae":"early","i":96,"v":2.0,"layer":1}]}',
    '{"ops":[{"op":"scale","sae":"early","i":1,"v":2.0,"layer":1}]}',
    '{"ops":[{"op":"add","sae":"early","i":1,"v":2.0}]}',
    "[",
]


@pytest.mark.parametrize("spec", BROKEN, ids=["a latent too far", "an unknown kind", "no layer", "not JSON"])
def test_a_broken_spec_past_admission_does_not_end_the_engine(doors: Doors, spec: str) -> None:
    assert doors.run(doors.send(doors.built(doors.params(spec)))) == "error"


def admitted(doors: Doors, spec: str = STEERED) -> EngineCoreRequest:
    request: EngineCoreRequest = doors.llm.input_processor.process_inputs(
        uuid.uuid4().hex, TokensPrompt(prompt_token_ids=list(PROMPT)), doors.params(spec), supported_tasks=("generate",)
    )
    return request


@pytest.mark.parametrize(
    ("scope", "max_tokens", "says"),
    [("all after 100000", 8, "not among the model's"), ("generated[2000,)", 4000, "touches no position")],
)
def test_what_the_model_s_own_size_rules_out_is_refused(doors: Doors, scope: str, max_tokens: int, says: str) -> None:
    params = doors.params(Spec(ops=(Op("add", 5, 6.0, 1, "early"),), scope=scope).as_json())
    params.max_tokens = max_tokens
    with pytest.raises(SpecError, match=says):
        doors.run(doors.collect(TokensPrompt(prompt_token_ids=list(PROMPT)), params))


def test_a_plain_request_does_not_take_a_steered_one_s_salt(doors: Doors) -> None:
    salt = admitted(doors).cache_salt
    with pytest.raises(SpecError, match="choose another"):
        doors.run(doors.collect(TokensPrompt(prompt_token_ids=list(PROMPT), cache_salt=salt), doors.params()))


def test_a_mark_belongs_to_one_spec_one_salt_and_one_length(doors: Doors) -> None:
    assert doors.run(doors.send(admitted(doors))) == "length"
    for change in ({"cache_salt": None}, {"cache_salt": "mine"}, {"prompt_token_ids": list(PROMPT[:40])}):
        request = admitted(doors)
        for name, value in change.items():
            setattr(request, name, value)
        assert doors.run(doors.send(request)) == "error", change
    request = admitted(doors)
    assert request.sampling_params is not None
    assert request.sampling_params.extra_args is not None
    request.sampling_params.extra_args[FIELD] = request.sampling_params.extra_args[FIELD].replace("6.0", "7.0")
    assert doors.run(doors.send(request)) == "error"


@pytest.mark.parametrize("where", ["in it", "beside it"])
def test_a_request_built_by_hand_is_refused_in_a_sentence(doors: Doors, where: str) -> None:
    request = doors.built(doors.params(STEERED if where == "in it" else None))
    with pytest.raises(SpecError, match="came past admission" if where == "in it" else "was built before"):
        doors.run(doors.collect(request, doors.params(STEERED)))
    assert not doors.llm.output_processor.has_unfinished_requests()


def test_a_request_built_by_hand_and_admitted_is_steered(doors: Doors) -> None:
    steered, _ = doors.run(doors.collect(admitted(doors), doors.params(STEERED)))
    assert steered != doors.plain()


SESSIONS = {
    "the second chunk": (None, [None, STEERED]),
    "the first chunk": (None, [STEERED, None]),
    "the session": (STEERED, [None, None]),
    "all": (STEERED, [STEERED, STEERED]),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_of_streamed_inputs_takes_no_spec(doors: Doors, name: str) -> None:
    whole, chunks = SESSIONS[name]
    delta = {"output_kind": RequestOutputKind.DELTA}

    async def inputs() -> AsyncGenerator[StreamingInput, None]:
        for i, spec in enumerate(chunks):
            prompt = TokensPrompt(prompt_token_ids=list(PROMPT[40 * i : 40 * i + 40]))
            yield StreamingInput(prompt=prompt, sampling_params=doors.params(spec, **delta))
            await asyncio.sleep(0.2)

    with pytest.raises(SpecError, match="a session of streamed inputs takes no steering spec"):
        doors.run(doors.collect(inputs(), doors.params(whole, **delta)))


def test_a_plain_session_is_answered(doors: Doors) -> None:
    delta = {"output_kind": RequestOutputKind.DELTA}

    async def inputs() -> AsyncGenerator[StreamingInput, None]:
        for i in range(2):
            yield StreamingInput(prompt=TokensPrompt(prompt_token_ids=list(PROMPT[40 * i : 40 * i + 40])), sampling_params=None)

    assert doors.run(doors.collect(inputs(), doors.params(**delta)))[0]


def test_a_batch_file_s_lines_are_steered_each_as_it_asks(doors: Doors, tmp_path: Path) -> None:
    try:
        from vllm.entrypoints.launchers.run_batch import make_arg_parser, run_batch
    except ImportError:  # vLLM 0.26
        from vllm.entrypoints.openai.run_batch import make_arg_parser, run_batch
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    lines = []
    for spec in (None, STEERED, STEERED.replace("early", "erly")):
        body = {"model": "toy", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "temperature": 0}
        body |= {"vllm_xargs": {FIELD: spec}} if spec else {}
        lines.append(json.dumps({"custom_id": str(len(lines)), "method": "POST", "url": "/v1/chat/completions", "body": body}))
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    arguments = ["-i", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--served-model-name", "toy"]
    args = make_arg_parser(FlexibleArgumentParser()).parse_args([*arguments, "--model", doors.llm.model_config.model])
    doors.run(run_batch(doors.llm, args))
    plain, steered, unknown = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    said = [line["response"]["body"]["choices"][0]["message"]["content"] for line in (plain, steered)]
    assert said[0] != said[1]
    assert "no SAE 'erly'" in json.dumps(unknown["error"])
