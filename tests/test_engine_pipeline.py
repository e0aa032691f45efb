"""Two stages of a pipeline, each with some of the blocks, against the readable reference: token by token, whatever is asked.

Block 1 is the first stage's last: what its hook does goes to the second stage with the stream. Blocks 2 and 3 are the second's.
"""

import asyncio
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mixed_requests import SAMPLING, rich, write_moods
from prometheus_client import REGISTRY
from safetensors.numpy import save_file
from test_engine_parity import agree, mixed
from test_engine_turns import MORE, OPS, Talks
from tiny_models import WIDTH, make_toy

from esr.engine import Capture, Output, Request
from esr.engine.hf import HfEngine
from esr.engine.plugin import FIELD, Spec
from esr.engine.plugin.desk import Desk
from esr.engine.plugin.records import BROKEN
from esr.engine.vllm import VllmEngine
from esr.errors import EngineError
from esr.types import Op, Sampling

pytestmark = pytest.mark.slow

FIRST, SECOND = Op("add", 7, 9.0, 1, "early"), Op("clamp", 3, 4.0, 2, "late")
LARGE = (Op("add", 0, 1e9, 1, "huge"),)
"""More than float32 holds when it is squared, after a block of the first stage."""


def counter(name: str) -> float:
    return sum(s.value for m in REGISTRY.collect() for s in m.samples if s.name == name)


class Pipeline(Talks):
    def same(self, requests: list[Request], found: list[Output]) -> None:
        for request, got in zip(requests, found, strict=True):
            want = self.wanted(request)
            assert (got.token_ids, got.finish_reason, got.applied) == (want.token_ids, want.finish_reason, want.applied), request
            if request.capture is not None:
                agree(got, want, request)

    def asked(self, method: str, *args: object) -> list[Any]:
        """What each worker answers."""
        return list(self.engine._call(self.engine._engine.collective_rpc(method, args=args)))


