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
from esr.count.statistics import wilson
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
    found = {name: e.value for name, e in estimates(FIVE).items()}
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
    e = estimates(FIVE)
    assert e["esr_rate"].value == pytest.approx(e["multi_attempt_rate"].value * e["improvement_rate"].value)
    assert (e["esr_rate"].k, e["esr_rate"].n, e["improvement_rate"].k, e["improvement_rate"].n) == (1, 5, 1, 3)


def test_a_zero_denominator_is_none_and_a_zero_count_has_an_interval():
    e = estimates(FIVE[~FIVE["multi"]])
    assert (e["improvement_rate"].value, e["improvement_rate"].within_latents, e["improvement_rate"].interval) == (None, None, None)
    assert e["improvement_rate"].no_interval == "no trials to rest on"
    assert e["gain_multi_mean"].value is None
    assert e["esr_rate"].value == 0
    assert e["esr_rate"].within_latents.low == 0
    assert e["esr_rate"].within_latents.high > 0.3


def test_no_trials_at_all_is_none_everywhere():
    assert {e.value for e in estimates(FIVE[:0]).values()} == {None}


def test_degraded_replies_leave_every_count_when_excluded():
    assert len(outcomes_frame(FIVE, exclude_degraded=True)) == 4
    assert estimates(outcomes_frame(FIVE, exclude_degraded=True))["multi_attempt_rate"].value == 2 / 4


def test_a_trial_without_its_text_is_in_no_count_of_degraded_replies():
    rows = FIVE.assign(degraded=pd.array([True, None, False, None, False], dtype="boolean"))
    e = estimates(rows)
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


def test_an_interval_is_over_latents_not_trials():
    """Latents that differ and do not vary inside: only the latents' number makes the interval, however many trials they have."""
    few, many = (
        pd.DataFrame([outcome(latent, [10.0 * latent], seed=s) for latent in range(10) for s in range(each)]) for each in (2, 200)
    )
    found = [estimates(rows)["first_score_mean"] for rows in (few, many)]
    assert found[0].interval == pytest.approx(found[1].interval)
    assert (found[1].n, found[1].latents) == (2000, 10)
    assert found[1].n_effective == pytest.approx(9 * 2000 / 1999, rel=0.12)
    assert found[1].method.startswith("latents resampled")


def test_a_share_among_independent_trials_is_the_wilson_interval_with_t():
    """One trial a latent: nothing but Student's quantile and the count sets it apart from Wilson's."""
    rows = pd.DataFrame([outcome(i, [20, 80] if i % 5 == 0 else [20]) for i in range(1000)])
    found = estimates(rows)["multi_attempt_rate"]
    assert found.interval == pytest.approx(found.within_latents, abs=5e-4)
    assert found.n_effective == pytest.approx(1000, rel=0.01)


def test_the_interval_of_a_mean_of_independent_latents_is_the_textbook_one():
    rng = np.random.default_rng(0)
    scores = rng.normal(50, 10, 400)
    rows = pd.DataFrame([outcome(i, [s]) for i, s in enumerate(scores)])
    half = 1.966 * scores.std(ddof=1) / 20
    assert estimates(rows)["first_score_mean"].interval == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.05)


def spread_rows(seed: int, latents: int, *, questions: float = 0.0, tilt: float = 0.0, arm: str = "baseline") -> pd.DataFrame:
    """24 questions a latent; latents, and with `questions` those too, restart at rates of their own."""
    rng = np.random.default_rng(seed)
    own, asked = rng.normal(-1.5 + tilt, 1.0, latents), rng.normal(0, questions, 24) if questions else np.zeros(24)
    rate = 1 / (1 + np.exp(-(own[:, None] + asked)))
    return pd.DataFrame(
        [
            outcome(latent, [20, float(rng.integers(5, 95))] if rng.random() < rate[latent, q] else [20], question=f"q{q}", arm=arm)
            for latent in range(latents)
            for q in range(24)
        ]
    )


def test_questions_widen_the_interval_where_they_differ_and_hardly_where_they_do_not():
    def ratio(questions: float) -> float:
        rows = spread_rows(1, 100, questions=questions)
        two, one = (estimates(r)["multi_attempt_rate"].interval for r in (rows, rows.assign(question="q")))
        return (two.high - two.low) / (one.high - one.low)

    assert ratio(1.5) > 1.5
    assert 0.999 < ratio(0.0) < 1.15
    assert "questions" in estimates(spread_rows(1, 12))["esr_rate"].method


