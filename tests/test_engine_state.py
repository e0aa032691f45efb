"""The worker's tables as vLLM's V2 runner fills them, step by step on a CPU, with batches made by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from esr.engine import Capture
from esr.engine.plugin import mark
from esr.engine.plugin import state as states
from esr.engine.plugin.bank import load_bank
from esr.engine.plugin.ops import reference
from esr.engine.plugin.runners import SteerModelState
from esr.engine.plugin.spec import FIELD, Sites, Spec
from esr.engine.plugin.state import SteerState
from esr.engine.taken import Taken, applied
from esr.errors import EngineError
from esr.types import Op

WIDTH, LATENTS, LAYER = 8, 16, 1
BLOCK = {"saes": {"s": {"loader": "folder", "repo": "none", "layer": LAYER, "d_in": WIDTH, "d_sae": LATENTS}}}


class Runner:
    """Calls a SteerModelState in the V2 runner's order and runs the operation where the model would."""

    def __init__(self, **sites: Any) -> None:
        asked = Sites.parse(BLOCK | sites)
        config: Any = SimpleNamespace(
            model_config=SimpleNamespace(dtype=torch.float32), parallel_config=SimpleNamespace(rank=0),
            scheduler_config=SimpleNamespace(max_num_seqs=4, max_num_batched_tokens=32),
        )  # fmt: skip
        cpu = torch.device("cpu")
        self.state = SteerState(asked, load_bank(asked, WIDTH, cpu, dummy=True), config, cpu)
        self.model = SteerModelState.__new__(SteerModelState)
        self.model.steering, self.model._prepared = self.state, None
        self.model.rope_state = self.model.prompt_embeds_state = None

    def add(self, name: str, slot: int, spec: Spec | None, n_prompt: int) -> None:
        extra = mark.seal({FIELD: spec.as_json(n_prompt)}, None, n_prompt, self.state.sites) if spec else None
        request = SimpleNamespace(
            req_id=name,
            sampling_params=SimpleNamespace(extra_args=extra),
            prompt_token_ids=list(range(n_prompt)),
            prefill_token_ids=None,
        )
        self.model.add_request(slot, request)

    def step(self, *rows: tuple[int, int, int], dummy: bool = False) -> torch.Tensor:
        """rows: (slot, first position, tokens) in the batch's order; what was added to each token's stream."""
        slots, first, count = (np.array(column) for column in zip(*rows, strict=True))
        batch = SimpleNamespace(
            num_reqs=len(rows), idx_mapping_np=slots, num_computed_tokens_np=first, num_scheduled_tokens=count,
            num_tokens_after_padding=int(count.sum()) + 1, query_start_loc=None, idx_mapping=None,
            input_ids=torch.from_numpy(np.concatenate([np.arange(a, a + n) for _, a, n in rows])),
        )  # fmt: skip
        if not dummy:
            self.model.preprocess_state(batch, (), None, None)
        self.model.prepare_inputs(batch, None)
        positions = torch.from_numpy(np.concatenate([np.arange(a, a + n) for _, a, n in rows]))
        r = torch.arange(1.0, len(positions) * WIDTH + 1).reshape(-1, WIDTH) / 8
        h = torch.zeros_like(r)
        reference(h, r, positions, self.state, 0)
        return h

    def row(self, latent: int) -> torch.Tensor:
        return self.state.bank.W_dec[latent]


def boost(latent: int, id: str = "", scope: str = "all") -> Spec:
    return Spec(ops=(Op("add", latent, 2.0, LAYER, "s"),), scope=scope, id=id)


def reading(id: str, mode: Any = "all", positions: str = "all") -> Spec:
    return Spec(capture=Capture(layer=LAYER, sae="s", mode=mode, k=2 if mode == "topk" else 0, positions=positions), id=id)


def test_each_token_gets_its_own_request_whatever_the_order_of_the_batch() -> None:
    runner = Runner()
    runner.add("a", 0, boost(3, scope="[1,3)"), 3)
    runner.add("b", 2, boost(5), 2)
    runner.add("plain", 1, None, 2)
    added = runner.step((2, 0, 2), (1, 0, 2), (0, 0, 3))
    assert torch.equal(added[:2], 2 * runner.row(5).expand(2, -1))
    assert torch.equal(added[2:5], torch.zeros(3, WIDTH))  # the plain request, and position 0 of the one in scope [1,3)
    assert torch.equal(added[5:], 2 * runner.row(3).expand(2, -1))


def test_a_preempted_request_comes_back_in_another_row_and_its_counts_add_up() -> None:
    runner = Runner()
    runner.add("a", 0, boost(3, id="mine"), 4)
    runner.step((0, 0, 4))
    runner.model.remove_request("a")
    runner.add("other", 0, None, 2)  # takes over the row
    assert torch.equal(runner.step((0, 0, 2)), torch.zeros(2, WIDTH))
    runner.add("a", 1, boost(3, id="mine"), 4)
    added = runner.step((0, 2, 1), (1, 0, 5))
    assert torch.equal(added, torch.cat([torch.zeros(1, WIDTH), 2 * runner.row(3).expand(5, -1)]))
    runner.state.synchronize()
    taken = runner.state.take("mine", 5)
    assert taken is not None
    assert (taken["executed"], taken["expected"], taken["stays"], taken["error"]) == (9, 9, 2, None)


