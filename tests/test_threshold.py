"""The search: the authors' traces to 1e-9, ours against simulated judges, many latents in step."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esr import params
from esr.errors import DataError
from esr.threshold import PATIENCE, Bisection, Score, Search
from esr.threshold.scatter import Scatter

GOLDEN = json.loads((Path(__file__).parent / "golden" / "threshold.json").read_text())


def sigmoid(center: float, width: float = 1.0):
    return lambda boost: 1 / (1 + math.exp((boost - center) / width))


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_the_reference_mode_repeats_the_golden_traces(case):
    b = Bisection(case["lower"], case["upper"], case["prior_mean"], case["prior_std"], case["target"], case["weight"])
    for score, boost in zip(case["scores"], case["boosts"], strict=True):
        assert b.ask() == pytest.approx(boost, abs=1e-9)
        b.tell(score)
    assert b.estimate() == pytest.approx(case["threshold"], abs=1e-9)


# PROTOCOL §3, to the four decimals given there
TRACES = [
    ((0, 100, 7, 5, 0.3), sigmoid(9), "7.5108 10.6711 9.5310 10.0810 9.8810 9.9310 9.9110 9.9210 9.9210 9.9210", 9.921),
    ((0, 50, 10, 10, 0.3), sigmoid(20), "12.0012 18.0518 22.5073 20.3570 21.1971 20.8671 20.9271 20.9171 20.9221 20.9171", 20.9221),
    (
        (0, 300, 150, 75, 0.3),
        sigmoid(100, 10),
        "150.0150 105.4305 117.9718 101.5602 113.6214 109.5410 109.1809 109.1809 109.2109 109.1809",
        109.1809,
    ),
    ((0, 100, 7, 5, 0.3), lambda b: 0.0, "7.5108 4.7105 2.9403 1.7702 1.0201 0.5701 0.3100 0.1600 0.0800 0.0400", 0.02),
]


@pytest.mark.parametrize(("settings_", "score", "asks", "result"), TRACES)
def test_the_reference_mode_repeats_the_protocols_traces(settings_, score, asks, result):
    b = Bisection(*settings_)
    for expected in asks.split():
        assert b.ask() == pytest.approx(float(expected), abs=5.1e-5)
        b.tell(score(b.ask()))
    assert b.estimate() == pytest.approx(result, abs=5.1e-5)


def test_the_reference_mode_flips_between_the_beta_median_and_the_target():
    """F at 0.3 for a score of 0.29 is just below one half, so the authors' update goes right although 0.29 < 0.30."""
    low, high, shifted = (Bisection(0, 100, 7, 5, 0.3) for _ in range(3))
    low.tell(0.28)
    high.tell(0.31)
    shifted.tell(0.29)
    assert low.estimate() < 7.5 < shifted.estimate() < high.estimate()


def test_ours_has_no_shift_at_the_target():
    b = Bisection(0, 100, 50, 20, 0.3)
    for _ in range(20):
        b.tell(0.3, n=50, boost=40.0)
    assert b.estimate() == pytest.approx(40.0, abs=1.0)


def test_more_samples_weigh_more():
    few, many = Bisection(0, 100, 7, 5, 0.3), Bisection(0, 100, 7, 5, 0.3)
    for b, n in ((few, 1), (many, 20)):
        b.tell(0.9, n=n)
        b.tell(0.1, n=n, boost=12.0)
    assert many.interval().high - many.interval().low < few.interval().high - few.interval().low


def test_a_latent_that_never_bites_is_said_so_and_was_tried_at_the_bound():
    b = Bisection(0, 100, 7, 5, 0.3)
    for _ in range(10):
        b.tell(0.9, n=5)
    assert b.status == "never_bites"
    assert b.asks[-1].boost == 100
    assert b.done(early_stop=0.1)
    assert not b.done()


def test_the_reference_search_is_not_ended_early_by_answers_that_all_go_one_way():
    b = Bisection(0, 100, 7, 5, 0.3)
    for _ in range(3):
        b.tell(0.9)
        assert not b.done(early_stop=0.1)


def test_a_latent_that_always_bites_is_said_so():
    b = Bisection(0, 100, 7, 5, 0.3)
    for _ in range(10):
        b.tell(0.1, n=5)
    assert b.status == "always_bites"


