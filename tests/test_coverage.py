"""The intervals hold the truth as often as they say, on studies whose truth is known."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from esr.count import coverage, judged, ratios, studies
from esr.count.clusters import Clusters
from esr.count.coverage_table import tables
from esr.count.metrics import METRICS
from esr.count.studies import Design, Effect, Rates

STUDIES = 300
LOW = 0.91
"""95 % less three standard errors of 300 studies."""
AA = Effect("A/A, reacting", agreement=0.3)
HALVED = Effect("halved", 0.5, null=False)


@pytest.mark.parametrize(
    "design",
    [
        Design("beta", 48, 24, Rates("beta", 0.17, 0.26)),
        Design("two kinds", 40, 15, Rates("two-point", 0.12, 0.25)),
        Design("logit-normal", 30, 20, Rates("logit-normal", 0.15, 1.3)),
        Design("questions vary", 60, 38, Rates("beta", 0.15, 0.1), questions=1.0),
    ],
    ids=lambda d: d.name,
)
def test_where_events_are_plenty_every_interval_holds_the_truth_as_often_as_it_says(design):
    found = coverage.cover(design, AA, STUDIES)
    assert found.pop(coverage.WITHIN)["coverage"] < 0.8  # Wilson's at n is about these latents only
    for name, row in found.items():
        if row["told"] > STUDIES * 0.9:
            assert LOW <= row["coverage"] <= 0.997, (name, row)


@pytest.mark.parametrize(("latents", "trials", "rate"), [(10, 10, 0.1), (48, 24, 0.01), (10, 10, 0.01)])
@pytest.mark.parametrize("effect", [AA, HALVED], ids=lambda e: e.name)
def test_where_events_are_rare_or_latents_few_no_interval_is_too_sure(latents, trials, rate, effect):
    design = Design("beta", latents, trials, Rates("beta", rate, 0.1))
    for name, row in coverage.cover(design, effect, STUDIES).items():
        if row["told"] > STUDIES / 4 and name != coverage.WITHIN:
            assert row["coverage"] >= LOW, (name, row)


@pytest.mark.parametrize(
    ("design", "name", "count", "lowest"),
    [
        (Design("most at 0", 10, 10, Rates("zero-or-beta", 0.1, 0.3)), "Δ gain_all_mean", 2_000, 0.93),
        (Design("near 1", 48, 24, Rates("beta", 0.95, 0.1)), "attempts_mean", 500, 0.935),
        (Design("heavy", 48, 10, Rates("log-normal", 0.05, 1.4), sizes=1.0), "gain_multi_mean", 1_000, 0.9),
    ],
    ids=lambda value: value.name if isinstance(value, Design) else None,
)
def test_few_latents_or_a_long_tail_or_a_rate_near_one_do_not_make_it_too_sure(design, name, count, lowest):
    assert coverage.cover(design, AA, count)[name]["coverage"] >= lowest


def test_an_arm_that_changes_nothing_is_rarely_called_different_though_latents_react():
    row = coverage.cover(Design("beta", 48, 24, Rates("beta", 0.17, 0.26)), AA, 600, single=False)
    for name in ("Δ multi_attempt_rate", "Δ esr_rate", "Δ gain_all_mean", "Δ improvement_rate"):
        assert 0.015 <= 1 - row[name]["coverage"] <= 0.075, (name, row[name])


@pytest.mark.parametrize("panel", judged.PANELS[:4:3], ids=lambda p: p.name)
def test_agreement_holds_the_truth_with_ten_latents(panel):
    for name, row in coverage.cover_agreement(panel, 200).items():
        if row["told"] > 150:
            assert row["coverage"] >= 0.90, (name, row)


def test_rates_have_the_mean_that_they_are_said_to_have():
    u = (np.arange(100_000) + 0.5) / 100_000
    for design in studies.designs() + studies.drawn():
        rates = design.rates.quantiles()(u)
        assert rates.mean() == pytest.approx(design.rates.mean, rel=0.02), design
        assert ((rates >= 0) & (rates <= 1)).all(), design


def test_few_questions_are_taken_as_given():
    latent, question = np.repeat(np.arange(12), 6), np.tile(np.arange(6), 12)
    assert Clusters.of(latent, question).questions is None
    assert Clusters.of(latent, np.arange(72)).questions is not None


def test_the_degrees_of_freedom_are_those_of_equal_latents_where_they_are_equal():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=(4_000, 12)), 5, axis=1)
    clusters = Clusters.of(np.repeat(np.arange(12), 5))
    weight = np.full(values.shape, 1 / 60)
    spread = clusters.spread((values - values.mean(axis=1, keepdims=True)) / 60, weight)
    assert spread.variance.mean() == pytest.approx(1 / 12, rel=0.03)
    assert spread.df.max() <= 11 + 1e-9
    assert spread.units == pytest.approx(12)


def test_a_few_latents_that_make_the_variance_make_few_degrees_of_freedom():
    clusters, weight = Clusters.of(np.arange(48)), np.full(48, 1 / 48)
    for carry, least, most in ((2, 2.5, 3), (6, 8, 14), (48, 46.9, 47.1)):
        residual = np.where(np.arange(48) < carry, 1.0, 0.0) * np.where(np.arange(48) % 2, 1, -1) / 48
        assert least < clusters.spread(residual, weight).df < most, carry
    none = clusters.spread(np.zeros(48), weight)
    assert none.df == pytest.approx(47)  # nothing says that few would


def test_the_skewness_is_right_on_average_however_few_the_latents():
    rng = np.random.default_rng(0)
    each = rng.exponential(size=(60_000, 10)) - 1
    for w in (np.full(10, 0.1), np.array([4, 3, 2, 2, 2, 1, 1, 1, 1, 1]) / 18):
        residual = w * (each - (w * each).sum(axis=1, keepdims=True))
        spread = Clusters.of(np.arange(10)).spread(residual, np.broadcast_to(w, residual.shape))
        third = (spread.skewness * spread.variance**1.5).mean()
        assert third == pytest.approx(2 * (w**3).sum(), rel=0.05)  # an exponential's third moment is 2


def test_a_difference_that_single_pairs_make_has_the_more_degrees_of_freedom():
    rng = np.random.default_rng(0)
    rate = np.repeat(
        np.where(np.arange(20) % 2, 0.5, 0.02), 12
    )  # won and lost both crowd into every other latent, their difference does not
    x, y = (np.asarray(rng.random((400, 240)) < rate, float) for _ in range(2))
    clusters, one = Clusters.of(np.repeat(np.arange(20), 12)), np.ones_like(x)
    spread = clusters.spread((x - y - (x - y).mean(axis=1, keepdims=True)) / 240, one / 240)
    found = ratios.difference(METRICS["multi_attempt_rate"], x, y, one, one, clusters)
    assert np.median(found.df / spread.df) > 1.6


def test_pairs_that_fall_as_coins_are_told_apart_as_often_as_the_exact_test_says():
    x, y = np.zeros((3, 20)), np.zeros((3, 20))
    x[0, :9], y[0, 9] = 1, 1
    x[1, :8], y[1, 8:10] = 1, 1
    assert coverage.exact(x, y) == pytest.approx([22 / 1024, 112 / 1024, 1.0])


def test_what_comes_in_steps_is_held_more_often_by_whatever_interval():
    rng = np.random.default_rng(0)
    assert coverage.least(rng.normal(size=20_000)) == pytest.approx(0.95, abs=0.001)
    assert coverage.least(rng.poisson(1.0, size=200_000) / 100) == pytest.approx(
        1 - 0.019, abs=0.002
    )  # 0 cannot be left out, 3 neither
    assert coverage.least(np.zeros(50)) == 1


def test_a_cell_of_one_trial_each_is_counted_as_one_of_several_is():
    rng = np.random.default_rng(0)
    latent, question, residual = np.repeat(np.arange(12), 10), np.tile(np.arange(10), 12), rng.normal(size=120)
    twice = Clusters.of(np.repeat(latent, 2), np.repeat(question, 2))
    assert twice.cells is not None
    once = Clusters.of(latent, question)
    assert once.cells is None
    whole = [c.spread(np.repeat(residual, k) / k, np.full(120 * k, 1 / 120 / k)) for c, k in ((once, 1), (twice, 2))]
    shuffled = rng.permutation(120)
    apart = Clusters.of(latent[shuffled], question[shuffled]).spread(residual[shuffled], np.full(120, 1 / 120))
    assert apart.variance == pytest.approx(whole[0].variance)
    assert whole[1].variance == pytest.approx(whole[0].variance, rel=0.2)


def test_the_command_writes_the_table(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(tmp_path / "out.json")], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent
    )  # fmt: skip
    found = json.loads((tmp_path / "out.json").read_text())
    assert [d["effect"] for d in found["designs"]] == ["A/A", "A/A, reacting", "halved", "halved, reacting"]
    assert len(done.stdout.splitlines()) == 5
    assert found["designs"][0]["statistics"]["esr_rate"]["studies"] == 20


COMMAND = """
import sys
from esr.count import __main__, judged, studies
designs, judged.PANELS = studies.designs()[1:2], judged.PANELS[:1]
studies.designs = lambda: designs
studies.drawn = lambda: []
sys.argv = ["count", "coverage", "--studies", "20", "--out", sys.argv[1]]
__main__.main()
"""


def test_the_page_shows_the_numbers_that_were_measured():
    home = Path(__file__).parent.parent / "docs"
    page, found = (home / "statistics.md").read_text(), json.loads((home / "benchmarks" / "coverage.json").read_text())
    for name, table in tables(found).items():
        assert table in page, name
