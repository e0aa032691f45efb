"""Statistics of episodes on arrays that a person can work through, and on studies whose truth is planted."""

import math
import sys

import numpy as np
import pytest
from scipy import stats

from esr.count import aligned, authors_regions, detection
from esr.count.contrasts import contrast, holm, share, signed_rank
from esr.count.signed_ranks import wilcoxon
from esr.count.timing import kind
from esr.params import HOME

sys.path.insert(0, str(HOME / "scripts"))

import planted_detectors

NAN = float("nan")


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
@pytest.mark.parametrize("n", [2, 5, 8, 13, 14, 60])
def test_signed_ranks_are_scipys_with_and_without_ties(n: int, alternative: str) -> None:
    rng = np.random.default_rng(n)
    tied = rng.integers(-4, 6, n).astype(float)
    tied[0] = 3
    whole = rng.normal(0.2, 1, n)
    for d in (tied, np.where(tied == 0, 1.0, tied), whole) if n != 13 else (tied, whole):
        found = stats.wilcoxon(d, alternative=alternative)
        assert wilcoxon(d, alternative) == (found.statistic, found.pvalue)


def test_outside_a_reply_there_is_nothing_and_never_zero() -> None:
    values = np.array([1.0, 2.0, 3.0])
    assert aligned.window(values, 1, 3, 3).tolist() == pytest.approx([NAN, NAN, 1, 2, 3, NAN], nan_ok=True)
    assert aligned.window(values, 9, 2, 2).tolist() == pytest.approx([NAN] * 4, nan_ok=True)
    assert aligned.region_mean(values, 1, 3) == 2.5
    assert math.isnan(aligned.region_mean(values, 2, 2))
    assert math.isnan(aligned.region_mean(values, None, 2))
    assert aligned.smoothed(np.array([4.0, 0.0, 2.0])).tolist() == [4.0, 2.0, 2.0]


def test_an_onset_is_the_first_run_above_the_level() -> None:
    before = np.array([0, 9, 0, 0, 5, 6, 0, 7, 8, 9.0])
    assert aligned.held(before, 2).tolist() == [0, 0, 0, 0, 5, 0, 0, 7, 8]
    assert aligned.onset(before, 4, 2) == 6, "one high token is no run"
    assert aligned.onset(before, 6, 2) == 3
    assert aligned.onset(before, 8, 2) is None
    quiet = [np.array([0, 0, float(i), float(i)]) for i in range(20)]
    assert aligned.level(quiet, 0.1, 2) == 18.0, "two of twenty windows reach it"
    assert aligned.level(quiet[:5], 0.1, 2) is None, "five windows cannot tell one in ten"


def test_a_contrast_is_of_pairs_and_names_its_effect_sizes_apart() -> None:
    rng = np.random.default_rng(1)
    latent = np.repeat(np.arange(12), 4)
    other = rng.normal(5, 3, 48)
    one = other + rng.normal(1, 0.5, 48)
    found = contrast(np.append(one, NAN), np.append(other, 1.0), np.append(latent, 99))
    assert (found.n, found.latents) == (48, 12), "a pair that lacks a number is left out"
    assert found.value == pytest.approx((one - other).mean())
    difference = one - other
    assert found.d_paired == pytest.approx(difference.mean() / difference.std(ddof=1))
    assert found.d_unpaired == pytest.approx(difference.mean() / np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2))
    assert found.d_paired > 3 * found.d_unpaired
    assert found.interval is not None
    assert found.interval.low < 1 < found.interval.high
    assert found.p is not None
    assert found.p < 1e-6
    few = contrast(one[:8], other[:8], latent[:8])
    assert (few.interval, few.no_interval, few.p) == (None, "only 2 latents", None)


def test_an_interval_knows_that_episodes_of_one_latent_go_together() -> None:
    """Differences that are the latents' own: as if there were twelve episodes, not 480."""
    own = np.random.default_rng(2).normal(0, 1, 12)
    latent = np.repeat(np.arange(12), 40)
    x = own[latent] + np.random.default_rng(3).normal(0, 0.1, 480)
    found = contrast(x, np.zeros(480), latent)
    assert found.interval is not None
    half = stats.t.ppf(0.975, 11) * own.std(ddof=1) / math.sqrt(12)
    assert (found.interval.high - found.interval.low) / 2 == pytest.approx(half, rel=0.1)
    assert found.p_signed_rank is not None
    assert found.p_signed_rank_by_latent is not None
    assert found.p_signed_rank_by_latent > 3 * found.p_signed_rank


def test_signed_ranks_by_hand() -> None:
    d = [1.0, -2.0, 3.0, 4.0, 0.0, NAN]
    assert signed_rank(d) == pytest.approx(stats.wilcoxon([1, -2, 3, 4]).pvalue)
    # signed ranks 1 −2 3 4; latents a: 1 − 2 = −1, b: 3, c: 4; t = 6 / √26 on 2 degrees of freedom
    assert signed_rank(d, list("aabcca")) == pytest.approx(2 * stats.t.sf(6 / math.sqrt(26), 2))
    assert signed_rank([0.0, 0.0]) is None