def test_the_reference_mode_names_searches_that_went_one_way():
    never, always = Bisection(0, 100, 7, 5, 0.3), Bisection(0, 100, 7, 5, 0.3)
    for _ in range(10):
        never.tell(1.0)
        always.tell(0.0)
    assert (never.status, always.status) == ("never_bites", "always_bites")
    assert never.estimate() == pytest.approx(23.6324, abs=1e-4)


def bimodal(rng: np.random.Generator, boost: float, center: float, n: int) -> float:
    """Mean of n scores that are about 20 or about 85, as judges give them."""
    high = rng.random(n) < 1 / (1 + math.exp(min((boost - center), 50)))
    return float(np.clip(np.where(high, 0.85, 0.20) + rng.normal(0, 0.07, n), 0, 1).mean())


def test_our_interval_covers_and_beats_the_reference_under_bimodal_scores():
    errors: dict[str, list[float]] = {"ours": [], "reference": []}
    covered = 0
    for seed in range(60):
        center = random.Random(seed).uniform(3, 12)
        root = center + math.log((0.85 - 0.3) / (0.3 - 0.2))
        for mode in errors:
            rng = np.random.default_rng(seed)
            b = Bisection(0, 100, 7, 5, 0.3)
            for _ in range(10):
                b.tell(bimodal(rng, b.ask(), center, 5), n=5 if mode == "ours" else None)
            errors[mode].append(b.estimate() - root)
            if mode == "ours":
                covered += b.interval().low <= root <= b.interval().high
    rmse = {mode: float(np.sqrt(np.mean(np.square(e)))) for mode, e in errors.items()}
    assert covered >= 0.9 * 60
    assert rmse["ours"] < rmse["reference"]
    assert abs(np.mean(errors["ours"])) < 0.3


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 40)), max_size=12), st.booleans())
def test_whatever_is_told_the_search_stays_on_its_bounds_and_finite(told, ours):
    b = Bisection(0, 50, 10, 10, 0.3)
    for score, n in told:
        b.tell(score, n if ours else None)
    low, high = b.interval()
    assert 0 <= low <= b.estimate() <= high <= 50
    assert b.status in ("converged", "never_bites", "always_bites", "unresolved")


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 0.28), st.floats(0.3, 1))
def test_a_lower_score_never_asks_for_more_boost(low, high):
    less, more = Bisection(0, 50, 10, 10, 0.3), Bisection(0, 50, 10, 10, 0.3)
    less.tell(low)
    more.tell(high)
    assert less.ask() <= more.ask()


@pytest.mark.parametrize(("score", "n"), [(1.5, None), (-0.1, None), (math.nan, None), (30.0, 5), (0.3, 0)])
def test_scores_off_the_scale_are_refused(score, n):
    with pytest.raises(DataError):
        Bisection(0, 50, 10, 10, 0.3).tell(score, n)


def test_one_search_is_not_told_both_ways():
    b = Bisection(0, 50, 10, 10, 0.3)
    b.tell(0.5)
    with pytest.raises(DataError, match="both ways"):
        b.tell(0.5, n=5)


def many(n: int = 4, **protocol: object) -> Search:
    p = params.load("70b")
    return Search(list(range(n)), p.models["70b"].search, p.protocol.model_copy(update=protocol))


def answer(search: Search) -> None:
    search.tell({latent: Score(sigmoid(5 + latent)(boost), 5) for latent, boost in search.ask()})


def test_many_latents_ask_for_one_batch_a_step():
    search = many(search_steps=10)
    steps = 0
    while not search.done:
        assert len(search.ask()) == 4
        answer(search)
        steps += 1
    assert steps == 10
    found = search.results()
    for latent in range(4):
        assert found[latent].threshold == pytest.approx(5 + latent + math.log(0.7 / 0.3), abs=1.0)
        assert found[latent].low <= found[latent].threshold <= found[latent].high


