"""The views count what the protocol says, and pool nothing that does not belong together."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rows import grade, member, one, reply

from esr.errors import StoreError
from esr.store import Store, clock, schema
from esr.types import Arm, Attempt, Grade, Latent


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
        "n_graded_as_told": 5, "multi_attempt_rate_as_told": 0.6, "esr_rate_as_told": 0.2,
        "n_pending": 1, "n_failed": 2,
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
        [Grade(trial_id=steered.trial.id, latent=-1, judge="lexical", judge_prompt="blind", attempts=(Attempt(70.0, "x", 0, 1),))]
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


def test_a_renamed_label_is_the_one_that_is_shown(store):
    ms = [member(i) for i in range(2)]
    renamed = [replace(m, trial=replace(m.trial, latent=replace(m.trial.latent, label="renamed"))) for m in ms]
    for some, label in ((ms, "label 0"), (renamed, "renamed"), (ms, "label 0")):
        store.put_members(some)
        assert store.sql("select latent_label as l from current_members")["l"].to_pylist() == [label] * 2


def test_a_clock_that_was_set_back_hides_nothing_new(store, monkeypatch, caplog):
    """The newer plan, arm, judge's instructions and run stand, in this process, in another one, and after a rebuild; and it is said."""
    arm = Arm("exp01", "baseline", "baseline", against="")
    old, new = (
        [replace(member(i), arm=replace(arm, order=1)) for i in range(4)],
        [replace(member(i, boost=5.0), arm=replace(arm, order=2)) for i in range(3)],
    )
    store.put_members(old)
    store.put_grades([grade(m, 10, prompt="old") for m in [*old, *new]])
    monkeypatch.setattr(clock, "_machine", lambda: datetime.now(UTC) - timedelta(days=400))
    for again in (store, Store(store.root)):
        again.put_members(new)
        again.put_grades([grade(m, 50, 90, prompt="new") for m in new])
    query = "select n_planned, n_graded, n_corrected, place from summary join current_arms using (experiment, model, arm, scale)"
    for _ in range(2):
        assert one(store, query) == {"n_planned": 3, "n_graded": 3, "n_corrected": 3, "place": 2}
        store.rebuild()
    store.put_members(old)
    assert one(store, "select n_planned, place from summary join current_arms using (arm)") == {"n_planned": 4, "place": 1}
    assert "set the clock right" in caplog.text
    monkeypatch.undo()
    store.put_members(new)
    assert one(Store(store.root), "select n_planned from summary") == {"n_planned": 3}
    assert len([r for r in caplog.records if "set the clock right" in r.message]) == 2, "once a store and process"


@pytest.mark.parametrize(
    "written", ["9999-12-31T23:59:59.999999+00:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "never"]
)
def test_a_shard_from_the_end_of_all_calendars_stops_nobody(store, written):
    store.put_members([member(0)])
    path = next((store.root / "shards" / "plans").iterdir())
    facts = {"esr_table": "plans", "esr_schema": str(schema.VERSION), "esr_written": written}
    pq.write_table(pq.read_table(path).replace_schema_metadata(facts), path.with_name("odd.parquet"))
    again = Store(store.root)
    again.put_members([member(0), member(1)])
    assert one(again, "select n_planned from summary") == {"n_planned": 2}


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


def test_an_attempt_that_is_not_in_the_reply_counts_only_as_told(store):
    """Invented: a second attempt makes no correction of a single one, and a verdict of nothing else is no grade."""
    ms = [member(i) for i in range(4)]
    store.put_members(ms)
    verdicts = [
        (Attempt(10.0, "a", 0, 1), Attempt(90.0, "invented")),
        (Attempt(0.0, "invented"), Attempt(40.0, "a", 0, 1), Attempt(60.0, "b", 2, 3)),
        (Attempt(80.0, "invented"),),
        (Attempt(30.0, "a", 0, 1),),
    ]
    grades = [replace(grade(m), attempts=v) for m, v in zip(ms, verdicts, strict=True)]
    store.put_grades(grades)
    columns = "n_attempts, first_score, last_score, multi, corrected, gain, scores"
    told = ", ".join(f"{name}_as_told" for name in ("n_attempts", "first_score", "last_score", "multi", "corrected", "gain"))
    rows = store.sql(f"select {columns}, {told} from outcomes order by first_score").to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (1, 10.0, 10.0, False, False, 0.0, [10.0], 2, 10.0, 90.0, True, True, 80.0),
        (1, 30.0, 30.0, False, False, 0.0, [30.0], 1, 30.0, 30.0, False, False, 0.0),
        (2, 40.0, 60.0, True, True, 20.0, [40.0, 60.0], 3, 0.0, 60.0, True, True, 60.0),
    ]
    row = one(store, "from summary")
    assert (row["n_graded"], row["n_missing"], row["n_multi"], row["esr_rate"]) == (3, 1, 1, 1 / 3)
    assert (row["n_graded_as_told"], row["multi_attempt_rate_as_told"], row["esr_rate_as_told"]) == (4, 0.5, 0.5)
    assert store.sql("select located from attempts order by score")["located"].to_pylist() == [
        False,
        True,
        True,
        True,
        True,
        False,
        False,
    ]