def test_fewer_than_ten_latents_have_no_interval_and_it_says_so():
    e = estimates(spread_rows(2, 9))["esr_rate"]
    assert (e.interval, e.method, e.n_effective, e.no_interval) == (None, "", None, "only 9 latents")
    assert e.within_latents is not None
    assert estimates(FIVE[FIVE["latent"] == 1])["esr_rate"].no_interval == "only 1 latent"
    rare = pd.DataFrame([outcome(latent, [20, 80] if latent < 3 else [20], seed=s) for latent in range(20) for s in range(5)])
    assert estimates(rare)["improvement_rate"].no_interval == "only 3 latents with a second attempt"
    assert estimates(rare)["esr_rate"].interval is not None


def test_a_rate_of_none_is_bounded_as_if_each_latent_were_one_trial():
    rows = pd.DataFrame([outcome(latent, [20], seed=s) for latent in range(48) for s in range(24)])
    e = estimates(rows)
    assert e["multi_attempt_rate"].n_effective == pytest.approx(48)
    assert e["multi_attempt_rate"].interval == pytest.approx((0, 2.0117**2 / (48 + 2.0117**2)), abs=1e-4)
    assert (e["gain_all_mean"].interval, e["gain_all_mean"].no_interval) == (None, "all trials alike")


def test_what_two_latents_alone_show_has_a_rate_and_no_mean_size():
    def rows(own: int, **over: object) -> pd.DataFrame:
        shown = {4: [20, 30, 90], 7: [20, 80]}
        trials = [outcome(g, shown.get(g, [20]) if g < own and s == 0 else [20], seed=s) for g in range(20) for s in range(5)]
        return pd.DataFrame(trials).assign(**over)

    e = estimates(rows(20))
    assert e["multi_attempt_rate"].interval is not None
    for name in ("gain_all_mean", "attempts_mean"):
        assert (e[name].interval, e[name].no_interval) == (None, "only 2 latents with a second attempt")
    d = differences(rows(20, arm="x"), rows(5))
    assert d["multi_attempt_rate"].interval is not None
    assert (d["gain_all_mean"].p, d["gain_all_mean"].no_interval) == (None, "only 1 latent whose pairs differ")