def test_holm_by_hand() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_a_share_is_bounded_by_what_its_latents_could_show() -> None:
    found = share([0.0] * 40, np.repeat(np.arange(20), 2))
    assert found.interval is not None
    assert found.interval.low == 0
    assert 0.1 < found.interval.high < 0.2, "as 0 of 20"


def test_the_area_is_within_latents() -> None:
    """A loud latent with many positive tokens would make an area of its own; within latents there is none."""
    rng = np.random.default_rng(4)
    latent = np.repeat(np.arange(20), 40)
    loud = rng.normal(0, 5, 20)
    positive = rng.random(800) < 1 / (1 + np.exp(-loud[latent]))
    score = loud[latent] + rng.normal(0, 1, 800)
    both = np.array([0 < positive[latent == code].sum() < 40 for code in range(20)])
    found = detection.area(score, positive, latent)
    assert found.latents == both.sum()
    assert found.value == pytest.approx(0.5, abs=0.1)
    by_hand = detection.area(np.array([1.0, 3, 2, 2]), np.array([False, True, True, False]), np.zeros(4))
    assert by_hand.value == pytest.approx(0.875), "3 above 1 and 2, 2 above 1, 2 and 2 alike"
    assert by_hand.no_interval == "only 1 latents"


def test_a_latent_is_scored_by_what_the_others_teach() -> None:
    rng = np.random.default_rng(5)
    latent, positive = np.repeat(np.arange(15), 20), np.tile(np.arange(20) % 2 == 0, 15)
    values = rng.normal(0, 1, (300, 3))
    values[positive, 1] += 2
    learnt = detection.area(detection.left_out(values, positive, latent), positive, latent)
    assert learnt.value is not None
    assert learnt.value > 0.85
    assert learnt.interval is not None
    turned = values.copy()
    turned[latent == 0, 1] *= -1
    first = latent == 0
    scores = detection.left_out(turned, positive, latent)
    assert scores[first & positive].mean() < scores[first & ~positive].mean(), "of latent 0 itself nothing was learnt"


def test_the_authors_statistics_by_hand() -> None:
    """Four episodes: off 3 1 4 2, on 1 2 1 1; differences 2 −1 3 1, ranks 3 1.5 4 1.5."""
    off, on = [3.0, 1.0, 4.0, 2.0], [1.0, 2.0, 1.0, 1.0]
    found = authors_regions.tests(off, on)
    assert found.wilcoxon == 8.5
    d = np.array([2.0, -1, 3, 1])
    assert found.t == pytest.approx(1.25 / (d.std(ddof=1) / 2))
    assert found.t_p == pytest.approx(stats.t.sf(found.t, 3))
    assert found.d == pytest.approx(1.25 / math.sqrt((np.var(off, ddof=1) + np.var(on, ddof=1)) / 2))
    assert found.cliffs_delta == pytest.approx((11 - 1) / 16)
    turned = authors_regions.tests(on, off)
    assert turned.t < 0
    assert turned.t_p == pytest.approx(found.t_p), "half of the two-sided p, whatever the sign"
    assert turned.d == pytest.approx(-found.d)
    unequal = authors_regions.tests(off, [*on[:3], NAN])
    assert (unequal.wilcoxon, unequal.wilcoxon_p, unequal.t_p) == (0.0, 1.0, 1.0)
    told = authors_regions.region([0.0, 0.02, 0.04, NAN])
    assert (told.n, told.n_active, told.median) == (3, 2, 0.02)
    assert told.std == pytest.approx(math.sqrt(0.0008 / 3)), "ddof 0"


def test_the_authors_groups_are_over_latents_and_their_curves_count_zeros() -> None:
    off, on, found = authors_regions.group([[4.0, 2.0], [1.0, 3.0], [5.0, 5.0]], [[1.0, 1.0], [2.0, 2.0], [1.0, 3.0]])
    assert (off.mean, on.mean, off.n) == (pytest.approx(10 / 3), pytest.approx(5 / 3), 3)
    assert found.wilcoxon == 3.0, "differences of the latents' means 2, 0 and 3, of which the zero has no rank"
    curve = authors_regions.overlay([np.array([2.0, 4.0]), np.array([6.0, 6.0, 6.0, 6.0])], [1, 2], reach=3)
    assert curve.mean.tolist() == [0.0, 3.0, 4.0, 5.0, 3.0, 0.0]
    assert curve.sem.tolist() == pytest.approx((curve.std / math.sqrt(2)).tolist())
    assert curve.smoothed[0] == pytest.approx((0 + 3 + 4) / 5), "also outside the window there are zeros"


def test_planted_latents_are_found_as_what_they_are() -> None:
    out = planted_detectors.tally(12, seed=7)
    assert out["found_as_what_it_is"]["leader"] == 1.0
    assert out["found_as_what_it_is"]["follower"] >= 0.75
    assert out["found_as_what_it_is"]["noise"] >= 0.75
    assert out["never"]["leader"] < 0.05
    assert out["never"]["follower"] > 0.85
    assert out["onset_of_leader"]["mean"] == pytest.approx(8, abs=1.5)


def test_with_too_few_latents_nothing_is_said() -> None:
    few = planted_detectors.found(planted_detectors.study(np.random.default_rng(1), latents=6))
    assert {one.kind for one in few.values()} == {"unknown"}
    told = few["noise"]
    assert kind(told.now, told.soon, 0.05) == "unknown"
