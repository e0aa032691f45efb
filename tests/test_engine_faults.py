"""Break the engine on purpose and see parity with the reference fail, or the engine stop: the parity tests can fail.

vLLM runs inside this process, so that a fault can be put into its worker.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tiny_models import make_toy

from esr.engine import Request
from esr.engine.hf import HfEngine
from esr.engine.options import sites_for
from esr.engine.plugin import KEY, Spec, ops, register
from esr.engine.plugin.state import SteerState
from esr.errors import SpecError
from esr.types import Op, Sampling

SAMPLING = Sampling(temperature=0, top_p=1, repetition_penalty=1, max_tokens=12)
REQUESTS = [
    Request(token_ids=tuple(range(10, 22)), sampling=SAMPLING, ops=chosen)
    for chosen in (
        (),
        (Op("add", 7, 9.0, 1, "early"),),
        (Op("clamp", 9, 6.0, 2, "late"),),
        (Op("add", 3, 5.0, 1, "early"), Op("clamp", 4, 5.0, 2, "late")),
        (Op("add", 11, 9.0, 1, "early"), Op("clamp", 11, 7.0, 1, "early")),
        (Op("add", 60, 8.0, 2, "late"),),
    )
]


class Inside:
    def __init__(self, llm: Any, wanted: list[tuple[int, ...]], stops: tuple[int, ...]) -> None:
        self.llm, self.wanted, self.stops = llm, wanted, stops

    def replies(self) -> list[tuple[int, ...]]:
        from vllm import SamplingParams, TokensPrompt

        self.llm.reset_prefix_cache()
        params = [
            SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, stop_token_ids=list(self.stops), extra_args={"sae": Spec(ops=r.ops).as_json()} if r.ops else None)
            for r in REQUESTS
        ]  # fmt: skip
        prompts = [TokensPrompt(prompt_token_ids=list(r.token_ids)) for r in REQUESTS]
        return [tuple(o.outputs[0].token_ids) for o in self.llm.generate(prompts, params, use_tqdm=False)]


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    from vllm import LLM

    toy = make_toy(tmp_path_factory.mktemp("toy"), "llama")
    reference = HfEngine.open(toy.params, toy.name)
    wanted = [output.token_ids for output in reference.generate(REQUESTS)]
    assert len(set(wanted)) == len(wanted), "the requests must differ for this to show anything"
    patch = pytest.MonkeyPatch()
    patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    register()
    llm = LLM(
        model=str(toy.folder), dtype="float32", enforce_eager=True, max_model_len=128, max_num_seqs=8, distributed_executor_backend="uni",
        additional_config={KEY: sites_for(toy.params, toy.name).as_config()},
    )  # fmt: skip
    yield Inside(llm, wanted, reference.chat.stop_ids)
    llm.llm_engine.engine_core.shutdown()
    patch.undo()


def test_without_a_fault_the_replies_are_the_reference_s(inside: Inside) -> None:
    assert inside.replies() == inside.wanted


def test_a_chat_is_steered_or_refused_as_a_generation_is(inside: Inside) -> None:
    from vllm import SamplingParams
    from vllm.sampling_params import BeamSearchParams

    def reply(sae: str | None) -> tuple[int, ...]:
        params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, extra_args={"sae": sae} if sae else None)
        return tuple(inside.llm.chat([{"role": "user", "content": "Hello"}], params, use_tqdm=False)[0].outputs[0].token_ids)

    assert reply(Spec(ops=REQUESTS[1].ops).as_json()) != reply(None)
    with pytest.raises(SpecError, match="no SAE 'erly'"):
        reply('{"ops": [{"op": "add", "sae": "erly", "i": 1, "v": 1.0}]}')
    assert not inside.llm.llm_engine.has_unfinished_requests()
    assert not hasattr(BeamSearchParams(beam_width=2, max_tokens=4), "extra_args")


@pytest.mark.parametrize("straight", [False, True], ids=["by the front end", "to the engine"])
def test_a_request_built_by_hand_is_refused_in_one_process_too(inside: Inside, straight: bool) -> None:
    from vllm import SamplingParams
    from vllm.v1.engine import EngineCoreRequest

    params = SamplingParams(temperature=0, max_tokens=4, extra_args={"sae": Spec(ops=REQUESTS[1].ops).as_json()})
    request = EngineCoreRequest(
        request_id="by hand", prompt_token_ids=[1, 3, 4], mm_features=None, sampling_params=params, pooling_params=None,
        arrival_time=0.0, lora_request=None, cache_salt=None, data_parallel_rank=None,
    )  # fmt: skip
    engine = inside.llm.llm_engine
    with pytest.raises(SpecError, match="came past admission"):
        engine.engine_core.add_request(request) if straight else engine.add_request("by hand", request, params)
    assert not engine.has_unfinished_requests()
    assert inside.replies() == inside.wanted


def test_what_a_worker_refuses_is_not_answered_by_the_token_that_ends_it(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import SamplingParams, TokensPrompt

    def refusing(self: SteerState, *args: Any) -> Any:
        raise ValueError("not here")

    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1, extra_args={"sae": Spec(ops=REQUESTS[1].ops).as_json()})
    plain = SamplingParams(temperature=0, max_tokens=1)
    prompt = TokensPrompt(prompt_token_ids=list(REQUESTS[1].token_ids))
    monkeypatch.setattr(SteerState, "_laid", refusing)
    steered, other = (output.outputs[0] for output in inside.llm.generate([prompt, prompt], [params, plain], use_tqdm=False))
    assert (steered.finish_reason, list(steered.token_ids)) == ("error", [])
    assert other.finish_reason == "length"


def wrong_layer(patch: pytest.MonkeyPatch, _: Inside) -> None:
    right = ops.reference
    patch.setattr(ops, "reference", lambda h, r, positions, state, site: right(h, r, positions, state, 1 - site))


def forgotten_residual(patch: pytest.MonkeyPatch, _: Inside) -> None:
    right = ops.reference
    patch.setattr(ops, "reference", lambda h, r, *rest: right(h, torch.zeros_like(r), *rest))


def sequential(patch: pytest.MonkeyPatch, _: Inside) -> None:
    """Each intervention sees what the one before it did, where all should see the same stream."""
    right = ops._sum

    def one_by_one(total: torch.Tensor, x: torch.Tensor, part: torch.Tensor, entries: Any, at: Any, bank: Any) -> None:
        for j in range(len(part)):
            right(total, x + total, part[j : j + 1], entries[j : j + 1], at[j : j + 1], bank)

    patch.setattr(ops, "_sum", one_by_one)


@pytest.mark.parametrize("fault", [wrong_layer, forgotten_residual, sequential], ids=lambda fault: fault.__name__)
def test_a_fault_in_the_operation_changes_replies(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch, Inside], None]
) -> None:
    fault(monkeypatch, inside)
    broken = inside.replies()
    assert broken[0] == inside.wanted[0]
    assert broken != inside.wanted


def test_a_map_of_the_step_before_stops_the_engine(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Last in this file: the engine does not survive it. A row steered too often or not at all is noticed by its count."""
    right = SteerState._map
    calls = iter(range(10_000))

    def stale(self: SteerState, *args: Any) -> None:
        if next(calls) % 2 == 0:
            right(self, *args)

    monkeypatch.setattr(SteerState, "_map", stale)
    with pytest.raises(Exception, match=r"applied .* times where .* were due"):  # vLLM may wrap the EngineError
        [inside.replies() for _ in range(3)]
