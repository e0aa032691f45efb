"""Whether scores fall over doses: what is said of falling, flat and noisy directions, and how often its intervals hold the truth."""

import numpy as np
import pandas as pd
import pytest

from esr.count.trend import trend, within
from esr.errors import DataError

QUESTIONS = [f"q{i}" for i in range(4)]


def rows(level: float, scores: dict[int, list[float]]) -> pd.DataFrame:
    """One arm: the score of each direction's reply to each question."""
    return pd.DataFrame([
        {
            "experiment": "exp13", "model": "tiny", "arm": f"relative-{level:g}", "judge": "j", "scale": "full", "trial_id": f"{level}/{latent}/{i}",
            "latent": latent, "question": QUESTIONS[i], "seed": i, "n_attempts": 1, "first_score": score, "last_score": score, "multi": False,
            "corrected": False, "degraded": False, "gain": 0.0,
        }
        for latent, some in scores.items()
        for i, score in enumerate(some)
    ])  # fmt: skip


def test_steps_and_directions_are_counted() -> None:
    falling = {latent: [90.0 - latent] * 4 for latent in range(10)}
    further = {latent: [40.0 + (100 if latent == 0 else latent % 3)] * 4 for latent in range(10)}  # the first one rises
    least = {latent: [5.0] * 4 for latent in range(10)}
    found = trend([(1.0, rows(1.0, least)), (0.25, rows(0.25, falling)), (0.5, rows(0.5, further))])
    assert [(step.low, step.high) for step in found.steps] == [(0.25, 0.5), (0.5, 1.0)]
    first, second = found.steps
    assert (first.falls.value, first.rises.value, second.falls.value) == pytest.approx((0.9, 0.1, 1.0))
    assert first.falls.interval is not None
    assert first.falls.interval.low < 0.9 < first.falls.interval.high
    assert second.change.interval is not None
    assert second.change.interval.high < 0
    assert found.within.monotone.value == pytest.approx(0.9)
    assert found.within.tau.value == pytest.approx((9 * -1 + -1 / 3) / 10)
    assert found.within.falling.value < 1
    assert found.within.monotone.n == 10


def test_few_directions_have_no_interval_and_one_level_is_no_trend() -> None:
    few = {latent: [50.0] * 4 for latent in range(3)}
    found = trend([(0.5, rows(0.5, few)), (1.0, rows(1.0, {latent: [20.0] * 4 for latent in few}))])
    assert found.within.tau.value == -1
    assert (found.within.tau.interval, found.within.tau.no_interval) == (None, "only 3 latents")
    with pytest.raises(DataError, match="two levels or more"):
        trend([(0.5, rows(0.5, few))])


def test_intervals_hold_the_truth_and_nothing_is_found_where_there_is_no_trend() -> None:
    """Of 400 studies of 24 directions without any effect of the dose, τ's interval leaves out 0 in about one in twenty."""
    rng, studies = np.random.default_rng(5), 400
    misses = 0
    for _ in range(studies):
        table = rng.normal(50, 10, (24, 1)) + rng.normal(0, 7, (24, 5))
        interval = within(np.clip(table, 0, 100)).tau.interval
        assert interval is not None
        misses += not interval.low <= 0 <= interval.high
    assert 0.025 * studies <= misses <= 0.08 * studies
