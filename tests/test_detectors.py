"""Detectors, their controls and the pairs that they are found in."""

import dataclasses
import sys
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esr.count.intervals import score
from esr.count.pair_areas import Areas, areas
from esr.errors import DataError
from esr.experiment import find
from esr.params import HOME, load
from esr.store import Store
from esr.study.batches import cut, work
from esr.study.detect import (
    Activations,
    Detection,
    activations,
    chosen,
    dealt,
    derangements,
    detectors,
    halves,
    matched,
    pairs,
    record,
    summary,
    uniform,
)
from esr.study.study import Study
from esr.study.workload import workload

sys.path.insert(0, str(HOME / "scripts"))
import detector_coverage  # a script, found by its folder

EXP = load("tiny").of(Detection)
BY_AUC = EXP.model_copy(update={"criterion": "auc", "least_auc": 0.7, "max_detectors": 5})


def seen(d: int = 200, seed: int = 0) -> Activations:
    rng = np.random.default_rng(seed)
    active, mean = rng.random(d), rng.random(d)
    active[:5], mean[:5] = 0, 0
    return Activations(
        np.where(np.arange(d) < 20, 0.0, active),
        np.where(np.arange(d) < 20, 0.0, mean),
        active,
        mean,
        np.where(np.arange(d) < 20, 0.9, 0.5),
    )


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
    none = Activations(*(np.ones(9) for _ in range(4)), auc=np.full(9, 0.6))
    with pytest.raises(DataError, match="nothing to ablate"):
        chosen(none, EXP, {})
    with pytest.raises(DataError, match=r"latent 0 \(zero\), has 0\.60; there is nothing to ablate"):
        chosen(none, BY_AUC, {0: "zero"})


def test_by_their_areas_the_best_latents_are_detectors_and_say_what_they_are_worth_on_other_questions() -> None:
    what = seen()
    apart = Areas(np.full(200, 0.7), np.full(200, 0.55), np.full(200, np.nan))
    found = chosen(dataclasses.replace(what, auc=np.linspace(0.4, 0.95, 200), held_out=apart), BY_AUC, {})
    assert [d.latent for d in found] == list(range(199, 199 - BY_AUC.max_detectors, -1))
    assert {(d.auc_held_out, d.auc_low, d.auc_high) for d in found} == {(0.7, 0.55, None)}
    assert {(d.auc_held_out, d.auc_low) for d in chosen(what, EXP, {})} == {(None, None)}


def test_replies_are_dealt_within_the_half_of_their_question() -> None:
    one, two = halves(20, 7)
    assert (one, two) == halves(20, 7) != halves(20, 8)
    assert sorted([*one, *two]) == list(range(20))
    orders = dealt([one, two], 10, 7)
    assert len({tuple(order) for order in orders}) == 10
    for order in orders:
        assert all(j != i and (j in one) == (i in one) for i, j in enumerate(order))
    assert dealt([list(range(20)), []], 10, 7) == derangements(20, 10, 7)


def test_areas_count_by_hand_and_ties_count_half() -> None:
    question, reply = np.array([0, 1, 0, 1]), np.array([0, 1, 1, 0])
    values = np.array([[0.0, 1.0, 5.0], [2.0, 1.0, 5.0], [1.0, 1.0, 1.0], [3.0, 2.0, 0.0]], np.float32)
    found = areas(values, question, reply)
    assert found.value.tolist() == [0.75, 0.75, 0.0]  # 1 > 0, 3 > 0, 3 > 2 | two ties and two won | none
    assert np.isnan(found.low).all()  # two questions say nothing of others