def test_imported_grades_count_as_they_are(store):
    m = member(0)
    store.put_members([m])
    store.put_grades([replace(grade(m, prompt="reference"), attempts=(Attempt(10.0, "a"), Attempt(90.0, "b")))])
    assert one(store, "select n_attempts, corrected, gain from outcomes") == {"n_attempts": 2, "corrected": True, "gain": 80.0}


def test_what_the_judge_is_shown_now_stands_also_when_it_was_shown_before(store):
    """A label is renamed and named back: each grade is stale then, is given again and stands."""
    m = member(0)
    store.put_members([m])
    for score, shown in ((10, None), (20, "a"), (30, "b"), (40, "a"), (50, "b")):
        store.put_grades([replace(grade(m, score), shown=shown)])
        assert one(store, "select first_score, shown from outcomes join judged using (trial_id)") == {
            "first_score": score,
            "shown": shown,
        }
    store.put_grades([replace(grade(m, missing="unreachable"), shown="c")])
    row = one(store, "select attempts[1].score as score, shown from grades")
    assert row == {"score": 50.0, "shown": "b"}, "a missing grade does not hide one that is there"
    before = len(list((store.root / "shards" / "grades").iterdir()))
    store.put_grades([replace(grade(m, missing="unreachable"), shown="c")])
    assert len(list((store.root / "shards" / "grades").iterdir())) == before
    store.rebuild()
    assert one(store, "select shown from grades") == {"shown": "b"}


def test_an_arm_is_what_it_was_put_as(store):
    arms = [Arm("exp02", "absolute-2.5", "absolute", 2.5, 1, mean=4.0, std=1.5), Arm("exp01", "baseline", "baseline", against="")]
    store.put_members([replace(member(i), arm=arm) for i, arm in enumerate(arms)])
    rows = store.sql("from current_arms order by experiment").to_pylist()
    where = {"model": "tiny", "scale": "smoke", "recorded": True}
    assert rows == [
        where | {"experiment": "exp01", "arm": "baseline", "kind": "baseline", "level": None, "place": 0, "against": None, "mean": None, "std": None},
        where | {"experiment": "exp02", "arm": "absolute-2.5", "kind": "absolute", "level": 2.5, "place": 1, "against": "exp01/baseline",
                 "mean": 4.0, "std": 1.5},
    ]  # fmt: skip
    store.put_members([replace(member(0), arm=replace(arms[0], order=5, mean=9.0))])
    assert one(store, "select place, mean from current_arms where experiment = 'exp02'") == {"place": 5, "mean": 9.0}


