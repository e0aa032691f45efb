"""Counting, against cases worked by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esr.count.degraded import degraded
from esr.count.metrics import (
    NAMES,
    by_arm,
    cliffs_delta,
    cohen_d_paired,
    cohen_d_unpaired,
    differences,
    estimates,
    kappa,
    outcomes_frame,
    pabak,
)
from esr.count.statistics import bounds, mcnemar, wilson
from esr.errors import DataError


def outcome(latent: int, scores: list[float], question: str = "q", seed: int = 0, arm: str = "baseline", **over: object) -> dict:
    """One graded trial, by PROTOCOL §1: last against first, middle attempts ignored."""
    multi = len(scores) >= 2
    return {
        "experiment": "exp01",
        "model": "tiny",
        "arm": arm,
        "judge": "lexical",
        "scale": "full",
        "trial_id": f"{arm}/{latent}/{question}/{seed}",
        "latent": latent,
        "question": question,
        "seed": seed,
        "boost": 1.0,
        "threshold": 1.0,
        "n_attempts": len(scores),
        "first_score": scores[0],
        "last_score": scores[-1],
        "multi": multi,
        "corrected": multi and scores[-1] > scores[0],
        "degraded": False,
        "gain": scores[-1] - scores[0],
    } | over


FIVE = pd.DataFrame(
    [
        outcome(1, [20], seed=1),
        outcome(1, [10, 5, 70], seed=2),  # corrected, gain 60
        outcome(1, [40, 40], seed=3),  # multi, not better
        outcome(2, [30, 20], seed=4, degraded=True),  # multi, worse
        outcome(2, [0], seed=5),
    ]
)


def test_every_metric_of_five_trials_worked_by_hand():
    found = {name: e.value for name, e in estimates(FIVE, draws=50).items()}
    assert found == pytest.approx(
        {
            "first_score_mean": (20 + 10 + 40 + 30 + 0) / 5,
            "multi_attempt_rate": 3 / 5,
            "esr_rate": 1 / 5,
            "improvement_rate": 1 / 3,
            "gain_all_mean": (60 + 0 - 10) / 5,
            "gain_multi_mean": (60 + 0 - 10) / 3,
            "degraded_rate": 1 / 5,
            "attempts_mean": (1 + 3 + 2 + 2 + 1) / 5,
        }
    )


def test_esr_rate_is_multi_attempt_rate_times_improvement_rate():
    e = estimates(FIVE, draws=10)
    assert e["esr_rate"].value == pytest.approx(e["multi_attempt_rate"].value * e["improvement_rate"].value)
    assert (e["esr_rate"].k, e["esr_rate"].n, e["improvement_rate"].k, e["improvement_rate"].n) == (1, 5, 1, 3)


def test_a_zero_denominator_is_none_and_a_zero_count_has_an_interval():
    e = estimates(FIVE[~FIVE["multi"]], draws=50)
    assert (e["improvement_rate"].value, e["improvement_rate"].wilson, e["improvement_rate"].bootstrap) == (None, None, None)
    assert e["gain_multi_mean"].value is None
    assert e["esr_rate"].value == 0
    assert e["esr_rate"].wilson.low == 0
    assert e["esr_rate"].wilson.high > 0.3


def test_no_trials_at_all_is_none_everywhere():
    assert {e.value for e in estimates(FIVE[:0], draws=10).values()} == {None}


def test_degraded_replies_leave_every_count_when_excluded():
    assert len(outcomes_frame(FIVE, exclude_degraded=True)) == 4
    assert estimates(outcomes_frame(FIVE, exclude_degraded=True), draws=10)["multi_attempt_rate"].value == 2 / 4


def test_a_trial_without_its_text_is_in_no_count_of_degraded_replies():
    rows = FIVE.assign(degraded=pd.array([True, None, False, None, False], dtype="boolean"))
    e = estimates(rows, draws=20)
    assert (e["degraded_rate"].k, e["degraded_rate"].n, e["esr_rate"].n) == (1, 3, 5)
    assert len(outcomes_frame(rows, exclude_degraded=True)) == 4


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (361, 4877, 0.0670, 0.0817),
        (185, 4877, 0.0330, 0.0437),
        (136, 4875, 0.0237, 0.0330),
        (0, 13118, 0, 0.0003),
        (5, 10, 0.2366, 0.7634),
    ],
)
def test_wilson_is_the_published_interval(k, n, low, high):
    """The published ones were worked from rounded rates."""
    assert wilson(k, n) == pytest.approx((low, high), abs=1.1e-4)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_holds_the_rate_and_stays_a_probability(k, n):
    k = min(k, n)
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert high > low


def test_the_bootstrap_draws_latents_not_trials():
    """Two latents that differ and do not vary inside: only the latents' number can make the interval."""
    rows = pd.DataFrame([outcome(latent, [100.0 * latent], seed=s) for latent in (0, 1) for s in range(500)])
    found = estimates(rows, draws=400)["first_score_mean"]
    assert found.bootstrap == (0, 100)
    assert found.clusters == 2