def test_areas_are_those_of_all_comparisons_and_their_variance_leaves_out_one_question_at_a_time() -> None:
    rng, n = np.random.default_rng(3), 12
    order = derangements(n, 3, 0)
    question = np.array([*range(n), *(i for _ in order for i in range(n))])
    reply = np.array([*range(n), *(j for one in order for j in one)])
    values = rng.integers(0, 4, (len(question), 50)).astype(np.float32)

    def plain(keep) -> np.ndarray:  # type: ignore[no-untyped-def, type-arg]  # flags
        own, others = values[keep & (question == reply)], values[keep & (question != reply)]
        won = (others[:, None] > own[None]) + 0.5 * (others[:, None] == own[None])
        return won.mean(axis=(0, 1))

    found = areas(values, question, reply)
    whole = plain(np.ones(len(question), bool))
    assert np.allclose(found.value, whole)
    parts = np.stack([plain((question != out) & (reply != out)) for out in range(n)])
    variance = (n - 1) / n * ((parts - parts.mean(axis=0)) ** 2).sum(axis=0)
    errors, single = 2 * n * whole * (1 - whole), whole * (1 - whole)
    size = (errors + 0.1) / (errors * variance / single + 0.1 / n)
    wanted = score(whole, size, np.asarray(2.2009851600829493))  # Student's quantile at 11
    assert np.allclose(found.low, wanted.low)
    assert np.allclose(found.high, wanted.high)
    assert np.array_equal(areas(values[:, 7:8], question, reply).low, found.low[7:8])  # latents are read apart, in any number


def test_what_is_read_in_pairs_is_summed_and_parted() -> None:
    orders = dealt([[0, 1], [2, 3]], 1, 0)
    found = pairs(["a", "b", "c", "d"], [["a"], ["b"], ["c"], ["d"]], orders)
    values = np.array([[0, 2], [0, 2], [4, 0], [4, 2], [3, 2], [3, 2], [0, 2], [0, 2]], np.float32)
    told = summary(values, found, 0.5, [0, 1])
    assert told.matched_active.tolist() == [0.5, 0.75]
    assert told.mismatched_mean.tolist() == [1.5, 2.0]
    assert told.auc.tolist() == [1.0, 0.5]
    assert told.held_out is not None
    assert told.held_out.value.tolist() == [0.0, 0.75]
    assert summary(values, found, 0.5, range(4)).held_out is None
    with pytest.raises(DataError, match="4 and 0"):
        summary(values[:4], found[:4], 0.5, range(4))


def test_the_interval_of_the_best_latents_holds_on_the_half_that_did_not_choose_them() -> None:
    """One design of docs/benchmarks/detectors.json, short."""
    found = detector_coverage.cover("topics", studies=10, latents=150)
    assert found["chosen"]["covered"] >= 0.93
    assert found["chosen"]["choosing"] > found["chosen"]["truth"] + 0.02  # what is chosen because it is large is too large
    assert abs(found["chosen"]["held_out"] - found["chosen"]["truth"]) < 0.04


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
    assert workload(params, find("exp10")).arms == 6 + 3
    assert workload(params, find("exp10")).search == 4 * asked.search
    assert workload(params, find("exp03")).search == 2 * asked.search
    assert workload(params, find("exp02")).baseline == 0


def test_a_study_finds_detectors_by_their_areas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake engine's detectors answer to foreign words."""
    monkeypatch.setenv("ESR_ENGINE", "fake")
    params = load("tiny", "smoke")
    block = params.experiments["exp03"] | {"criterion": "auc", "least_auc": 0.9, "max_detectors": 4}
    study = Study(params.model_copy(update={"experiments": {**params.experiments, "exp03": block}}), "tiny", Store(tmp_path))
    what = activations(study)
    assert what.held_out is not None
    found = detectors(study, what)
    assert 0 < len(found) <= 4
    assert {d.latent for d in found} <= set(study.engine.detectors)  # type: ignore[attr-defined]  # the fake engine's own
    assert all(d.auc_held_out is not None and d.auc_low is not None and d.auc_held_out > 0.9 for d in found)
    record(study, {"detectors": found})
    (row,) = study.store.sql("select count(*) as n, min(auc_low) as low from detectors where auc >= auc_low").to_pylist()
    assert row["n"] == len(found)
    assert row["low"] > 0.5
