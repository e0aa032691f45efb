"""A compiled engine is the reference token by token: over everything a request may say, in conversations, by thousands of directions."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mixed_requests import rich, write_moods
from safetensors.numpy import save_file
from test_engine_served import agree
from test_engine_turns import Talks, clear, random_turns, right_in_every_order
from tiny_models import WIDTH, Toy, make_toy

from esr.engine import Request
from esr.engine.hf import HfEngine
from esr.engine.options import sites_for
from esr.engine.plugin import KEY
from esr.engine.vllm import VllmEngine
from esr.errors import EngineError
from esr.types import Op, Sampling

pytestmark = pytest.mark.slow

MANY, HELD = 4000, 4096
"""Directions of one set, and rows kept free for all sets."""
SAMPLING = Sampling(temperature=0, top_p=1, repetition_penalty=1, max_tokens=24)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 4,000 directions after block 1."""
    file = tmp_path_factory.mktemp("many") / "many.safetensors"
    save_file({"direction.1": np.random.default_rng(2).normal(size=(MANY, WIDTH)).astype(np.float32)}, file)
    return file


@pytest.fixture(scope="module")
def talks(toy: Toy, many: Path) -> Iterator[Talks]:
    sites = replace(sites_for(toy.params, toy.name), max_directions=HELD)
    engine = VllmEngine(
        toy.params, toy.name, enforce_eager=False, max_model_len=320, max_num_seqs=16, max_num_batched_tokens=96, block_size=32,
        enable_prefix_caching=True, disable_log_stats=False, num_gpu_blocks_override=200, additional_config={KEY: sites.as_config()},
    )  # fmt: skip
    try:
        reference = HfEngine.open(toy.params, toy.name)
        moods = write_moods(many.parent)
        for one in (engine, reference):
            one.load_directions("moods", moods)
            one.load_directions("many", many)
        yield Talks(engine, reference)
    finally:
        engine.close()


def test_the_engine_is_compiled(talks: Talks) -> None:
    from vllm.config import CompilationMode

    config = talks.engine._engine.vllm_config
    assert not config.model_config.enforce_eager
    assert config.compilation_config.mode != CompilationMode.NONE
    assert config.compilation_config.backend == "inductor"


def test_every_op_scope_schedule_condition_and_capture_is_the_reference_s_in_any_order(talks: Talks) -> None:
    requests = rich(200)
    wanted = talks.reference.generate(requests)
    agree(talks.engine.generate(requests), wanted, requests)
    order = random.Random(1).sample(range(len(requests)), len(requests))
    agree(talks.engine.generate([requests[i] for i in order]), [wanted[i] for i in order], [requests[i] for i in order])


def test_the_three_turns_of_a_conversation_are_right_under_every_scope_in_every_order(talks: Talks) -> None:
    right_in_every_order(talks)


def test_random_conversations_are_what_they_are_without_a_prefix_cache(talks: Talks) -> None:
    clear(talks)
    turns = random_turns(talks, 0, 40)
    assert not talks.wrong(turns[:10], turns[10:20], turns[20:30], turns[30:])
    assert not talks.wrong(random.Random(0).sample(turns, len(turns)))


def test_each_of_thousands_of_directions_is_its_own(talks: Talks, many: Path) -> None:
    """The first, one in the middle and its neighbour, the last, by every op that takes a direction."""
    kinds = {"add": 1.5, "add_norm": 0.8, "project_out": 2.0, "clamp_projection": 6.0}
    requests = [
        Request(prompt="Which of them is it?", sampling=SAMPLING, ops=(Op(kind, number, value, 1, "many"),))  # type: ignore[arg-type]  # kinds
        for number in (0, 1777, 1778, MANY - 1) for kind, value in kinds.items()
    ]  # fmt: skip
    found, wanted = talks.engine.generate(requests), talks.reference.generate(requests)
    agree(found, wanted, requests)
    for i, kind in enumerate(kinds):
        assert len({output.token_ids for output in wanted[i :: len(kinds)]}) == 4, kind
    with pytest.raises(EngineError, match=f"of {HELD} are taken"):
        talks.engine.load_directions("more", many)
