"""Break the engine on purpose and see parity with the reference fail, or the engine stop: the parity tests can fail.

vLLM runs inside this process, so that a fault can be put into its worker.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from engine_inside import Checked
from test_engine_turns import MORE, OPS, Talks
from tiny_models import Toy, make_toy

from esr.engine import Request, entries
from esr.engine.hf import HfEngine
from esr.engine.intervention import Intervention
from esr.engine.options import sites_for
from esr.engine.plugin import KEY, Spec, mark, ops, register, spec, state, table
from esr.engine.plugin.state import SteerState
from esr.engine.scope import END
from esr.errors import EngineError, SpecError
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
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"), "llama")


@pytest.fixture(scope="module")
def reference(toy: Toy) -> HfEngine:
    return HfEngine.open(toy.params, toy.name)


@pytest.fixture(scope="module")
def inside(toy: Toy, reference: HfEngine) -> Iterator[Inside]:
    from vllm import LLM

    wanted = [output.token_ids for output in reference.generate(REQUESTS)]
    assert len(set(wanted)) == len(wanted), "the requests must differ for this to show anything"
    patch = pytest.MonkeyPatch()
    patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    register()
    llm = LLM(
        model=str(toy.folder), dtype="float32", enforce_eager=True, max_model_len=320, max_num_seqs=8, block_size=32, distributed_executor_backend="uni",
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


@pytest.fixture
def talks(inside: Inside, reference: HfEngine) -> Iterator[Talks]:
    checked = Checked(inside.llm, reference.chat)
    yield Talks(cast("Any", checked), reference)
    checked.forget()


def told_without_positions(patch: pytest.MonkeyPatch, first: int) -> None:
    right = entries.told
    patch.setattr(spec, "told", lambda done: right([entry._replace(lo=0, hi=0) for entry in done]))


def salted_by_the_first_turn(patch: pytest.MonkeyPatch, first: int) -> None:
    """What is done is right, and what the salt is made of is not."""
    right = Spec.check
    patch.setattr(Spec, "check", lambda self, sites, n_prompt, rows: right(self, sites, first, rows))


def resolved_by_the_first_turn(patch: pytest.MonkeyPatch, first: int) -> None:
    """In the front end, and for interventions in the worker."""
    right = entries.resolved
    patch.setattr(spec, "resolved", lambda ops, scope, n_prompt: right(ops, scope, first))


def resolved_from_the_last_turn(patch: pytest.MonkeyPatch, first: int) -> None:
    """Positions counted from where the reply begins."""
    right = entries.resolved

    def counted(ops: Any, scope: str, n_prompt: int) -> Any:
        return tuple(entry._replace(lo=max(0, entry.lo - n_prompt)) for entry in right(ops, scope, n_prompt))

    patch.setattr(spec, "resolved", counted)


def windows_of_the_first_turn(patch: pytest.MonkeyPatch, first: int) -> None:
    """In the worker, for plain ops."""
    right = entries.window
    patch.setattr(state, "window", lambda scope, n_prompt: right(scope, first))


def windows_from_the_last_turn(patch: pytest.MonkeyPatch, first: int) -> None:
    right = entries.window
    patch.setattr(state, "window", lambda scope, n_prompt: right(scope, 0))


def runs_filled_elsewhere(patch: pytest.MonkeyPatch, first: int) -> None:
    right = table.fill_runs

    def elsewhere(row: Any, runs: Any, window: tuple[int, int], **how: Any) -> Any:
        right(row, runs, (window[0] + 5, min(END, window[1] + 5)), **how)
        return right(row.copy(), runs, window, **how)

    patch.setattr(table, "fill_runs", elsewhere)


def entries_filled_elsewhere(patch: pytest.MonkeyPatch, first: int) -> None:
    """The first one alone."""
    right = table.fill

    def elsewhere(row: Any, done: Any, *rest: Any, **how: Any) -> None:
        right(row, [done[0]._replace(lo=done[0].lo + 5), *done[1:]], *rest, **how)

    patch.setattr(table, "fill", elsewhere)


def admitted_for_the_first_turn(patch: pytest.MonkeyPatch, first: int) -> None:
    right = Spec.as_json
    patch.setattr(Spec, "as_json", lambda self, n_prompt=None: right(self, n_prompt and first))


def sealed_for_the_first_turn(patch: pytest.MonkeyPatch, first: int) -> None:
    admitted_for_the_first_turn(patch, first)
    right = mark.seal
    patch.setattr(mark, "seal", lambda extra, salt, n_prompt, sites: right(extra, salt, first, sites))


def taken_in_for_the_first_turn(patch: pytest.MonkeyPatch, first: int) -> None:
    """A runner that tells its worker another length."""
    right = SteerState.admit
    patch.setattr(SteerState, "admit", lambda self, request, extra, n_prompt, *rest: right(self, request, extra, first, *rest))


def everywhere_the_first_turn(patch: pytest.MonkeyPatch, first: int) -> None:
    """Salt, spec, mark and worker agree on a length that is wrong."""
    salted_by_the_first_turn(patch, first)
    admitted_for_the_first_turn(patch, first)
    taken_in_for_the_first_turn(patch, first)
    right = mark._digest
    patch.setattr(mark, "_digest", lambda text, salt, n_prompt, sites: right(text, salt, first, sites))


BOTH = tuple(Intervention("add", latent, 9.0, 1, "early", "generated") for latent in (7, 30))
"""Over the same positions, so that one that is missing does not show in how many were steered."""
PLANTED: list[tuple[Callable[[pytest.MonkeyPatch, int], None], tuple[Op, ...], str, str]] = [
    (told_without_positions, OPS, "generated", "by replies"),
    (told_without_positions, BOTH, "generated", "by replies"),
    (salted_by_the_first_turn, OPS, "generated", "by replies"),
    (salted_by_the_first_turn, MORE, "generated", "by replies"),
    (resolved_by_the_first_turn, OPS, "generated", "by counts"),
    (resolved_by_the_first_turn, BOTH, "generated", "by replies"),
    (resolved_from_the_last_turn, OPS, "generated", "by counts"),
    (resolved_from_the_last_turn, BOTH, "generated", "by replies"),
    (windows_of_the_first_turn, OPS, "generated", "by replies"),
    (windows_of_the_first_turn, OPS, "prompt", "by counts"),
    (windows_from_the_last_turn, OPS, "generated", "by replies"),
    (runs_filled_elsewhere, OPS, "generated", "by counts"),
    (runs_filled_elsewhere, OPS, "[0,40)", "by replies"),
    (entries_filled_elsewhere, MORE, "generated", "by counts"),
    (entries_filled_elsewhere, BOTH, "generated", "by replies"),
    (admitted_for_the_first_turn, OPS, "generated", "by refusal"),
    (sealed_for_the_first_turn, OPS, "generated", "by refusal"),
    (taken_in_for_the_first_turn, OPS, "generated", "by refusal"),
    (everywhere_the_first_turn, OPS, "generated", "by replies"),
    (everywhere_the_first_turn, MORE, "generated", "by replies"),
]
SAYS = {"by counts": r"was applied .* times", "by refusal": r"mark of another request|ended with 'error'"}


def test_without_a_fault_conversations_are_the_reference_s(talks: Talks) -> None:
    for some, scope in dict.fromkeys(planted[1:3] for planted in PLANTED):
        assert not talks.wrong(*([turn] for turn in talks.conversation(some, (scope, scope, scope)))), (some, scope)


@pytest.mark.parametrize(
    ("fault", "ops", "scope", "how"), PLANTED, ids=[f"{fault.__name__}-{scope}-{how}" for fault, _, scope, how in PLANTED]
)
def test_a_fault_in_where_a_conversation_is_steered_is_found(
    talks: Talks, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch, int], None], ops: tuple[Op, ...], scope: str,
    how: str,
) -> None:  # fmt: skip
    turns = talks.conversation(ops, (scope, scope, scope))
    for turn in turns:
        talks.wanted(turn)
    fault(monkeypatch, len(turns[0].token_ids))
    if how == "by replies":
        assert talks.wrong(*([turn] for turn in turns))
    else:
        with pytest.raises((EngineError, SpecError), match=SAYS[how]):
            talks.wrong(*([turn] for turn in turns))


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
