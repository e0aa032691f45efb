"""The views count what the protocol says, and pool nothing that does not belong together."""

import time
from dataclasses import replace

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rows import grade, member, one, reply

from esr.store import Store, schema
from esr.types import Attempt, Grade, Latent


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_a_summary_is_what_a_person_counts(store):
    ms = [member(i) for i in range(8)]
    store.put_members(ms)
    store.put_replies([reply(ms[0], "go go go go go"), reply(ms[1], finish="length"), *map(reply, ms[2:7])])
    store.put_grades([
        grade(ms[0], 10), grade(ms[1], 20, 60), grade(ms[2], 40, 90, 40), grade(ms[3], 50, 10), grade(ms[4], 0),
        grade(ms[5], missing="refused"), grade(ms[6]),
    ])  # fmt: skip
    assert one(store, "from summary") == {
        "experiment": "exp01", "model": "tiny", "arm": "baseline", "judge": "lexical", "scale": "smoke", "n_planned": 8, "n_graded": 5,
        "n_missing": 3, "n_multi": 3, "n_corrected": 1, "n_degraded": 1, "first_score_mean": 24.0, "multi_attempt_rate": 0.6,
        "esr_rate": 0.2, "improvement_rate": 1 / 3, "gain_all_mean": 0.0, "gain_multi_mean": 0.0,
    }  # fmt: skip
    assert store.sql("select truncated from outcomes order by first_score")["truncated"].to_pylist() == [
        False,
        False,
        True,
        False,
        False,
    ]
    assert store.sql('select n, score, "start" from attempts where n > 1 order by all').to_pylist() == [
        {"n": 2, "score": 10.0, "start": 1}, {"n": 2, "score": 60.0, "start": 1}, {"n": 2, "score": 90.0, "start": 1},
        {"n": 3, "score": 40.0, "start": 2},
    ]  # fmt: skip


def test_without_a_denominator_a_rate_is_null(store):
    ms = [member(0)]
    store.put_members(ms)
    row = one(store, "from summary")
    assert (row["judge"], row["n_planned"], row["n_missing"], row["esr_rate"]) == (None, 1, 1, None)
    store.put_grades([grade(ms[0], 30)])
    row = one(store, "from summary")
    assert (row["esr_rate"], row["improvement_rate"], row["gain_multi_mean"], row["gain_all_mean"]) == (0.0, None, None, 0.0)
    store.put_grades([grade(ms[0], missing="refused", judge="haiku-4.5")])
    row = one(store, "from summary where judge = 'haiku-4.5'")
    assert (row["n_graded"], row["n_missing"], row["esr_rate"], row["first_score_mean"]) == (0, 1, None, None)


def test_scales_and_judges_are_never_pooled(store):
    ms = [member(i, scale=scale) for i, scale in enumerate(["smoke", "smoke", "full"])]
    store.put_members(ms)
    store.put_grades([grade(m, 10) for m in ms] + [grade(m, 90, judge="other") for m in ms[:1]])
    rows = store.sql("select scale, judge, n_planned, n_graded, first_score_mean from summary order by all").to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("full", "lexical", 1, 1, 10.0),
        ("smoke", "lexical", 2, 2, 10.0),
        ("smoke", "other", 2, 1, 90.0),
    ]


def test_of_two_judge_prompts_the_newest_counts_and_nothing_counts_twice(store):
    ms = [member(i) for i in range(3)]
    store.put_members(ms)
    store.put_grades([grade(m, 10, prompt="old") for m in ms])
    store.put_grades([grade(m, 50, 90, prompt="new") for m in ms[:2]])
    row = one(store, "from summary")
    assert (row["n_graded"], row["n_missing"], row["first_score_mean"]) == (2, 1, 50.0)
    store.put_grades([grade(m, missing="unreachable", prompt="newest") for m in ms])
    assert one(store, "from summary")["first_score_mean"] == 50.0, "a version without any valid grade does not hide one that has"


