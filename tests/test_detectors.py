"""Detectors, their controls and the pairs that they are found in."""

from contextvars import ContextVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esr.errors import DataError
from esr.experiment import find
from esr.params import load
from esr.study.batches import cut, work
from esr.study.detect import Activations, Detection, chosen, derangements, matched, pairs, uniform
from esr.study.workload import workload

EXP = load("tiny").of(Detection)


def seen(d: int = 200, seed: int = 0) -> Activations:
    rng = np.random.default_rng(seed)
    active, mean = rng.random(d), rng.random(d)
    active[:5], mean[:5] = 0, 0
    return Activations(np.where(np.arange(d) < 20, 0.0, active), np.where(np.arange(d) < 20, 0.0, mean), active, mean)


@given(n=st.integers(2, 12), count=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_a_derangement_leaves_nothing_in_its_place(n: int, count: int, seed: int) -> None:
    found = derangements(n, count, seed)
    assert found == derangements(n, count, seed)
    assert found
    for order in found:
        assert sorted(order) == list(range(n))
        assert all(i != j for i, j in enumerate(order))


def test_twenty_questions_have_ten_distinct_derangements() -> None:
    assert len({tuple(order) for order in derangements(20, 10, 1)}) == 10
    with pytest.raises(DataError, match="at least 2"):
        derangements(1, 1, 0)


def test_pairs_hold_each_reply_once_under_its_own_and_once_a_derangement_under_another() -> None:
    found = pairs(["a", "b", "c"], [["a1", "a2"], ["b1", "b2"], ["c1", "c2"]], derangements(3, 2, 0))
    assert sum(pair.matched for pair in found) == 6
    assert len(found) == 6 + 2 * 6
    assert all((pair.text[0] == pair.prompt) == pair.matched for pair in found)


def test_detectors_are_quiet_in_matched_pairs_and_active_in_most_others() -> None:
    found = chosen(seen(), EXP, {7: "seven"})
    assert found
    assert all(d.matched_active <= EXP.matched_share and d.mismatched_active >= EXP.mismatched_share for d in found)
    assert [d.rank for d in found] == list(range(len(found)))
    assert sorted(found, key=lambda d: -d.mismatched_active) == found
    assert len(found) <= EXP.max_detectors


def test_without_a_detector_nothing_is_ablated_in_silence() -> None:
    none = Activations(*(np.ones(9) for _ in range(4)))
    with pytest.raises(DataError, match="nothing to ablate"):
        chosen(none, EXP, {})


@pytest.mark.parametrize("draw", [matched, uniform])
def test_controls_are_others_and_as_many_and_follow_their_seed(draw) -> None:  # type: ignore[no-untyped-def]  # two functions of one shape
    what = seen()
    found = chosen(what, EXP, {})
    barred = [50, 51]
    one, again, other = draw(what, found, barred, 42, {}), draw(what, found, barred, 42, {}), draw(what, found, barred, 43, {})
    assert one == again != other
    latents = {d.latent for d in one}
    assert len(latents) == len(found)
    assert not latents & ({d.latent for d in found} | set(barred))


def test_matched_controls_lie_nearer_than_uniform_ones() -> None:
    what = seen(2000)
    found = chosen(what, EXP, {})

    def far(controls: list) -> float:  # type: ignore[type-arg]  # of detectors
        frequency = (what.matched_active + what.mismatched_active) / 2
        return float(np.mean([abs(frequency[c.latent] - frequency[d.latent]) for c, d in zip(controls, found, strict=True)]))

    assert far(matched(what, found, [], 42, {})) < 0.5 * far(uniform(what, found, [], 42, {}))


def test_matched_controls_are_never_dead() -> None:
    what = seen()
    assert all(c.matched_mean + c.mismatched_mean > 0 for c in matched(what, chosen(what, EXP, {}), [], 1, {}))


@given(items=st.lists(st.integers(), max_size=50), size=st.integers(1, 9), flight=st.integers(1, 4))
def test_batches_hold_everything_once(items: list[int], size: int, flight: int) -> None:
    assert [x for batch in cut(items, size) for x in batch] == items
    assert sorted(x for batch in work(list, items, size=size, in_flight=flight) for x in batch) == sorted(items)


def test_a_batch_works_in_the_context_of_who_asks_so_that_what_it_logs_is_told_as_theirs() -> None:
    asker = ContextVar("asker", default="nobody")
    asker.set("a task")
    assert list(work(lambda _: asker.get(), [1, 2, 3], size=1, in_flight=2)) == ["a task"] * 3


def test_a_failed_batch_keeps_what_the_others_computed_and_begins_no_more() -> None:
    begun: list[int] = []

    def some(batch) -> int:  # type: ignore[no-untyped-def]  # a slice of the list below
        begun.append(batch[0])
        if batch[0] == 2:
            raise ValueError("no")
        return int(batch[0])

    kept: list[int] = []
    with pytest.raises(ValueError, match="no"):
        kept.extend(work(some, list(range(100)), size=1, in_flight=1))
    assert kept == [0, 1]
    assert begun == [0, 1, 2]


def test_the_70b_run_asks_for_as_many_trials_as_the_paper_made() -> None:
    params = load("70b")
    asked = workload(params, find("exp01"))
    assert asked.search == 500 * (30 + 5)  # at most: 30 steps of one reply, and five that verify
    assert asked.baseline == 2500
    assert workload(params, find("exp05")).own == 7 * 2500
    assert workload(params, find("exp10")).arms == 6
    assert workload(params, find("exp02")).baseline == 0