def test_an_arm_that_was_not_recorded_is_told_from_its_name(store):
    names = {
        "exp01/baseline": ("baseline", None, None),
        "exp01/set-aside": ("set-aside", None, None),
        "exp02/7.25": ("absolute", 7.25, None),
        "exp02/1e-05": ("absolute", 1e-05, None),
        "exp02/relative-0.5": ("relative", 0.5, None),
        "exp03/detectors": ("ablated", None, "exp01/baseline"),
        "exp04/base": ("tuned", None, None),
        "exp04/50": ("tuned", 50.0, "exp04/base"),
        "exp05/self_monitor": ("meta-prompt", None, "exp01/baseline"),
        "exp08/no-steering": ("unsteered", None, "exp01/baseline"),
        "exp10/matched-2": ("ablated", 2.0, "exp01/baseline"),
        "exp10/uniform-11": ("ablated", 11.0, "exp01/baseline"),
    }
    rows = [dict(zip(("experiment", "arm"), name.split("/"), strict=True)) for name in names]
    store.put(
        "members", [{**row, "model": "m", "scale": "full", "plan": "reference", "trial_id": "t", "latent": 1} for row in rows]
    )
    found = store.sql("select experiment || '/' || arm as name, kind, level, against from current_arms").to_pylist()
    assert {row["name"]: (row["kind"], row["level"], row["against"]) for row in found} == names


def test_a_run_is_seen_while_it_runs_and_once_when_it_has_ended(store):
    run = {
        "experiment": "exp01",
        "model": "tiny",
        "scale": "smoke",
        "judge": "lexical",
        "started_at": "2026-01-01T00:00:00Z",
        "manifest": {},
    }
    named = store.put_run(run | {"status": "running"})
    assert one(store, "select status, judge, finished_at from runs") == {
        "status": "running",
        "judge": "lexical",
        "finished_at": None,
    }
    assert store.put_run(run | {"status": "completed", "finished_at": "2026-01-01T01:00:00Z"}) == named
    assert one(store, "select status from runs") == {"status": "completed"}
    row = one(store, "select * exclude (recorded_at) from runs")
    store.put_run(row | {"name": "the long one", "hidden": True})
    assert one(store, "select name, hidden, status from runs") == {"name": "the long one", "hidden": True, "status": "completed"}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from([None, 0.0, 12.5, 30.0, 85.0, 100.0]), st.sampled_from([None, 0, 7])), max_size=4),
        min_size=1,
        max_size=12,
    )
)
def test_the_views_count_as_the_protocol_says(views, verdicts):
    """Null scores are dropped first, then what is not in the reply; what is left decides."""
    arm = {"experiment": "exp01", "model": "m", "arm": "a", "scale": "full", "plan": "p"}
    attempts = [[{"score": s, "text": "t", "start": at, "end": at} for s, at in v] for v in verdicts]
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
    valid = [kept for v in verdicts if (kept := [s for s, at in v if s is not None and at is not None])]
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


def test_activations_are_unpacked_one_value_a_row(store):
    where = {"trial_id": "t", "model": "m", "sae": "s", "layer": 3, "steering": "on", "stage": "before"}
    store.put_activations([
        where | {"pooling": "token", "selection": "top-2", "latents": [7, 9, 9], "positions": [4, 4, 5], "values": [1.5, 0.25, 2.0], "n_positions": 6},
        where | {"pooling": "max", "selection": "list", "latents": [1], "positions": None, "values": [3.0], "listed": [1, 2], "n_positions": 6},
    ])  # fmt: skip
    rows = store.sql(
        'select trial_id, pooling, latent, "position", "value", stage, steering from token_activations order by all'
    ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("t", "max", 1, None, 3.0, "before", "on"),
        ("t", "token", 7, 4, 1.5, "before", "on"),
        ("t", "token", 9, 4, 0.25, "before", "on"),
        ("t", "token", 9, 5, 2.0, "before", "on"),
    ]
    store.ingest()
    assert one(store, "select count(*) as n from token_activations where latent = 9") == {"n": 2}
    long = list(range(5000))
    store.put_activations(
        [where | {"pooling": "token", "selection": "long", "latents": long, "positions": long, "values": long, "n_positions": 5000}]
    )
    query = 'select count(*) as n, count(*) filter (latent = "position" and latent = "value") as same from token_activations where selection = \'long\''
    assert one(store, query) == {"n": 5000, "same": 5000}
    assert one(store, "select count(*) as n from activations where selection = 'long'") == {"n": 3}
    with pytest.raises(StoreError, match="lengths"):
        store.put_activations(
            [where | {"pooling": "token", "selection": "x", "latents": [1], "positions": [1, 2], "values": [0.5]}]
        )