def test_a_grade_stands_before_a_missing_one_in_either_order(store):
    ms = [member(0), member(2)]
    store.put_members(ms)
    store.put_grades([grade(ms[0], missing="unreachable"), grade(ms[1], 40)])
    store.ingest()
    store.put_grades([grade(ms[0], 20), grade(ms[1], missing="unreachable")])
    for _ in range(3):
        assert store.sql("select first_score from outcomes order by 1")["first_score"].to_pylist() == [20.0, 40.0]
        store.ingest()
    store.rebuild()
    assert store.sql("select first_score from outcomes order by 1")["first_score"].to_pylist() == [20.0, 40.0]


def test_a_blind_grade_counts_for_every_member_of_its_trial(store):
    steered = member(0, boost=0.0)
    other = replace(steered, trial=replace(steered.trial, latent=Latent(99, "another")))
    assert steered.trial.id == other.trial.id
    store.put_members([steered, other])
    store.put_grades(
        [Grade(trial_id=steered.trial.id, latent=-1, judge="lexical", judge_prompt="blind", attempts=(Attempt(70.0, "x"),))]
    )
    assert one(store, "from summary")["n_graded"] == 2


def test_a_new_plan_of_an_arm_replaces_the_old_one(store):
    old, new = [member(i) for i in range(4)], [member(i, boost=5.0) for i in range(4)]
    store.put_members(old)
    store.put_grades([grade(m, 10) for m in old])
    store.put_members(new)
    assert one(store, "select n_planned, n_graded from summary") == {"n_planned": 4, "n_graded": 0}
    store.put_members(old)
    assert one(store, "select n_planned, n_graded from summary") == {"n_planned": 4, "n_graded": 4}


def test_imported_members_never_join_an_own_arm(store):
    ms = [member(i) for i in range(2)]
    store.put_members(ms, plan="reference")
    store.put(
        "members",
        [
            {
                "experiment": "exp01",
                "model": "tiny",
                "arm": "baseline",
                "scale": "smoke",
                "plan": "reference",
                "trial_id": "x",
                "latent": 1,
            }
        ],
    )
    assert one(store, "select n_planned from summary") == {"n_planned": 3}
    time.sleep(0.002)
    store.put_members(ms)
    assert one(store, "select n_planned from summary") == {"n_planned": 2}


@pytest.fixture(scope="module")
def views():
    with duckdb.connect() as con:
        con.execute(schema.sql("tables"))
        con.execute(schema.sql("views"))
        yield con


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.one_of(st.none(), st.sampled_from([0.0, 12.5, 30.0, 85.0, 100.0])), max_size=4), min_size=1, max_size=12)
)
def test_the_views_count_as_the_protocol_says(views, verdicts):
    """Null scores are dropped first; what is left decides."""
    arm = {"experiment": "exp01", "model": "m", "arm": "a", "scale": "full", "plan": "p"}
    attempts = [[{"score": s, "text": "t", "start": None, "end": None} for s in v] for v in verdicts]
    rows = {
        "trials": [{"trial_id": str(i), "model": "m", "prompt": "q"} for i in range(len(verdicts))],
        "members": [arm | {"trial_id": str(i), "latent": i} for i in range(len(verdicts))],
        "grades": [
            {"trial_id": str(i), "latent": i, "judge": "j", "judge_prompt": "p", "attempts": a} for i, a in enumerate(attempts)
        ],
    }
    for table, some in rows.items():
        views.register("given", schema.typed(table, some))
        views.execute(f"delete from {table}; insert into {table} from given")
    valid = [kept for v in verdicts if (kept := [s for s in v if s is not None])]
    multi = [v for v in valid if len(v) >= 2]
    gain = sum(v[-1] - v[0] for v in multi)
    found = views.sql("select n_planned, n_graded, n_multi, n_corrected, gain_all_mean, gain_multi_mean from summary").fetchall()
    better = sum(v[-1] > v[0] for v in multi)
    wanted = (
        len(verdicts),
        len(valid),
        len(multi),
        better,
        gain / len(valid) if valid else None,
        gain / len(multi) if multi else None,
    )
    assert found == [pytest.approx(wanted)]
