"""One engine for many checkpoints and for every op: adapters, directions and all interventions in one batch, against the reference."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mixed_requests import SAMPLING, rich, write_moods
from safetensors.numpy import save_file
from test_engine_entry import Doors, admitted
from tiny_models import Toy, make_toy

from esr.engine import Capture, Output, Request
from esr.engine.adapter import Adapter
from esr.engine.hf import HfEngine
from esr.engine.open import close_engine, open_engine
from esr.engine.plugin import Spec
from esr.engine.vllm import VllmEngine
from esr.errors import EngineError, SpecError
from esr.types import Op

BOOST = (Op("add", 7, 9.0, 1, "early"),)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def adapters(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two checkpoints of one model, as folders, and none."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folders = [""]
    for seed in (5, 6):
        torch.manual_seed(seed)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(toy.folder, dtype=torch.float32),
            LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "up_proj", "down_proj"], init_lora_weights=False),
        )
        folders.append(str(tmp_path_factory.mktemp("adapter") / str(seed)))
        model.save_pretrained(folders[-1])
    return folders


@pytest.fixture(scope="module")
def moods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moods(tmp_path_factory.mktemp("moods"))


@pytest.fixture(scope="module")
def reference(toy: Toy, moods: Path) -> HfEngine:
    engine = HfEngine.open(toy.params, toy.name)
    engine.load_directions("moods", moods)
    return engine


@pytest.fixture(scope="module")
def engine(toy: Toy, moods: Path) -> Iterator[VllmEngine]:
    engine: Any = open_engine(
        toy.params, toy.name, "vllm", enforce_eager=True, max_model_len=256, max_num_seqs=16, max_num_batched_tokens=48, block_size=32,
        num_gpu_blocks_override=40, enable_lora=True, max_loras=2, max_lora_rank=8,
    )  # fmt: skip
    sha = engine.load_directions("moods", moods)
    assert engine.load_directions("moods", moods) == sha, "equal content again is nothing new"
    yield engine
    close_engine(engine)
    assert engine.closed
    with pytest.raises(EngineError, match="closed"):
        engine.generate([Request(prompt="Yes?", sampling=SAMPLING)])


def agree(found: list[Output], wanted: list[Output], requests: list[Request]) -> None:
    for got, want, request in zip(found, wanted, requests, strict=True):
        assert (got.token_ids, got.applied, got.directions) == (want.token_ids, want.applied, want.directions), request
        if want.reading is not None:
            assert got.reading is not None
            assert np.array_equal(got.reading.positions, want.reading.positions)
            assert np.abs(got.reading.values - want.reading.values).max() < 2e-4 * max(1.0, np.abs(want.reading.values).max()), (
                request
            )


def test_every_op_scope_schedule_condition_and_capture_is_the_reference_s_in_any_order(
    engine: VllmEngine, reference: HfEngine
) -> None:
    requests = rich(200)
    wanted = reference.generate(requests)
    agree(engine.generate(requests), wanted, requests)
    order = random.Random(1).sample(range(len(requests)), len(requests))
    agree(engine.generate([requests[i] for i in order]), [wanted[i] for i in order], [requests[i] for i in order])
    assert len({output.token_ids for output in wanted}) > 150


def test_many_checkpoints_answer_steered_in_one_batch(engine: VllmEngine, reference: HfEngine, adapters: list[str]) -> None:
    prompt = "The same long question to each of them, so that its blocks are in the prefix cache. "
    reading = Capture(layer=2, sae="late", mode="latents", latents=(3, 5))
    requests = [
        Request(prompt=prompt, sampling=SAMPLING, ops=ops, adapter=adapter, capture=capture)
        for adapter in adapters for ops in ((), BOOST) for capture in (None, reading)
    ]  # fmt: skip
    wanted = reference.generate(requests)
    assert len({output.token_ids for output in wanted}) == 6, "three checkpoints, plain and steered, must differ"
    for _ in range(2):
        agree(engine.generate(requests), wanted, requests)
        agree(engine.generate(requests[::-1]), wanted[::-1], requests[::-1])
    read = [replace(request, prefill=" It is so.") for request in requests if request.capture]
    for got, want in zip(engine.read(read), reference.read(read), strict=True):
        assert np.abs(got.values - want.values).max() < 1e-4


def test_a_row_without_an_adapter_is_not_the_last_adapter_s() -> None:
    from vllm.lora.ops.torch_ops import lora_ops

    from esr.engine.plugin.bare_rows import leave_bare

    leave_bare()
    out, slots = torch.ones(3, 2), torch.tensor([0, -1, 1])
    lora_ops.bgmv_shrink(torch.ones(3, 4), torch.ones(2, 2, 4), out, slots)
    assert out.tolist() == [[4, 4], [0, 0], [4, 4]]


def test_an_adapter_that_cannot_be_served_is_refused_and_the_engine_lives(engine: VllmEngine, tmp_path: Path) -> None:
    asked = Request(prompt="Yes?", sampling=SAMPLING)
    (tmp_path / "adapter_config.json").write_text('{"r": 64}')
    for folder, says in (("nowhere", "no adapter at"), (str(tmp_path), "no adapter at")):
        with pytest.raises(SpecError, match=says):
            engine.generate([replace(asked, adapter=folder)])
    save_file({"x": np.zeros(2, np.float32)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(SpecError, match="max_lora_rank"):
        engine.generate([replace(asked, adapter=str(tmp_path))])
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "peft_type": "LORA", "lora_alpha": 4, "target_modules": ["q_proj"]}')
    with pytest.raises(SpecError, match="cannot serve the adapter"):
        engine.generate([replace(asked, adapter=str(tmp_path))])
    assert engine.generate([asked])[0].token_ids


def test_an_adapter_is_known_by_its_content(adapters: list[str], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in Path(adapters[1]).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert Adapter.of(str(copy)).name == Adapter.of(adapters[1]).name != Adapter.of(adapters[2]).name


def test_a_dose_that_breaks_the_stream_is_an_error_and_the_others_go_on(
    engine: VllmEngine, reference: HfEngine, tmp_path: Path
) -> None:
    save_file({"layer.1": np.full(64, 1e12, np.float32)}, tmp_path / "huge.safetensors")
    good = Request(prompt="Yes?", sampling=SAMPLING, ops=BOOST)
    for one in (engine, reference):
        one.load_directions("huge", tmp_path / "huge.safetensors")
        for scope in ("all", "generated"):
            with pytest.raises(EngineError, match="left float32"):
                one.generate([good, replace(good, ops=(Op("add", 0, 1e9, 1, "huge"),), scope=scope)])
    agree(engine.generate([good]), reference.generate([good]), [good])


@pytest.mark.parametrize("max_tokens", [1, 12])
def test_nobody_reads_what_a_broken_stream_left_in_the_cache(engine: VllmEngine, tmp_path: Path, max_tokens: int) -> None:
    save_file({"layer.1": np.full(64, 1e12, np.float32)}, tmp_path / "vast.safetensors")
    engine.load_directions("vast", tmp_path / "vast.safetensors")
    some = replace(SAMPLING, max_tokens=max_tokens)
    tokens = tuple(range(10, 90))
    bad = Request(token_ids=tokens, sampling=some, ops=(Op("add", 0, 1e9, 1, "vast"),), scope="[0,16)")
    plain = Request(token_ids=tokens, sampling=some)
    wanted = engine.generate([plain])[0].token_ids
    for _ in range(3):
        with pytest.raises(EngineError, match=r"left float32|ended it with 'error'"):
            engine.generate([bad, bad])
    assert engine.generate([plain])[0].token_ids == wanted


def test_requests_that_read_what_a_broken_stream_cached_end_with_it(engine: VllmEngine, tmp_path: Path) -> None:
    """The second comes while the first is on its way, when nobody knows yet that its stream has broken."""
    save_file({"layer.1": np.full(64, 1e12, np.float32)}, tmp_path / "vast.safetensors")
    engine.load_directions("vast", tmp_path / "vast.safetensors")
    doors = Doors(engine)
    breaking = Spec(ops=(Op("add", 0, 1e9, 1, "vast"),), scope="[0,16)").as_json()

    async def both(late: float) -> list[str]:
        first = asyncio.ensure_future(doors.send(admitted(doors, breaking)))
        await asyncio.sleep(late)
        second = asyncio.ensure_future(doors.send(admitted(doors, breaking)))
        other = asyncio.ensure_future(doors.send(admitted(doors)))
        return [await one for one in (first, second, other)]

    for tenth in range(0, 60, 2):
        assert doors.run(both(tenth / 10_000)) == ["error", "error", "length"], tenth


def test_a_request_that_would_be_answered_unsteered_is_refused(engine: VllmEngine) -> None:
    asked = Request(prompt="Yes?", sampling=SAMPLING, ops=BOOST)
    for bad in (
        replace(asked, scope="[4000,5000)"), replace(asked, scope="[99999,)"), replace(asked, ops=(Op("add", 7, 1e-60, 1, "early"),)),
        replace(asked, ops=(Op("add", 7, 3e38, 1, "early"),)), replace(asked, ops=(Op("add", 7, 1.0, 1, "nowhere"),)),
        replace(asked, ops=(Op("clamp", 7, 1.0, 1, "moods"),)), replace(asked, ops=(Op("add", 99, 1.0, 1, "moods"),)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"touches no position|32 bits|finite|no SAE|no activation|no direction"):
            engine.generate([bad])


def test_engines_can_be_let_go_one_by_one(toy: Toy) -> None:
    first = open_engine(toy.params, toy.name, "hf")
    assert open_engine(toy.params, toy.name, "hf") is first
    close_engine(first)
    assert first.closed
    second = open_engine(toy.params, toy.name, "hf")
    assert second is not first
    assert second.generate([Request(prompt="Yes?", sampling=SAMPLING)])[0].token_ids
    close_engine(second)


def test_nothing_is_left_behind(engine: VllmEngine) -> None:
    engine.generate(rich(8, seed=9))
    stats = engine.stats()
    assert {key: stats[key] for key in ("live", "records", "held_bytes", "nonzero", "pending", "unchecked")} == dict.fromkeys(
        ("live", "records", "held_bytes", "nonzero", "pending", "unchecked"), 0
    )
