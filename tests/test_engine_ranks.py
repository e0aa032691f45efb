"""Stages of a pipeline, by hand: each does its own part of a request, what it finds reaches the last, and their answers are one."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_engine_state import BLOCK, LAYER, WIDTH
from vllm.sequence import IntermediateTensors
from vllm.v1.worker.gpu_worker import AsyncIntermediateTensors

from esr.engine import Capture
from esr.engine.plugin import FAILED, mark, relay
from esr.engine.plugin.bank import load_bank
from esr.engine.plugin.ops import CONTEXT, reference
from esr.engine.plugin.ranks import Rank, by_stage, fullest, joined
from esr.engine.plugin.records import BROKEN
from esr.engine.plugin.site import needed_at
from esr.engine.plugin.spec import FIELD, KEY, Sites, Spec
from esr.engine.plugin.state import SteerState
from esr.engine.plugin.worker import _telling
from esr.errors import EngineError
from esr.types import Op

SITES = Sites.parse({**BLOCK, "layers": [LAYER, LAYER + 1], "allow_layer_mismatch": True})
BOTH = Spec(
    ops=(Op("add", 3, 2.0, LAYER, "s"), Op("add", 5, 1.0, LAYER + 1, "s")),
    id="mine",
    capture=Capture(layer=LAYER + 1, sae="s", mode="all"),
)
COUNTS = {"executed": 6, "expected": 6, "stays": 1, "error": None, "capture": None}


def stage(rank: Rank) -> SteerState:
    config: Any = SimpleNamespace(
        model_config=SimpleNamespace(dtype=torch.float32),
        scheduler_config=SimpleNamespace(max_num_seqs=4, max_num_batched_tokens=32),
    )
    cpu = torch.device("cpu")
    return SteerState(SITES, load_bank(SITES, WIDTH, cpu, dummy=True), config, cpu, rank)


def pipeline() -> list[SteerState]:
    return [stage(Rank((LAYER,), last=False)), stage(Rank((LAYER + 1,)))]


def step(state: SteerState, spec: Spec, h: torch.Tensor) -> None:
    """The prompt of a request, at this stage's hooked block."""
    n = len(h)
    state.admit("r0", mark.seal({FIELD: spec.as_json(n)}, None, n, SITES), n, range(n), 0)
    state.refresh(np.array([0]), np.array([0]), np.array([n]), tokens=torch.arange(n))
    reference(h, torch.zeros_like(h), torch.arange(n), state, 0)


def test_each_stage_does_and_counts_what_stands_at_its_own_blocks() -> None:
    stages, h = pipeline(), torch.zeros(4, WIDTH)
    rows = stages[0].bank.W_dec
    step(stages[0], BOTH, h)
    assert torch.equal(h, 2 * rows[3].expand(4, -1))
    step(stages[1], BOTH, h)
    assert torch.allclose(h, (2 * rows[3] + rows[5]).expand(4, -1))
    answers = []
    for state in stages:
        state.synchronize()
        answers.append(state.take("mine", 4))
    first, second = answers
    assert first is not None
    assert second is not None
    assert (first["executed"], second["executed"], first["capture"]) == (4, 4, None)
    whole = joined(answers)
    assert whole is not None
    assert (whole["executed"], whole["expected"], whole["stays"], whole["error"]) == (8, 8, 1, None)
    assert whole["capture"] == second["capture"] is not None
    assert [state.stats()["records"] for state in stages] == [0, 0]


def test_a_marker_is_waited_for_at_each_stage() -> None:
    spec = replace(BOTH, capture=None, scope="after 1")
    stages, h = pipeline(), torch.zeros(4, WIDTH)
    for state in stages:
        step(state, spec, h)
    whole = joined([state.count("mine") for state in stages])
    assert whole is not None
    assert (whole["executed"], whole["expected"]) == (4, 4), "positions 2 and 3, after either block"
    assert torch.equal(h[:2], torch.zeros(2, WIDTH))


def test_a_stage_without_hooked_blocks_does_nothing_and_loads_no_sae() -> None:
    state, h = stage(Rank((), last=False)), torch.zeros(4, WIDTH)
    state.admit("r0", mark.seal({FIELD: BOTH.as_json(4)}, None, 4, SITES), 4, range(4), 0)
    state.refresh(np.array([0]), np.array([0]), np.array([4]))
    state.synchronize()
    assert state.take("mine", 4) == {**COUNTS, "executed": 0, "expected": 0}
    assert not h.any()
    assert not needed_at(SITES, ()).saes
    own = replace(SITES, allow_layer_mismatch=False)
    assert list(needed_at(own, (LAYER,)).saes) == ["s"]
    assert not needed_at(own, (LAYER + 1,)).saes
    assert list(needed_at(SITES, (LAYER + 1,)).saes) == ["s"]