@pytest.mark.parametrize("mode", ["adaptive", "reference"])
def test_a_search_resumed_anywhere_ends_where_the_uninterrupted_one_does(mode):
    whole = many(search_mode=mode, search_steps=4)
    broken = many(search_mode=mode, search_steps=4)
    while not whole.done:
        answer(whole)
    while not broken.done:
        broken = Search.resume(json.loads(json.dumps(broken.state())))
        answer(broken)
        broken = Search.resume(json.loads(json.dumps(broken.state())))
    assert broken.results() == whole.results()


def test_a_missing_score_is_asked_again_and_given_up_after_a_while():
    search = many(2, search_steps=4)
    before = dict(search.ask())
    search.tell({0: Score(0.5, 5), 1: None})
    assert dict(search.ask())[1] == before[1]
    assert dict(search.ask())[0] != before[0]
    for _ in range(PATIENCE - 1):
        search.tell({0: Score(0.5, 5)})
    assert 1 not in dict(search.ask())
    assert search.results()[1].status == "unresolved"
    assert search.results()[1].asks == ()


def test_an_early_stop_saves_steps():
    search = many(early_stop=0.5, search_steps=30)
    while not search.done:
        answer(search)
    assert all(len(found.asks) < 30 for found in search.results().values())


def test_a_score_for_a_latent_not_asked_about_is_refused():
    with pytest.raises(DataError, match="did not ask"):
        many(2).tell({7: Score(0.1, 5)})


def simulated(curves, *, seed=0, judge=None, bounds=None, order=None, **protocol: object):
    """A whole search of one reply a step; a curve is the chance of a high score. The replies depend on latent, step and seed alone."""
    p = params.load("70b")
    changed = {"samples_per_step": 1, "search_steps": 25, "early_stop": 0.0, **protocol}
    search = Search(order or list(range(len(curves))), bounds or p.models["70b"].search, p.protocol.model_copy(update=changed))
    step = 0
    while not search.done:
        scores = {}
        for latent, boost in search.ask():
            draw = random.Random(f"{seed}/{latent}/{step}")
            up = draw.random() < curves[latent](boost)
            scores[latent] = Score(judge(up, draw) if judge else float(up), 1)
        search.tell(scores)
        step += 1
    return search.results()


def twenty_or_85(up: bool, draw: random.Random) -> float:
    return min(max((0.85 if up else 0.2) + draw.gauss(0, 0.07), 0), 1)


def centers(n: int) -> list[float]:
    return [random.Random(latent).uniform(3, 12) for latent in range(n)]


def test_latents_that_teach_one_another_need_half_the_replies_of_the_reference():
    n = 40
    shift = 0.3 * math.log((0.85 - 0.3) / (0.3 - 0.2))
    roots = [center + shift for center in centers(n)]
    ours = simulated([sigmoid(center, 0.3) for center in centers(n)], judge=twenty_or_85, search_steps=20)
    errors = {"ours": [ours[i].threshold - root for i, root in enumerate(roots)], "reference": []}
    for latent, center in enumerate(centers(n)):
        b, rng = Bisection(0, 100, 7, 5, 0.3), np.random.default_rng(latent)
        for _ in range(10):
            up = rng.random(5) < sigmoid(center, 0.3)(min(b.ask(), center + 10))
            b.tell(float(np.clip(np.where(up, 0.85, 0.2) + rng.normal(0, 0.07, 5), 0, 1).mean()))
        errors["reference"].append(b.estimate() - roots[latent])
    rmse = {mode: float(np.sqrt(np.mean(np.square(e)))) for mode, e in errors.items()}
    assert rmse["ours"] < rmse["reference"]


def test_the_more_latents_the_more_one_learns_of_each():
    def width(n: int) -> float:
        found = simulated([sigmoid(center, 0.3) for center in centers(n)], search_steps=8)
        return float(np.mean([found[i].high - found[i].low for i in range(4)]))

    assert width(40) < 0.7 * width(4)


def test_intervals_cover_where_the_search_stops_and_the_score_there_is_what_was_promised():
    n = 40
    roots = [center + math.log(0.7 / 0.3) for center in centers(n)]
    curves = [sigmoid(center) for center in centers(n)]
    found = simulated(curves, early_stop=1.0, search_steps=60)
    stopped = [i for i in range(n) if len(found[i].asks) < 60]
    assert len(stopped) > n / 2
    assert np.mean([found[i].low <= roots[i] <= found[i].high for i in stopped]) > 0.88
    scores = np.array([curves[i](found[i].threshold) for i in stopped])
    assert np.mean(np.abs(scores - 0.3) <= 0.15) > 0.88
    assert scores.mean() == pytest.approx(0.3, abs=0.03)


