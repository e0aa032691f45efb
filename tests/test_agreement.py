"""Agreement against worked cases, weights, and stored replies regraded."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from judge_server import Provider
from judge_setup import KEY, opened, params_at
from scipy import stats

from esr.count import agreement
from esr.params import load
from esr.store import Store
from esr.study import rejudge
from esr.types import BASELINE, Latent, Member, Reply, Trial


def outcomes(judge: str, rows: list[list[float]], model: str = "70b") -> pd.DataFrame:
    """One row per reply from its scores; four replies a latent."""
    return pd.DataFrame(
        [
            {"judge": judge, "model": model, "trial_id": f"{model}-{i}", "latent": i // 4, "n_attempts": len(s), "first_score": s[0],
             "multi": len(s) > 1, "corrected": len(s) > 1 and s[-1] > s[0]}
            for i, s in enumerate(rows)
        ]
    )  # fmt: skip


def test_a_worked_case() -> None:
    a = outcomes("a", [[10, 90], [20, 80], [30, 10], [40], [50], [60], [70], [80]])
    b = outcomes("b", [[15, 95], [25, 20], [30, 5], [45, 50], [55], [65], [60], [90]])
    pair = agreement.pair(pd.concat([a, b]), "a", "b")
    assert (pair.n, pair.n_multi, pair.n_missing) == (8, 3, 0)
    assert pair.multi.value == 7 / 8
    assert pair.pabak.value == 0.75
    chance = 3 / 8 * 4 / 8 + 5 / 8 * 4 / 8
    assert pair.kappa.value == pytest.approx((7 / 8 - chance) / (1 - chance))
    assert pair.direction.value == pytest.approx(2 / 3)
    assert pair.spearman.value == pytest.approx(stats.spearmanr(a["first_score"], b["first_score"]).statistic)
    assert pair.pearson.value == pytest.approx(stats.pearsonr(a["first_score"], b["first_score"]).statistic)
    assert (pair.multi.interval, pair.multi.no_interval, pair.multi.latents) == (None, "only 2 latents", 2)


def noisy(judge: str, seed: int, latents: int, model: str = "70b") -> pd.DataFrame:
    """Four replies a latent; judges see the same replies with errors of their own."""
    same, own = np.random.default_rng(1), np.random.default_rng(seed)
    rows = []
    for _ in range(4 * latents):
        first, multi, up = float(same.integers(0, 90)), same.random() < 0.5, same.random() < 0.7
        first = min(100.0, max(0.0, first + own.normal(0, 10)))
        multi = multi != (own.random() < 0.1)
        rows.append([first, first + 10 if up else first - 10] if multi else [first])
    return outcomes(judge, rows, model)


def test_every_measure_has_an_interval_around_it() -> None:
    pair = agreement.pair(pd.concat([noisy("a", 2, 30), noisy("b", 3, 30)]), "a", "b")
    for name in agreement.MEASURES:
        found = getattr(pair, name)
        assert found.interval is not None, name
        assert found.interval.low < found.value <= found.interval.high <= 1, name
        assert found.method.startswith("latents resampled"), name
    assert pair.pabak.interval == pytest.approx(tuple(2 * v - 1 for v in pair.multi.interval))


def test_perfect_agreement_is_not_certainty() -> None:
    rows = noisy("a", 2, 12)
    pair = agreement.pair(pd.concat([rows, rows.assign(judge="b")]), "a", "b")
    assert (pair.multi.value, pair.kappa.value, pair.pearson.value) == (1, 1, 1)
    assert pair.multi.interval == pytest.approx((12 / (12 + 2.168**2), 1), abs=1e-3)  # t of 11 × 8/7 degrees of freedom
    assert 0 < pair.kappa.interval.low < pair.kappa.interval.high == 1
    assert pair.pearson.no_interval == "all replies on one line"


def test_latents_of_different_models_are_different_latents() -> None:
    one = [noisy("a", 2, 10), noisy("b", 3, 10)]
    two = [noisy("a", 4, 10, "8b"), noisy("b", 5, 10, "8b")]
    pair = agreement.pair(pd.concat(one + two), "a", "b")
    assert pair.multi.latents == 20


def test_a_weight_is_that_many_equal_rows() -> None:
    a, b = outcomes("a", [[10, 90], [20], [30], [40, 3]]), outcomes("b", [[10, 20], [30, 40], [35], [45, 60]])
    heavy = pd.concat([frame.assign(weight=[1.0, 3.0, 2.0, 1.0]) for frame in (a, b)])
    times = [0, 1, 1, 1, 2, 2, 3]
    many = pd.concat([frame.iloc[times].assign(trial_id=[f"{i}" for i in range(len(times))]) for frame in (a, b)])
    one, other = agreement.pair(heavy, "a", "b"), agreement.pair(many, "a", "b")
    for name in agreement.MEASURES:
        assert getattr(one, name).value == pytest.approx(getattr(other, name).value), name


def test_nothing_to_compare_is_none_not_nought() -> None:
    rows = pd.concat([outcomes("a", [[1], [1]]), outcomes("b", [[1], [1]])])
    pair = agreement.pair(rows, "a", "b")
    assert (pair.kappa.value, pair.direction.value, pair.spearman.value, pair.multi.value) == (None, None, None, 1.0)
    empty = agreement.pair(rows[rows["judge"] == "a"], "a", "b")
    assert (empty.n, empty.n_missing, empty.multi.value, empty.multi.interval) == (0, 2, None, None)


def test_an_enriched_sample_has_every_restart_and_its_weights_undo_the_enrichment() -> None:
    rng = np.random.default_rng(1)
    frames = [
        outcomes("a", [[50.0, 60.0 + (i % 2)] if rng.random() < share else [float(rng.integers(0, 100))] for i in range(n)], model)
        for model, n, share in [("70b", 3000, 0.08), ("8b", 400, 0.01)]
    ]
    whole = pd.concat(frames, ignore_index=True)
    whole["trial_id"] = [str(i) for i in range(len(whole))]
    sample = agreement.enriched(whole, size=800, per_model=100, seed=42)
    assert sample["multi"].sum() == whole["multi"].sum()
    assert 780 <= len(sample) <= 800
    assert (sample["model"] == "8b").sum() >= 100
    assert sample["weight"].sum() == pytest.approx(len(whole))
    assert sample.equals(agreement.enriched(whole, size=800, per_model=100, seed=42))
    plain = whole["multi"].mean()
    assert sample["multi"].mean() > 2 * plain
    found = agreement.rates(sample)
    for model, rows in whole.groupby("model"):
        rate = next(r for r in found if r.model == model and r.metric == "multi_attempt_rate")
        assert rate.value == pytest.approx(rows["multi"].mean())


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, Provider]]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ESR_LIMITS", str(tmp_path / "limits"))
    params, store = load("tiny"), Store(tmp_path / "store")
    trials = [
        Trial(model="tiny", weights="w", meaning="", prompt="How do you make coffee?", prompt_format="clean", seed=i, sampling=params.sampling("tiny"),
              question="How do you make coffee?", latent=Latent(i % 5, "castles"))
        for i in range(30)
    ]  # fmt: skip
    store.put_members([Member(arm=BASELINE, model="tiny", scale="full", trial=trial) for trial in trials])
    texts = [f"Grind {i} beans." + (" Wait, let me try again. Pour water." if i % 3 == 0 else "") for i in range(30)]
    store.put_replies(
        [Reply(trial_id=t.id, text=text, token_ids=(1,), n_prompt_tokens=1, finish_reason="stop", applied=0)
         for t, text in zip(trials, texts, strict=True)]
    )  # fmt: skip
    server = Provider().start()
    yield store, server
    server.stop()


def test_stored_replies_are_regraded_once_and_only_what_is_missing(stored: tuple[Store, Provider], tmp_path: Path) -> None:
    store, server = stored
    server.schedule.plan = ["140", "140"]
    judge = opened(params_at(server.url), "haiku-4.5", store=store.root)
    questions = rejudge.stored(store)
    assert len(questions) == 30
    first = rejudge.rejudge(store, judge, questions[:1], size=4)
    assert (first.replies, first.stored, first.missing) == (1, 0, {"malformed": 1})
    assert rejudge.rejudge(store, judge, questions[:10], size=4).missing == {}
    assert first.bill.known > 0
    rest = rejudge.rejudge(store, judge, rejudge.stored(store), size=50)
    assert (rest.replies, rest.stored, rest.missing) == (30, 10, {})
    calls = judge.calls
    assert rejudge.rejudge(store, judge, questions, size=50).stored == 30
    assert judge.calls == calls
    mended = rejudge.rejudge(store, judge, questions, size=50, again=True)
    assert (mended.stored, mended.missing, judge.calls) == (29, {}, calls + 1)
    other = opened(params_at(server.url, "sonnet-4.5"), "sonnet-4.5", store=store.root)
    restarts = rejudge.stored(store, "o.judge = 'haiku-4.5' and o.multi")
    assert len(restarts) == 10
    rejudge.rejudge(store, other, restarts, size=50)
    rows = store.sql("select * from outcomes").to_pandas()
    (pair,) = agreement.pairs(rejudge.weighted(rows, "haiku-4.5"))
    assert (pair.n, pair.n_multi, pair.multi.value) == (10, 10, 1.0)
    judge.close()
    other.close()
    shown = subprocess.run(
        [sys.executable, "-m", "esr", "agreement", "--sampled-by", "haiku-4.5", "--json"], env={"ESR_STORE": str(store.root), "PATH": ""},
        capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert json.loads(shown.stdout)[0]["n_multi"] == 10


@pytest.mark.parametrize("size", [1, 2, 5, 6, 50])
def test_a_sample_is_never_larger_than_asked(size: int) -> None:
    frames = [outcomes("a", [[50.0, 60.0] if i % 5 == 0 else [40.0] for i in range(100)], model) for model in ("70b", "8b")]
    whole = pd.concat(frames, ignore_index=True)
    whole["trial_id"] = [str(i) for i in range(len(whole))]
    assert 0 < len(agreement.enriched(whole, size=size, per_model=100, seed=42)) <= size