def load(pair: Pipeline, folder: Path) -> None:
    save_file({"layer.1": np.full(WIDTH, 1e12, np.float32)}, folder / "huge.safetensors")
    for name, file in (("moods", write_moods(folder)), ("huge", folder / "huge.safetensors")):
        assert pair.engine.load_directions(name, file) == pair.reference.load_directions(name, file)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("llama")
    toy = make_toy(folder)
    cores = sorted(os.sched_getaffinity(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", f"{cores[0]}|{cores[-1]}")
        engine = VllmEngine(
            toy.params, toy.name, layers=(3,), enforce_eager=True, pipeline_parallel_size=2, max_model_len=320, max_num_seqs=8,
            max_num_batched_tokens=40, block_size=32, num_gpu_blocks_override=16, enable_prefix_caching=True, disable_log_stats=False,
        )  # fmt: skip
    try:
        pair = Pipeline(engine, HfEngine.open(toy.params, toy.name))
        load(pair, folder)
        yield pair
    finally:
        engine.close()


def test_every_op_scope_schedule_and_capture_is_the_reference_token_by_token(two: Pipeline) -> None:
    residual = [Request(prompt="What passes block 3?", sampling=SAMPLING, ops=(FIRST, SECOND), capture=Capture(layer=3, mode="residual", stage=stage)) for stage in ("before", "after")]  # fmt: skip
    requests = [*mixed(24), *rich(40), *residual]
    before = counter("vllm:num_preemptions_total")
    two.same(requests, two.engine.generate(requests))
    order = random.Random(3).sample(requests, 30)
    two.same(order, two.engine.generate(order))
    assert counter("vllm:num_preemptions_total") > before, "the cache was meant to be too small"
    assert two.engine._engine.vllm_config.max_concurrent_batches == 2, "two steps were meant to be under way at once"


def test_the_turns_of_conversations_share_the_prefix_cache_and_no_steered_block(two: Pipeline) -> None:
    talked = [
        two.conversation((*OPS, *MORE[:3]), scopes) for scopes in (("all",) * 3, ("prompt",) * 3, ("generated", "[20,)", "all"))
    ]
    talked.append([replace(turn, ops=(), scope="all") for turn in talked[0]])
    before = counter("vllm:prefix_cache_hits_total")
    rounds = [[turns[i] for turns in talked] for i in (0, 1, 2, 1, 0)]
    assert not two.wrong(*rounds)
    assert counter("vllm:prefix_cache_hits_total") > before, "turns are meant to read what others left"


@pytest.mark.parametrize("op", [FIRST, SECOND], ids=["first stage", "second stage"])
def test_readings_and_single_ops_of_either_stage(two: Pipeline, op: Op) -> None:
    reading = Capture(layer=op.layer, sae=op.sae, mode="topk", k=3, stage="after")
    request = Request(prompt="Why?", prefill=" Because.", sampling=SAMPLING, ops=(op,), capture=reading)
    [got], [want] = two.engine.read([request]), two.reference.read([request])
    assert np.array_equal(got.positions, want.positions)
    assert np.abs(got.values - want.values).max() < 1e-4
    two.same([request], two.engine.generate([request]))


def test_a_seed_draws_the_same_tokens_whatever_else_is_under_way(two: Pipeline) -> None:
    drawn = Sampling(temperature=0.8, top_p=1, repetition_penalty=1.1, max_tokens=16)
    requests = [replace(request, sampling=drawn, seed=i, capture=None) for i, request in enumerate(mixed(9, seed=11))]
    together = [output.token_ids for output in two.engine.generate(requests)]
    assert [two.engine.generate([request])[0].token_ids for request in reversed(requests)] == together[::-1]
    assert len(set(together)) == len(requests)


def test_a_stream_that_breaks_at_the_first_stage_ends_its_request_and_no_other(two: Pipeline) -> None:
    good = [replace(request, capture=None) for request in mixed(6)]
    with pytest.raises(EngineError, match="left float32"):
        two.engine.generate([Request(prompt="Too much", sampling=SAMPLING, ops=LARGE)])

    async def beside() -> tuple[list[Output], str]:
        """Under vLLM's own front end, which asks the workers for no counts."""
        broken = asyncio.ensure_future(finish(two, Spec(ops=LARGE, id="broken")))
        outputs = await two.engine._gather([two.engine._generate(request, *two.engine._plan(request)) for request in good])
        return outputs, await broken

    outputs, ended = two.engine._call(beside())
    assert ended == "error"
    two.same(good, outputs)
    assert [answer[0]["error"] for answer in two.asked("esr_take", ["broken"], [None])] == [BROKEN, None]


async def finish(two: Pipeline, spec: Spec) -> str:
    from vllm import SamplingParams, TokensPrompt

    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, detokenize=False, extra_args={FIELD: spec.as_json()})
    async for output in two.engine._engine.generate(
        TokensPrompt(prompt_token_ids=list(range(5, 60))), params, request_id=f"vllm-{spec.id}"
    ):
        reason = output.outputs[0].finish_reason
    return str(reason)


def test_a_server_s_desk_adds_up_what_the_stages_counted(two: Pipeline) -> None:
    """Replies that no step preempts stay on the device throughout, while the steps under way hold some of the requests each."""
    spec = Spec(ops=(FIRST, SECOND), capture=Capture(layer=1, sae="early", mode="latents", latents=(7,)))
    names, desk = ["a", "b", "c"], Desk(two.engine._engine)

    async def served() -> list[Any]:
        assert await asyncio.gather(*(finish(two, replace(spec, id=name)) for name in names)) == ["length"] * 3
        counts = await asyncio.gather(*(desk.count(name, keep=True) for name in names))
        return [*counts, *[await desk.take(name, 55 + 23) for name in names], await desk.take("a", None), await desk.limits()]

    *answers, gone, limits = two.engine._call(served())
    due = 2 * (55 + 23)
    for name, count, taken in zip(names, answers[:3], answers[3:], strict=True):
        assert count == {"request": count["request"], "executed": due, "expected": due, "stays": 1, "error": None}, name
        assert (taken["executed"], taken["stays"], taken["error"]) == (due, 1, None)
        assert taken["capture"]["shape"] == [55 + 23, 1]
    assert gone is None
    assert limits["now"]["live"] == 0


def test_nothing_is_left_behind_at_either_stage(two: Pipeline) -> None:
    two.engine.generate(mixed(8, seed=11))
    empty = ("live", "records", "held_bytes", "nonzero", "pending", "unchecked")
    ranks = two.asked("esr_stats")
    assert len(ranks) == 2
    assert [{key: rank[key] for key in empty} for rank in ranks] == [dict.fromkeys(empty, 0)] * 2
    assert [rank["directions"] for rank in ranks] == [2, 2]


@pytest.mark.gpu
@pytest.mark.parametrize(("runner", "mode"), [("V2", "graphs"), ("V2", "eager"), ("V1", "graphs")])
def test_two_gpus_are_a_pipeline_as_two_processes_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: str, mode: str
) -> None:
    """vLLM's V2 runner works under asynchronous scheduling and hands what was drawn to the first stage from device to device; the V1 runner
    does not, and is started without it."""
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU here")
    monkeypatch.setenv("TRITON_F32_DEFAULT", "ieee")
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", str(int(runner == "V2")))
    toy = make_toy(tmp_path)
    engine = VllmEngine(
        toy.params, toy.name, enforce_eager=mode == "eager", pipeline_parallel_size=2, max_model_len=320, max_num_seqs=32,
        max_num_batched_tokens=256, gpu_memory_utilization=0.1, kv_cache_memory_bytes=1 << 28,
        **({} if runner == "V2" else {"async_scheduling": False}),
    )  # fmt: skip
    try:
        assert bool(engine._engine.vllm_config.use_v2_model_runner) is (runner == "V2")
        pair = Pipeline(engine, HfEngine.open(toy.params, toy.name))
        load(pair, tmp_path)
        requests = [*mixed(24), *rich(64)]
        pair.same(requests, engine.generate(requests))
        pair.same(requests[::-1], engine.generate(requests[::-1]))
        assert not pair.wrong(*([turn] for turn in pair.conversation(OPS, ("generated", "prompt", "all"))))
        with pytest.raises(EngineError, match="left float32"):
            engine.generate([Request(prompt="Too much", sampling=SAMPLING, ops=LARGE)])
        pair.same(requests[:8], engine.generate(requests[:8]))
    finally:
        engine.close()