def test_a_dummy_run_steers_nothing_and_counts_nothing() -> None:
    runner = Runner()
    runner.add("a", 0, boost(3, id="mine"), 2)
    runner.step((0, 0, 2))
    assert torch.equal(runner.step((0, 2, 4), dummy=True), torch.zeros(4, WIDTH))
    assert torch.equal(runner.step((0, 2, 1))[0], 2 * runner.row(3))
    taken = runner.state.take("mine", 3)
    assert taken is not None
    assert (taken["executed"], taken["expected"]) == (3, 3)


def test_the_map_s_kernel_is_compiled_before_the_first_request_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    from esr.engine.plugin import kernel

    runner, asked = Runner(), list[tuple[int, int, int]]()
    none = runner.state.none

    def fill(tok2slot: torch.Tensor, _starts: torch.Tensor, _slots: torch.Tensor, *numbers: int) -> None:
        asked.append(numbers)  # type: ignore[arg-type]  # mypy cannot count them
        tok2slot[:2] = 0

    monkeypatch.setattr(kernel, "fill", fill)
    made_up: Any = SimpleNamespace(num_reqs=2, query_start_loc=torch.zeros(3), idx_mapping=torch.zeros(2))
    runner.model.prepare_inputs(made_up, None)
    assert asked == [], "on a CPU nothing is compiled"
    runner.state.cold = True
    for _ in range(2):
        runner.model.prepare_inputs(made_up, None)
    assert asked == [(2, 2, none)]
    assert runner.state.tok2slot.unique().tolist() == [none]


def test_a_reading_survives_preemption_without_a_gap_and_without_a_row_twice() -> None:
    runner = Runner()
    runner.add("a", 0, reading("mine"), 3)
    runner.step((0, 0, 3))
    runner.step((0, 3, 1))
    runner.model.remove_request("a")
    runner.add("a", 3, reading("mine"), 3)
    runner.step((3, 0, 2))
    runner.step((3, 2, 3))
    runner.state.synchronize()
    taken = runner.state.take("mine", 5)
    assert taken is not None
    assert taken["error"] is None
    assert np.frombuffer(taken["capture"]["positions"], np.int32).tolist() == [0, 1, 2, 3, 4]


def test_two_requests_with_one_id_are_an_error_and_never_one_anothers_rows() -> None:
    runner = Runner()
    runner.add("a", 0, reading("same"), 2)
    runner.step((0, 0, 2))
    runner.add("b", 1, reading("same"), 2)
    runner.step((0, 2, 1), (1, 0, 2))
    runner.state.synchronize()
    taken = runner.state.take("same", 2)
    assert taken is not None
    assert "more than one request came with the id 'same'" in taken["error"]
    assert taken["capture"] is None
    assert runner.state.stats()["held_bytes"] == 0


def test_a_maximum_cannot_be_cut_to_fewer_positions_than_it_has_taken_in() -> None:
    for rows, fails in ((2, True), (8, False)):
        runner = Runner()
        runner.add("a", 0, reading("mine", "max"), 3)
        runner.step((0, 0, 3))
        for position in range(3, 8):
            runner.step((0, position, 1))
        runner.state.synchronize()
        taken = runner.state.take("mine", rows)
        assert taken is not None
        assert bool(taken["error"]) == fails, taken["error"]
        assert not fails or "cannot be cut to 2" in taken["error"]


def test_a_difference_found_while_looking_at_the_counts_still_stops_the_engine() -> None:
    runner = Runner()
    runner.add("a", 0, boost(3), 2)
    runner.step((0, 0, 2))
    runner.state.applied[0] -= 1
    runner.model.remove_request("a")
    with pytest.raises(EngineError, match="applied 1 times where 2 were due"):
        runner.state.stats()
    runner.add("b", 1, None, 1)
    with pytest.raises(EngineError, match="the engine stops"):
        runner.step((1, 0, 1))


def test_a_capture_that_grows_beyond_the_room_fails_and_one_that_waits_stays() -> None:
    row = LATENTS * 4
    runner = Runner(capture_bytes=6 * row)
    runner.add("a", 0, reading("waits"), 4)
    runner.step((0, 0, 4))
    runner.model.remove_request("a")
    runner.add("b", 1, reading("grows"), 4)
    runner.step((1, 0, 4))
    runner.state.synchronize()
    waits, grows = runner.state.take("waits", 4), runner.state.take("grows", 4)
    assert waits is not None
    assert grows is not None
    assert waits["error"] is None
    assert "capture_bytes" in grows["error"]


def test_what_nobody_takes_is_let_go_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner()
    runner.add("a", 0, reading("left"), 2)
    runner.step((0, 0, 2))
    runner.model.remove_request("a")
    runner.add("b", 1, reading("here"), 2)
    runner.step((1, 0, 2))
    later = states.time.monotonic() + states.KEPT + 1
    monkeypatch.setattr(states.time, "monotonic", lambda: later)
    runner.add("c", 2, reading("new"), 2)
    assert sorted(runner.state.records) == ["here", "new"]
    assert runner.state.take("left", 2) is None


def test_what_the_device_steered_is_held_against_the_reply_and_not_only_against_the_schedule() -> None:
    asked = boost(3, id="mine", scope="[1,)")
    for executed, cached, stays, right in ((7, 0, 1, True), (6, 0, 1, False), (3, 5, 1, True), (2, 5, 1, False), (2, 5, 2, True)):
        taken = Taken(executed, executed, stays, None, None)  # worker and device agree, perhaps on a wrong scope
        if right:
            assert applied(asked, taken, range(8), 6, cached) == 7
        else:
            with pytest.raises(EngineError, match="the reply is discarded"):
                applied(asked, taken, range(8), 6, cached)