def test_attempts_that_every_reply_has_are_as_uncertain_as_their_number():
    """A share of 1 does not bound the mean where its sizes vary."""
    counts = [[20, 30] if (latent + s) % 3 else [20, 30, 40, 50] for latent in range(12) for s in range(6)]
    rows = pd.DataFrame([outcome(i // 6, scores, seed=i % 6) for i, scores in enumerate(counts)])
    e = estimates(rows)["attempts_mean"]
    assert e.value == pytest.approx(8 / 3)
    assert 2.3 < e.interval.low < e.value - 0.05
    assert e.value + 0.05 < e.interval.high < 3.1


def test_attempts_are_never_fewer_than_one_and_their_interval_knows_it():
    rows = pd.DataFrame([outcome(g, [20, 80] if g < 4 and s < 2 else [20], seed=s) for g in range(12) for s in range(10)])
    assert 1 < estimates(rows)["attempts_mean"].interval.low < estimates(rows)["attempts_mean"].value


def test_one_latent_with_large_gains_widens_the_interval_to_its_side():
    rows = pd.DataFrame([outcome(g, [10, 95 if g == 3 else 20 + g], seed=s) for g in range(14) for s in range(3)])
    e = estimates(rows)["gain_multi_mean"]
    assert e.method == "latents resampled: t, skewness"
    assert e.interval.high - e.value > 1.5 * (e.value - e.interval.low)


def test_one_event_does_not_make_the_interval_of_a_thousand_independent_trials():
    rows = pd.DataFrame(
        [outcome(latent, [20, 80] if latent == s == 0 else [20], seed=s) for latent in range(48) for s in range(24)]
    )
    e = estimates(rows)["multi_attempt_rate"]
    assert e.n_effective < 1152 / 2
    assert e.interval.high > 2 * e.within_latents.high / 1.5


def test_arms_judges_and_scales_are_never_pooled_by_accident():
    mixed = pd.concat([FIVE, FIVE.assign(scale="smoke")])
    with pytest.raises(DataError, match="scale"):
        estimates(mixed)
    assert set(by_arm(mixed)) == {("exp01", "tiny", "baseline", "lexical", s) for s in ("full", "smoke")}


BEFORE = pd.DataFrame([outcome(latent, [20, 80] if s < 4 else [20], seed=s) for latent in range(10) for s in range(8)])
AFTER = pd.DataFrame(
    [outcome(latent, [30, 80] if s in (0, 7) else [30], seed=s, arm="detectors") for latent in range(10) for s in range(8)]
)


def test_a_paired_difference_worked_by_hand():
    found = differences(AFTER, BEFORE)
    multi = found["multi_attempt_rate"]
    assert multi.value == pytest.approx(2 / 8 - 4 / 8)
    assert (multi.n, multi.latents) == (80, 10)
    assert -0.5 < multi.interval.low < -0.25 < multi.interval.high < 0
    assert multi.p < 0.05
    assert found["first_score_mean"].value == pytest.approx(10)
    assert found["gain_multi_mean"].value == pytest.approx(50 - 60)
    assert found["gain_multi_mean"].d_paired is None
    assert found["improvement_rate"].value == pytest.approx(0)


def test_pairs_are_of_latent_question_and_seed_and_the_unmatched_stay_out():
    found = differences(AFTER[AFTER["latent"] < 5], BEFORE.sample(frac=1, random_state=1))
    assert found["esr_rate"].n == 40
    assert found["esr_rate"].value == pytest.approx(-0.25)


def test_a_difference_needs_one_trial_a_pair():
    with pytest.raises(DataError, match="several"):
        differences(pd.concat([AFTER, AFTER]), BEFORE)


def test_arms_without_common_trials_differ_by_none():
    assert differences(AFTER.assign(seed=99 + AFTER.index), BEFORE)["esr_rate"].value is None
    assert differences(AFTER.assign(seed=99 + AFTER.index), BEFORE)["esr_rate"].no_interval == "no pairs"


def test_the_p_value_and_the_interval_never_disagree():
    for seed in range(12):
        found = differences(spread_rows(seed, 15, tilt=0.25, arm="x"), spread_rows(100 + seed, 15))
        for d in found.values():
            if d.interval:
                assert (d.p < 0.05) == (d.interval.low > 0 or d.interval.high < 0), d


def test_arms_that_never_differ_have_an_interval_that_is_not_empty():
    same = differences(AFTER, AFTER.assign(arm="other"))
    assert same["multi_attempt_rate"].interval == pytest.approx((-0.3343, 0.3343), abs=1e-3)  # none of ten, both ways
    assert same["multi_attempt_rate"].p == 1
    assert (same["first_score_mean"].interval, same["first_score_mean"].no_interval) == (None, "all pairs alike")


def test_latents_that_react_as_one_man_are_not_many_witnesses():
    """Two latents of twelve gain everything: a test of trials sees 48 gains to none, latents see two of twelve."""
    before = pd.DataFrame([outcome(latent, [20], seed=s) for latent in range(12) for s in range(24)])
    after = pd.DataFrame(
        [outcome(latent, [20, 80] if latent < 2 else [20], seed=s, arm="x") for latent in range(12) for s in range(24)]
    )
    assert differences(after, before)["multi_attempt_rate"].p > 0.05


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


scores = st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), scores), min_size=1, max_size=40))
def test_rates_hang_together_whatever_the_trials(trials):
    rows = pd.DataFrame([outcome(latent, s, seed=i) for i, (latent, s) in enumerate(trials)])
    e = estimates(rows)
    assert set(e) == set(NAMES)
    assert 0 <= e["esr_rate"].value <= e["multi_attempt_rate"].value <= 1
    if e["improvement_rate"].value is not None:
        assert e["esr_rate"].value == pytest.approx(e["multi_attempt_rate"].value * e["improvement_rate"].value)
        assert e["gain_all_mean"].value == pytest.approx(e["gain_multi_mean"].value * e["multi_attempt_rate"].value)
    same = differences(rows, rows)
    assert all(d.value in (0, None) for d in same.values())
    assert same["esr_rate"].p in (1, None)