def test_what_is_asked_does_not_depend_on_the_order_of_the_latents():
    curves = [sigmoid(center) for center in centers(6)]
    forwards = simulated(curves, search_steps=5)
    backwards = simulated(curves, search_steps=5, order=[5, 4, 3, 2, 1, 0])
    assert list(backwards) == [5, 4, 3, 2, 1, 0]
    assert all(forwards[i] == backwards[i] for i in range(6))


def test_latents_that_never_or_always_bite_are_named_among_others_that_do():
    curves = [sigmoid(center) for center in centers(12)] + [lambda b: 0.97] * 2 + [lambda b: 0.02] * 2
    found = simulated(curves, early_stop=0.5, search_steps=40)
    assert [found[i].status for i in range(12, 16)] == ["never_bites"] * 2 + ["always_bites"] * 2
    assert all(found[i].status in ("converged", "unresolved") for i in range(12))
    assert max(ask.boost for ask in found[12].asks) == 100
    assert len(found[12].asks) < 20


def test_a_latent_far_from_all_others_is_found():
    found = simulated([sigmoid(center) for center in centers(9)] + [sigmoid(60, 4)])
    assert found[9].low <= 60 + 4 * math.log(0.7 / 0.3) <= found[9].high
    assert found[9].status == "converged"


def test_the_first_batch_of_an_adaptive_search_asks_where_the_prior_has_its_mass():
    assert all(2 < boost < 12 for _, boost in many(3, samples_per_step=1).ask())


def test_a_search_is_told_scores_on_the_scale():
    with pytest.raises(DataError, match="divide"):
        many(1).tell({0: Score(30.0, 5)})


@pytest.mark.parametrize("judge", ["flips", "steady"])
def test_the_scatter_of_a_judge_is_learnt(judge):
    rng = np.random.default_rng(0)
    height = rng.uniform(0.1, 0.9, 4000)
    seen = rng.random(4000) < height if judge == "flips" else height + rng.normal(0, 0.1, 4000)
    learnt = Scatter.learnt(height, (seen - height) ** 2, np.ones(4000))
    for at in (0.3, 0.5, 0.7):
        variance = at * (1 - at) if judge == "flips" else 0.01
        assert learnt.variance[int(at * 256)] == pytest.approx(variance, rel=0.25)


def test_a_resumed_search_asks_a_missed_question_again():
    search = many(2, samples_per_step=1)
    asked = dict(search.ask())
    search.tell({0: Score(1.0, 1)})
    resumed = Search.resume(json.loads(json.dumps(search.state())))
    assert dict(resumed.ask()) == dict(search.ask())
    assert dict(resumed.ask())[1] == asked[1]


def test_the_oracle_reaches_what_coin_flips_about_a_known_curve_tell(monkeypatch):
    """Of N replies at the middle of a curve of width w, 2 w / √N."""
    monkeypatch.syspath_prepend(str(params.HOME / "scripts"))
    from threshold_oracle import Knowledge, reached

    rng = np.random.default_rng(0)
    places, width = 4 + 6 * (np.arange(300) + 0.5) / 300, np.full(300, 0.5)
    known, true = Knowledge(places, width, places), rng.uniform(4, 10, 80)

    def mean(boosts, center, width):
        return 1 / (1 + np.exp(np.clip((boosts - center) / width, -40, 40)))

    def answer(latents, boosts):
        return (rng.random(len(latents)) < mean(boosts, true[latents], 0.5)).astype(float)

    found = reached(known, mean, answer, (0.0, 1.0), graded=False, latents=80, target=0.5, marks=(10, 40))
    errors = {n: np.sqrt(((one.estimates - true) ** 2).mean()) for n, one in found.items()}
    assert errors[10] > errors[40]
    assert errors[40] == pytest.approx(2 * 0.5 / np.sqrt(40), rel=0.25)