def test_the_bootstrap_of_independent_latents_is_the_textbook_interval():
    rng = np.random.default_rng(0)
    scores = rng.normal(50, 10, 400)
    rows = pd.DataFrame([outcome(i, [s]) for i, s in enumerate(scores)])
    found = estimates(rows, draws=4000)["first_score_mean"].bootstrap
    half = 1.96 * scores.std(ddof=1) / 20
    assert found == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.12)


def test_one_latent_has_no_clustered_interval():
    assert estimates(FIVE[FIVE["latent"] == 1], draws=10)["esr_rate"].bootstrap is None


def test_the_same_seed_gives_the_same_interval():
    assert estimates(FIVE, draws=100, seed=3) == estimates(FIVE, draws=100, seed=3)


def test_arms_judges_and_scales_are_never_pooled_by_accident():
    mixed = pd.concat([FIVE, FIVE.assign(scale="smoke")])
    with pytest.raises(DataError, match="scale"):
        estimates(mixed, draws=10)
    assert set(by_arm(mixed, draws=10)) == {("exp01", "tiny", "baseline", "lexical", s) for s in ("full", "smoke")}


BEFORE = pd.DataFrame([outcome(latent, [20, 80] if s < 4 else [20], seed=s) for latent in range(10) for s in range(8)])
AFTER = pd.DataFrame(
    [outcome(latent, [30, 80] if s in (0, 7) else [30], seed=s, arm="detectors") for latent in range(10) for s in range(8)]
)


def test_a_paired_difference_worked_by_hand():
    found = differences(AFTER, BEFORE, draws=200)
    multi = found["multi_attempt_rate"]
    assert multi.value == pytest.approx(2 / 8 - 4 / 8)
    assert (multi.n, multi.clusters) == (80, 10)
    assert (multi.mcnemar.gained, multi.mcnemar.lost) == (10, 30)
    assert multi.bootstrap == pytest.approx((-0.25, -0.25))  # every latent shows the same difference
    assert found["first_score_mean"].value == pytest.approx(10)
    assert found["gain_multi_mean"].value == pytest.approx(50 - 60)
    assert found["gain_multi_mean"].mcnemar is None
    assert found["improvement_rate"].value == pytest.approx(0)


def test_pairs_are_of_latent_question_and_seed_and_the_unmatched_stay_out():
    found = differences(AFTER[AFTER["latent"] < 5], BEFORE.sample(frac=1, random_state=1), draws=50)
    assert found["esr_rate"].n == 40
    assert found["esr_rate"].value == pytest.approx(-0.25)


def test_a_difference_needs_one_trial_a_pair():
    with pytest.raises(DataError, match="several"):
        differences(pd.concat([AFTER, AFTER]), BEFORE, draws=10)


def test_arms_without_common_trials_differ_by_none():
    assert differences(AFTER.assign(seed=99 + AFTER.index), BEFORE, draws=10)["esr_rate"].value is None


