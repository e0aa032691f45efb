"""Rates over several trainings of one ratio: what an interval holds when trainings differ, and when there is but one."""

import numpy as np
import pandas as pd
import pytest

from esr.count import trainings
from esr.count.metrics import differences, estimates

LATENTS, QUESTIONS = 24, 10


def arm(rng: np.random.Generator, rates: dict[int, float], latents: int = LATENTS, spread: float = 0.0) -> pd.DataFrame:
    """Each training's trials of the same latents, questions and seeds; a latent's own logit is shared by all trainings."""
    own = rng.normal(0, spread, latents)
    rows = []
    for training, rate in rates.items():
        logit = np.log(rate / (1 - rate)) + np.repeat(own, QUESTIONS)
        multi = rng.random(latents * QUESTIONS) < 1 / (1 + np.exp(-logit))
        rows.append(
            pd.DataFrame(
                {
                    "latent": np.repeat(np.arange(latents), QUESTIONS),
                    "question": np.tile([f"q{i}" for i in range(QUESTIONS)], latents),
                    "seed": np.arange(latents * QUESTIONS),
                    "training": training,
                    "n_attempts": 1 + multi.astype(int),
                    "first_score": 30.0,
                    "last_score": 30.0 + 40 * multi,
                    "multi": multi,
                    "corrected": multi,
                    "degraded": False,
                    "gain": 40.0 * multi,
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def test_one_training_is_counted_as_any_other_arm() -> None:
    rng = np.random.default_rng(1)
    rows, base = arm(rng, {1: 0.4}, spread=0.5), arm(rng, {0: 0.05})
    one = trainings.rate(rows, "multi_attempt_rate")
    told = estimates(rows)["multi_attempt_rate"]
    assert told.interval is not None
    assert (one.value, one.n) == (told.value, told.n)
    assert one.interval == pytest.approx(told.interval)
    assert "one training, which says nothing of others" in one.method
    held = differences(rows, base)["multi_attempt_rate"]
    above = trainings.above(rows, base, "multi_attempt_rate")
    assert (above.value, above.n) == (held.value, held.n)
    assert above.interval == pytest.approx(held.interval)
    assert above.interval is not None
    assert above.interval.low > 0


def test_trainings_that_differ_widen_the_interval_and_those_that_agree_do_not() -> None:
    rng = np.random.default_rng(2)
    alike, apart = arm(rng, {1: 0.4, 2: 0.4, 3: 0.4}), arm(rng, {1: 0.1, 2: 0.4, 3: 0.7})
    narrow, wide = (trainings.rate(rows, "multi_attempt_rate").interval for rows in (alike, apart))
    assert narrow is not None
    assert wide is not None
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    assert wide.low < 0.1, "three trainings from 10 to 70 per cent leave nearly everything open"


def test_each_training_stands_beside_the_same_trial_of_the_base() -> None:
    rng = np.random.default_rng(3)
    rows, base = arm(rng, {1: 0.5, 2: 0.5}), arm(rng, {0: 0.1})
    rows = rows[(rows["training"] == 1) | (rows["latent"] > 3)]  # a latent that does not bite on one checkpoint
    above = trainings.above(rows, base[base["latent"] > 0], "multi_attempt_rate")
    kept = rows[rows["latent"] > 0]
    matched = base.set_index("seed")["multi"].loc[kept["seed"]].mean()
    assert above.n == len(kept)
    assert above.value == pytest.approx(kept["multi"].mean() - matched)


def test_the_interval_holds_the_mean_of_trainings_as_often_as_it_says() -> None:
    rng, held, studies = np.random.default_rng(4), 0, 150
    logits = np.random.default_rng(5).normal(-0.5, 0.6, 20_000)
    truth = float((1 / (1 + np.exp(-logits))).mean())
    for _ in range(studies):
        drawn = 1 / (1 + np.exp(-rng.normal(-0.5, 0.6, 3)))
        one = trainings.rate(arm(rng, dict(enumerate(drawn, 1)), latents=16), "multi_attempt_rate").interval
        assert one is not None
        held += one.low <= truth <= one.high
    assert held / studies > 0.91
