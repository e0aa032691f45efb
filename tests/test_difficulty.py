"""Differences at equal first scores: by hand, against the view, and where they cannot be told."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from store_rows import grade, member, reply
from test_metrics import outcome

from esr.count.difficulty import STRATA, standardised, stratum
from esr.count.metrics import differences
from esr.params import load
from esr.store import Store, schema
from esr.study.plan import search_step
from esr.types import Latent


def arm(name: str, scores: list[list[float]], latents: int = 12) -> pd.DataFrame:
    """The same replies, one a seed, for each latent."""
    return pd.DataFrame([outcome(k, s, seed=i, arm=name) for k in range(latents) for i, s in enumerate(scores)])


LOW, LOW_MULTI, HIGH, HIGH_MULTI = [2.0], [2.0, 60.0], [60.0], [60.0, 80.0]
BASE = arm("baseline", [LOW, LOW_MULTI, LOW_MULTI, LOW, HIGH, HIGH, HIGH, HIGH_MULTI])  # 2 of 4 when low, 1 of 4 when high


def test_a_difference_at_equal_scores_worked_by_hand() -> None:
    harder = arm("x", [LOW, LOW_MULTI, LOW, LOW, LOW_MULTI, LOW, HIGH_MULTI, HIGH])  # 2 of 6 when low, 1 of 2 when high
    found = standardised(harder, BASE)["multi_attempt_rate"]
    assert found.value == pytest.approx((4 * (2 / 6) + 4 * (1 / 2)) / 8 - 3 / 8)
    assert (found.n, found.covered, found.latents) == (96, 1.0, 12)
    assert found.interval is not None
    assert found.interval.low < found.value < found.interval.high
    assert differences(harder, BASE)["multi_attempt_rate"].value == pytest.approx(3 / 8 - 3 / 8)


def test_an_arm_that_only_makes_first_attempts_easier_does_not_differ_at_equal_scores() -> None:
    easier = arm("x", [LOW_MULTI, LOW, HIGH, HIGH_MULTI, HIGH, HIGH, HIGH, HIGH])  # 1 of 2, 1 of 6
    like = arm("y", [LOW_MULTI, LOW, HIGH_MULTI, HIGH, HIGH, HIGH, HIGH_MULTI, HIGH])
    raw, alike = differences(easier, BASE)["multi_attempt_rate"], standardised(easier, BASE)["multi_attempt_rate"]
    assert raw.value == pytest.approx(-1 / 8)
    assert alike.value == pytest.approx((4 * 0.5 + 4 / 6) / 8 - 3 / 8)
    assert abs(alike.value) < abs(raw.value)
    assert standardised(like, BASE)["multi_attempt_rate"].value == pytest.approx((4 / 2 + 4 * 2 / 6) / 8 - 3 / 8)


def test_where_strata_are_the_same_it_is_the_raw_difference_with_its_interval() -> None:
    fewer = arm("x", [LOW, LOW_MULTI, LOW, LOW, HIGH, HIGH, HIGH, HIGH_MULTI])
    raw, alike = differences(fewer, BASE)["multi_attempt_rate"], standardised(fewer, BASE)["multi_attempt_rate"]
    assert alike.value == pytest.approx(raw.value)
    same = standardised(BASE.assign(arm="x"), BASE)["esr_rate"]
    assert same.value == 0
    assert same.interval == pytest.approx(differences(BASE.assign(arm="x"), BASE)["esr_rate"].interval)


def test_arms_whose_first_scores_hardly_overlap_have_none_and_say_so() -> None:
    found = standardised(arm("x", [[90.0]] * 8), BASE)["esr_rate"]
    assert (found.value, found.interval, found.covered) == (None, None, 0.0)
    assert found.no_interval == "first scores overlap for 0 % of the baseline"
    apart = arm("x", [[90.0]] * 8)
    assert standardised(apart.assign(seed=99 + apart.index), BASE)["esr_rate"].no_interval == "no pairs"
    assert standardised(BASE[BASE["latent"] < 5].assign(arm="x"), BASE)["esr_rate"].no_interval == "only 5 latents"


def test_the_view_and_the_count_are_one_definition(tmp_path: Path) -> None:
    store, rng = Store(tmp_path / "store"), np.random.default_rng(7)
    for name, experiment, shift in (("baseline", "exp01", 0.0), ("harder", "exp03", -12.0)):
        members = [member(i, arm=name, experiment=experiment, boost=3.0 + (name == "harder")) for i in range(120)]
        firsts = np.clip(rng.choice([3.0, 25.0, 60.0], 120) + rng.normal(shift, 6, 120), 0, 100)
        store.put_members(members)
        store.put_replies([reply(m) for m in members])
        store.put_grades([grade(m, *([f, f + 5] if rng.random() < 0.3 else [f])) for m, f in zip(members, firsts, strict=True)])
    rows = store.sql("select * from outcomes").to_pandas()
    ours, base = (rows[rows["arm"] == name].reset_index(drop=True) for name in ("harder", "baseline"))
    found = standardised(ours, base)
    (seen,) = store.sql("select * from standardised where arm = 'harder'").to_pylist()
    assert seen["n"] == 120
    assert seen["covered"] == pytest.approx(found["esr_rate"].covered)
    assert seen["multi_attempt_standardised"] == pytest.approx(found["multi_attempt_rate"].value)
    assert seen["esr_standardised"] == pytest.approx(found["esr_rate"].value)
    assert seen["esr_difference"] == pytest.approx(differences(ours, base)["esr_rate"].value)
    strata = store.sql(
        "select stratum, sum(n)::int as n from strata where arm = 'harder' group by stratum order by stratum"
    ).to_pylist()
    codes = stratum(ours["first_score"].to_numpy(dtype=float))
    assert {row["stratum"]: row["n"] for row in strata if row["n"]} == {STRATA[k]: int((codes == k).sum()) for k in set(codes)}


def test_the_view_names_the_strata_that_are_counted() -> None:
    text = schema.sql("views").split("VIEW strata")[1].split("AS stratum")[0]
    assert all(f"first_score < {edge} " in text for edge in STRATA[1:])
    assert f"ELSE {STRATA[-1]} END" in text


def test_a_search_under_a_clamp_holds_its_latents_in_every_trial_and_changes_nothing_else() -> None:
    asked = {
        "model": "tiny",
        "weights": "w",
        "meaning": "",
        "asks": [(Latent(5, "five"), 60.0)],
        "step": 0,
        "questions": ["a", "b", "c"],
    }
    free, held = (search_step(load("tiny"), samples=3, clamped=clamped, **asked) for clamped in ((), (9, 7)))
    for one, other in zip(free, held, strict=True):
        assert [(op.kind, op.latent, op.value) for op in other.trial.ops[1:]] == [("clamp", 7, 0.0), ("clamp", 9, 0.0)]
        assert other.trial.ops[:1] == one.trial.ops
        assert (other.trial.question, other.trial.seed, other.trial.boost) == (one.trial.question, one.trial.seed, one.trial.boost)