def test_mcnemar_is_exact_for_few_and_chi_squared_for_many():
    few = mcnemar(np.array([True] * 1 + [False] * 6), np.array([False] * 1 + [True] * 6))
    assert (few.gained, few.lost) == (1, 6)
    assert few.p == pytest.approx(2 * (1 + 7) / 2**7)
    many = mcnemar(np.array([True] * 10 + [False] * 30), np.array([False] * 10 + [True] * 30))
    assert many.p == pytest.approx(math.erfc(math.sqrt(19**2 / 40 / 2)))
    assert mcnemar(np.array([True, False]), np.array([True, False])).p == 1


def test_paired_and_unpaired_d_are_different_numbers():
    x, y = [3.0, 5.0, 7.0, 10.0], [1.0, 4.0, 5.0, 7.0]
    d = np.subtract(x, y)  # 2 1 2 3
    assert cohen_d_paired(x, y) == pytest.approx(2 / math.sqrt(2 / 3))
    assert d.mean() == 2
    pooled = math.sqrt((sum((v - 6.25) ** 2 for v in x) + sum((v - 4.25) ** 2 for v in y)) / 6)
    assert cohen_d_unpaired(x, y) == pytest.approx(2 / pooled)
    assert cohen_d_paired([1, 1], [1, 1]) is None
    assert cohen_d_unpaired([1], [2]) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_cliffs_delta_counts_all_pairs(x, y):
    by_hand = sum((a > b) - (a < b) for a in x for b in y) / (len(x) * len(y))
    assert cliffs_delta(x, y) == pytest.approx(by_hand)
    assert cliffs_delta(y, x) == pytest.approx(-by_hand)


def test_kappa_and_pabak_worked_by_hand():
    a = [1] * 45 + [0] * 55
    b = [1] * 40 + [0] * 5 + [1] * 15 + [0] * 40
    assert kappa(a, b) == pytest.approx((0.80 - (0.45 * 0.55 + 0.55 * 0.45)) / (1 - (0.45 * 0.55 + 0.55 * 0.45)))
    assert pabak(a, b) == pytest.approx(0.6)
    assert kappa([0, 0], [0, 0]) is None  # chance alone agrees fully
    assert pabak([0, 0], [0, 0]) == 1
    assert kappa([], []) is None


@pytest.mark.parametrize(
    ("text", "is_degraded"),
    [
        ("spam spam spam spam spam", True),
        ("so spam\nspam\tspam  spam spam it is", True),
        ("spam spam spam spam and spam", False),
        ("a a a a a a a", False),  # words of one character do not count
        ("Spam spam spam spam spam", False),  # identical, capitals included
        ("spam, spam, spam, spam, spam,", True),
        ("", False),
    ],
)
def test_a_reply_is_degraded_when_a_word_stands_five_times_in_a_row(text, is_degraded):
    assert degraded(text) is is_degraded


def test_bootstrap_bounds_leave_undefined_draws_out_and_give_up_when_most_are():
    assert bounds(np.array([1.0, 2.0, 3.0, np.nan])) == pytest.approx((1.05, 2.95))
    assert bounds(np.array([1.0, np.nan, np.nan])) is None


scores = st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), scores), min_size=1, max_size=40))
def test_rates_hang_together_whatever_the_trials(trials):
    rows = pd.DataFrame([outcome(latent, s, seed=i) for i, (latent, s) in enumerate(trials)])
    e = estimates(rows, draws=30)
    assert set(e) == set(NAMES)
    assert 0 <= e["esr_rate"].value <= e["multi_attempt_rate"].value <= 1
    if e["improvement_rate"].value is not None:
        assert e["esr_rate"].value == pytest.approx(e["multi_attempt_rate"].value * e["improvement_rate"].value)
        assert e["gain_all_mean"].value == pytest.approx(e["gain_multi_mean"].value * e["multi_attempt_rate"].value)
    same = differences(rows, rows, draws=30)
    assert all(d.value in (0, None) for d in same.values())
    assert same["esr_rate"].mcnemar.p == 1