def test_answers_add_up_and_a_difference_at_one_stage_stays_one() -> None:
    two: dict[str, Any] = {**COUNTS, "executed": 3, "expected": 3, "stays": 2}
    assert joined([COUNTS]) is COUNTS
    assert joined([COUNTS, two]) == {**COUNTS, "executed": 9, "expected": 9, "stays": 2}
    assert joined([COUNTS, None]) is joined([None, None]) is None
    short, long = {**COUNTS, "executed": 5}, {**two, "executed": 4}
    found = joined([short, long])
    assert found is not None
    assert found["executed"] != found["expected"]
    assert joined([COUNTS, {**two, "error": BROKEN}]) == {**COUNTS, "executed": 9, "expected": 9, "stays": 2, "error": BROKEN}
    assert joined([{**COUNTS, "capture": {"mode": "all"}}, two])["capture"] == {"mode": "all"}  # type: ignore[index]  # it is there
    assert fullest([{"live": 1, "held": 0}, {"live": 1, "held": 9}]) == {"live": 1, "held": 9}


def test_of_ranks_that_are_tensor_parallel_one_answers_for_its_stage() -> None:
    parallel = SimpleNamespace(tensor_parallel_size=2, pipeline_parallel_size=2)
    assert by_stage(parallel, ["a", "b", "c", "d"]) == ["a", "c"]
    with pytest.raises(EngineError, match="1 of 2 stages of the pipeline answered"):
        by_stage(parallel, ["a", "b"])


class Runner:
    """A model runner of one stage, whose step finds what it is told to find."""

    def __init__(self, state: SteerState, *, finds: str = "", breaks: str = "") -> None:
        context = {CONTEXT: state}
        self.vllm_config = SimpleNamespace(
            additional_config={KEY: True}, compilation_config=SimpleNamespace(static_forward_context=context)
        )
        self.state, self.finds, self.breaks = state, finds, breaks
        self.sent = {"hidden_states": torch.ones(2, WIDTH)}
        self.met: list[str] = []

    def execute_model(self, scheduler_output: Any, tensors: Any, **more: Any) -> Any:
        return relay.relaying(Runner.plain)(self, scheduler_output, tensors, **more)

    def plain(self, scheduler_output: Any, tensors: Any, **more: Any) -> Any:
        self.met = sorted(tensors.tensors) if tensors is not None else []
        if self.finds:
            self.state.failing[self.finds] = BROKEN
        self.state.failed = self.state.failed or self.breaks
        self.state.refresh(np.array([], int), np.array([], int), np.array([], int))
        return SimpleNamespace(req_ids=[]) if self.state.rank.last else IntermediateTensors(self.sent)


def through(runners: list[Runner]) -> Any:
    out: Any = None
    for runner in runners:
        out = runner.execute_model(None, out and AsyncIntermediateTensors(dict(out.tensors)))
    last = SimpleNamespace(vllm_config=runners[-1].vllm_config)
    return _telling(lambda self: out)(last)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_any_stage_has_found_ends_exactly_that_request(at: int) -> None:
    states = [stage(Rank((LAYER,), last=False)), stage(Rank((), last=False)), stage(Rank((LAYER + 1,)))]
    runners = [Runner(state, finds="r7" if i == at else "") for i, state in enumerate(states)]
    assert getattr(through(runners), FAILED) == {"r7": BROKEN}
    assert [runner.met for runner in runners[1:]] == [["hidden_states"]] * 2, "the model sees hidden states alone"
    runners[at].finds = ""
    assert not hasattr(through(runners), FAILED), "it is told once"
    assert list(runners[0].sent) == ["hidden_states"], "vLLM uses the tensors of a step again"


def test_a_stage_that_steered_too_seldom_stops_the_engine_through_the_last() -> None:
    runners = [Runner(state) for state in pipeline()]
    runners[0].breaks = "an intervention was applied 3 times where 4 were due"
    with pytest.raises(EngineError, match="applied 3 times where 4 were due"):
        through(runners)


def test_a_dummy_step_takes_nothing_along() -> None:
    first = Runner(stage(Rank((LAYER,), last=False)), finds="r7")
    assert relay.WORD not in first.execute_model(None, None, dummy_run=True).tensors
    assert first.state.failing == {"r7": BROKEN}
    assert relay.WORD in first.execute_model(None, None).tensors


def test_between_gpus_what_was_found_goes_as_text() -> None:
    first, second = pipeline()
    first.failing, first.device = {"r7": BROKEN}, torch.device("cuda")
    out = relay.told(first, IntermediateTensors({}))
    assert isinstance(out.tensors[relay.WORD], bytes)
    relay.hear(second, AsyncIntermediateTensors(out.tensors))
    assert second.failing == {"r7": BROKEN}
