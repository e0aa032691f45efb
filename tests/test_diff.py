"""python -m esr diff: what two sides have in pairs, what has no partner and why, what changed most, and what two runs were made with."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from store_rows import grade, member, reply

from esr.__main__ import main
from esr.count.changes import changes, parting
from esr.record.between import between
from esr.store import Store
from esr.types import Member


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    return Store()


def asked(capsys, *words: str) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def diff(capsys, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(asked(capsys, "diff", *words, "--json"))
    return found


def arm(i: int, name: str, boost: float) -> Member:
    return member(i, arm=name, experiment="exp01" if name == "baseline" else "exp05", scale="full", boost=boost)


def filled(store: Store, n: int = 60) -> dict[str, list[Member]]:
    """Trials in two arms; the second corrects itself more often, and in other words."""
    arms = {name: [arm(i, name, boost) for i in range(n)] for name, boost in (("baseline", 3.0), ("self_monitor", 2.0))}
    for name, members in arms.items():
        store.put_members(members)
        said = "Boil the water slowly." if name == "baseline" else "Boil the kettle. Wait."
        store.put_replies([reply(m, said) for m in members])
        often = 4 if name == "baseline" else 2
        store.put_grades([grade(m, 20.0, 60.0) if i % often == 0 else grade(m, 30.0) for i, m in enumerate(members)])
    return arms


def test_arms_and_judges_are_held_against_each_other_in_pairs(store, capsys):
    members = filled(store)["baseline"]
    found = diff(capsys, "exp05/self_monitor", "exp01/baseline")
    (one,) = found["arms"]
    assert (found["kind"], found["differs"], one["pairs"]) == ("arm", None, 60)
    rate = one["differences"]["esr_rate"]
    assert rate["value"] == pytest.approx(0.25)
    assert rate["interval"][0] < 0.25 < rate["interval"][1]
    out = asked(capsys, "diff", "exp05/self_monitor", "exp01/baseline", "--limit", "2")
    for text in ("60 pairs", "Changed: 60 of 60 pairs, 15 in outcome, 45 in words alone", "A corrected (20 60), B single (30)",
                 "2 words alike to “Boil the”, then A “kettle. Wait.”, B “water slowly.”", "and 58 more"):  # fmt: skip
        assert text in out
    store.put_grades([grade(m, 25.0, judge="haiku-4.5") for m in members])
    found = diff(capsys, "haiku-4.5", "lexical", "--limit", "0")
    (one,) = found["arms"]
    assert (found["kind"], one["pairs"], one["n_changed"]) == ("judge", 60, 60)
    assert one["differences"]["esr_rate"]["value"] == pytest.approx(-0.25)
    assert {change["parting"] for change in one["changed"]} == {None}, "it is one reply"
    for words, said in (
        (("exp05/self_monitor", "tiny"), "are not two arms, two models"),
        (("exp01/baseline", "exp05/self_monitor", "--scale", "smoke"), "there are none yet"),
        (("exp05/self_monitor", "exp01/baseline"), "choose one with --judge"),
    ):
        assert main(["diff", *words]) == 2
        assert said in capsys.readouterr().err


def test_a_trial_without_a_partner_is_counted_with_its_reason(store, capsys):
    some, other = ([arm(i, name, boost) for i in range(24)] for name, boost in (("baseline", 3.0), ("self_monitor", 2.0)))
    other = [replace(m, trial=replace(m.trial, seed=900)) if i == 2 else m for i, m in enumerate(other[:20])]
    store.put_members(some)
    store.put_members(other)
    store.put_replies([reply(m) for m in (*some, *other[:-1])])
    store.put_grades([grade(m, missing="refused") if i == 5 else grade(m, 30.0) for i, m in enumerate(some)])
    store.put_grades([grade(m, 30.0) for i, m in enumerate(other[:-1]) if i != 7])
    (one,) = diff(capsys, "exp05/self_monitor", "exp01/baseline")["arms"]
    a, b = one["partners"]["a"], one["partners"]["b"]
    assert (a["planned"], a["graded"], a["paired"], b["planned"], b["graded"], b["paired"]) == (20, 18, 16, 24, 23, 16)
    assert a["lacking"] == {
        "the other side has its latent and question, and not with its seed": 1,
        "its partner: not graded: refused": 1,
        "not asked yet": 1,
        "no reply yet": 1,
    }
    assert b["lacking"] == {
        "the other side has no trial of its latent": 4,
        "the other side has its latent and question, and not with its seed": 1,
        "not graded: refused": 1,
        "its partner: not asked yet": 1,
        "its partner: no reply yet": 1,
    }
    assert one["pairs"] + sum(b["lacking"].values()) == 24
    assert "4 × the other side has no trial of its latent" in asked(capsys, "diff", "exp05/self_monitor", "exp01/baseline")


def row(latent: int, scores: list[float], text: str = "a b c", **more: Any) -> dict[str, Any]:
    multi = len(scores) > 1
    verdict = {"multi": multi, "corrected": multi and scores[-1] > scores[0], "scores": scores, "degraded": False}
    told = {"trial_id": f"t{latent}", "latent": latent, "latent_label": "x", "question": "q", "seed": 1, "boost": 1.0}
    return {**told, **verdict, "begins": [None for _ in scores], "text": text, "lacks": "", **more}


def test_what_changed_most_comes_first_and_what_did_not_change_is_not_told():
    a = [
        row(0, [30]),
        row(1, [30]),
        row(2, [30], "a b x"),
        row(3, [30]),
        row(4, [30, 20]),
        row(5, [30], "z b c"),
        row(6, [30], "a  b c"),
    ]
    b = [row(0, [40]), row(1, [10, 20]), row(2, [30]), row(3, [90]), row(4, [30, 40]), row(5, [30]), row(6, [30])]
    found = changes(a, b)
    assert [one.latent for one in found.changed] == [1, 4, 3, 0, 5, 2]
    assert [one.what for one in found.changed] == [
        ("outcome", "scores"),
        ("outcome", "scores"),
        ("scores",),
        ("scores",),
        ("text",),
        ("text",),
    ]
    assert found.outcomes == {("single", "single"): 5, ("single", "corrected"): 1, ("multi", "corrected"): 1}


def test_where_replies_part():
    told = parting("one two three four five six seven", "one two three four five six eight nine")
    assert told is not None
    assert (told.words, told.before, told.a, told.b) == (6, "two three four five six", "seven", "eight nine")
    told = parting("one two", "one two three")
    assert told is not None
    assert (told.words, told.a, told.b) == (2, "", "three")
    assert parting("one  two", "one two\n") is None


def manifest(target: float, preset: str, **more: Any) -> dict[str, Any]:
    models = {
        "tiny": {"sae": "s", "judge": "lexical", "dtype": "float32" if target < 0.4 else "bfloat16"},
        "8b": {"sae": "other", "target": target},
    }
    content = {
        "preset": preset,
        "protocol": {"target": target, "top_p": 1.0},
        "models": models,
        "experiments": {"exp01": {"latents": 30}},
    }
    return {
        "params": {"content": content},
        "libraries": {"vllm": "0.32"},
        "revision": {"commit": "0123456789", "dirty": False},
        **more,
    }


def runs_of_two_plans(store: Store) -> tuple[str, str]:
    """The same latents, questions and seeds at another boost under another preset: the second plan of the arm replaces the first."""
    ids = []
    for target, preset, boost, scores in ((0.3, "v1", 3.0, (30.0,)), (0.5, "era_j", 1.5, (20.0, 60.0))):
        members = [arm(i, "baseline", boost) for i in range(40)]
        row = {"experiment": "exp01", "model": "tiny", "scale": "full", "judge": "lexical", "manifest": manifest(target, preset)}
        began = datetime.now(UTC)
        store.put_members(members)
        store.put_replies([reply(m, f"fine words at {boost}") for m in members])
        store.put_grades([grade(m, *scores) for m in members])
        ended = datetime.now(UTC) + timedelta(milliseconds=1)
        ids.append(store.put_run({**row, "status": "completed", "started_at": began, "finished_at": ended}))
    return ids[0], ids[1]


def test_two_runs_are_held_against_each_other_as_they_stood_when_they_ended(store, capsys):
    first, second = runs_of_two_plans(store)
    assert store.sql("select distinct boost from outcomes").to_pylist() == [{"boost": 1.5}]
    for a, b, kind in ((first[:8], second[:8], "run"), ("v1", "era_j", "preset")):
        found = diff(capsys, a, b)
        (one,) = found["arms"]
        assert (found["kind"], one["pairs"], one["n_outcome_changed"]) == (kind, 40, 40)
        assert one["differences"]["first_score_mean"]["value"] == pytest.approx(10.0)
        assert {change["a"]["boost"] for change in one["changed"]} == {3.0}
        assert found["differs"] == [
            {"what": "preset", "a": "v1", "b": "era_j"},
            {"what": "protocol.target", "a": "0.3", "b": "0.5"},
            {"what": "models.tiny.dtype", "a": "float32", "b": "bfloat16"},
        ], "what other models' blocks say is not told"
    plans = store.sql("select plan from plans order by recorded_at")["plan"].to_pylist()
    (one,) = diff(capsys, plans[0][:10], plans[1][:10])["arms"]
    assert (one["pairs"], one["differences"]["first_score_mean"]["value"]) == (40, pytest.approx(10.0))
    out = asked(capsys, "diff", first[:8], second[:8])
    assert out.index("protocol.target") < out.index("first-attempt score") < out.index("Changed:")
    asked(capsys, "runs", "name", first, "before")
    assert "(before)" in asked(capsys, "diff", "before", second[:8])
    assert main(["diff", first[:8], second[:8], "--arm", "exp01/other"]) == 2
    assert "it has the arms exp01/baseline" in capsys.readouterr().err


def test_of_a_run_that_never_ended_what_stood_before_the_next_one_counts(store, capsys):
    first, second = runs_of_two_plans(store)
    rows = {row["run_id"]: row for row in store.sql("select * from runs").to_pylist()}
    killed = {key: value for key, value in rows[first].items() if key not in ("recorded_at", "run_id")} | {"finished_at": None}
    lost = store.put_run({**killed, "run_id": "feedfeed", "status": "running", "started_at": rows[first]["started_at"]})
    (one,) = diff(capsys, lost, second[:8])["arms"]
    assert {change["a"]["boost"] for change in one["changed"]} == {3.0}


def test_a_run_that_found_every_reply_stored_is_not_said_to_have_had_another_engine():
    rows = [{"experiment": "exp01", "model": "tiny", "scale": "full", "judge": "lexical", "manifest": manifest(0.3, "v1", engine=engine)}
            for engine in ({"backend": "vllm"}, None)]  # fmt: skip
    assert between(*rows) == []
    dirty = {**rows[0], "manifest": manifest(0.3, "v1", revision={"commit": "0123456789", "dirty": True}, prompts={"judge": "a"})}
    assert {(one.what, one.a, one.b) for one in between(rows[1], dirty)} == {
        ("prompt judge", "nothing", "a"),
        ("code", "0123456", "0123456, with changes that were not committed"),
    }
