"""History, one command each: runs are listed, named and hidden; a trial is shown whole; outcomes are exported."""

import json
import platform
import shlex
import subprocess

import pandas as pd
import pytest
from store_rows import grade, member, reply

from esr.__main__ import main
from esr.params import load
from esr.record.run import RUNNING, put_run
from esr.store import Store
from esr.types import Attempt


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    return Store()


def asked(capsys, *words: str) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def filled(store: Store) -> list:
    """Sixty trials each in two arms; the second corrects itself more often."""
    arms = {name: [member(i, arm=name, experiment=e, scale="full", boost=b) for i in range(60)]
            for e, name, b in (("exp01", "baseline", 3.0), ("exp05", "self_monitor", 2.0))}  # fmt: skip
    for name, members in arms.items():
        store.put_members(members)
        store.put_replies([reply(m, "fine words") for m in members])
        often = 4 if name == "baseline" else 2
        store.put_grades([grade(m, 20.0, 60.0) if i % often == 0 else grade(m, 30.0) for i, m in enumerate(members)])
    return arms["self_monitor"]


def test_a_run_is_seen_while_it_runs_and_is_one_row_when_it_ended(store, capsys):
    from datetime import UTC, datetime

    params = load("tiny", "smoke")
    told = {"experiment": "exp01", "model": "tiny", "judge": "lexical", "judges": [], "engine": None}
    started = datetime(2026, 1, 1, tzinfo=UTC)
    row = put_run(store, params, **told, started=started, status=RUNNING)
    (found,) = json.loads(asked(capsys, "runs", "--json"))
    assert (found["status"], found["judge"], found["scale"]) == ("running", "lexical", "smoke")
    assert found["seconds"] > 0
    dead = subprocess.Popen(["true"])
    dead.wait()
    told_dead = {"host": {"name": platform.node(), "process": dead.pid}}
    lost = store.put_run({"experiment": "exp02", "status": RUNNING, "started_at": "2025-01-01T00:00:00Z", "manifest": told_dead})
    assert [one["status"] for one in json.loads(asked(capsys, "runs", "--json"))] == ["killed", "running"]
    asked(capsys, "runs", "hide", lost)
    asked(capsys, "runs", "name", row[:10], "the first")
    assert put_run(store, params, **told, started=started, status="completed", cost=1.25, run_id=row) == row
    (found,) = json.loads(asked(capsys, "runs", "--json"))
    assert (found["status"], found["cost"], found["name"]) == ("completed", 1.25, "the first")
    assert "the first" in asked(capsys, "runs")
    asked(capsys, "runs", "hide", row)
    assert json.loads(asked(capsys, "runs", "--json")) == []
    assert len(json.loads(asked(capsys, "runs", "--json", "--all"))) == 2
    asked(capsys, "runs", "unhide", row)
    assert len(json.loads(asked(capsys, "runs", "--json"))) == 1
    assert main(["runs", "hide", "nothing"]) == 2
    assert main(["runs", "name", row]) == 2


def test_a_trial_is_shown_whole_with_every_verdict(store, capsys):
    m = member(1, scale="full")
    store.put_members([m])
    store.put_replies([reply(m, "Chess is old. Wait, let me start again. Bread is baked. The end.")])
    from dataclasses import replace

    one = replace(grade(m, 1.0), attempts=(Attempt(20.0, "Chess is old.", 0, 13), Attempt(80.0, "Bread is baked.", 40, 55)))
    store.put_grades([one, grade(m, missing="refused", judge="haiku-4.5")])
    out = asked(capsys, "show", m.trial.id[:12])
    assert "⟦attempt 1: 20⟧Chess is old.⟦end 1⟧" in out
    assert "⟦attempt 2: 80⟧Bread is baked.⟦end 2⟧ The end." in out
    for text in (
        "label 0",
        "seed 1",
        "add 3 × latent 0",
        "question 1",
        "judge haiku-4.5",
        "refused",
        "python -m flows exp01 tiny --scale full",
    ):
        assert text in out
    assert json.loads(asked(capsys, "show", m.trial.id, "--json"))["reply"]["text"].startswith("Chess")
    assert main(["show", "nosuchtrial"]) == 2


def test_outcomes_are_exported_as_csv_and_parquet(store, tmp_path, capsys):
    filled(store)
    asked(capsys, "export", "exp05", "tiny", "--to", str(tmp_path / "a.csv"), "--text")
    asked(capsys, "export", "exp05", "tiny", "--to", str(tmp_path / "a.parquet"))
    a, b = pd.read_csv(tmp_path / "a.csv"), pd.read_parquet(tmp_path / "a.parquet")
    assert len(a) == len(b) == 60
    assert a["trial_id"].tolist() == b["trial_id"].tolist()
    assert set(a["scores"].astype(str)) == {"20 60", "30"}
    assert set(a["reply"]) == {"fine words"}
    assert main(["export", "exp05", "tiny", "--to", str(tmp_path / "a.xlsx")]) == 2
    assert main(["export", "exp09", "tiny", "--to", str(tmp_path / "a.csv")]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.parquet", "store"]


def test_every_query_of_the_documentation_is_answered(store):
    from esr.store import schema

    filled(store)
    put_run_row = {"experiment": "exp01", "model": "tiny", "scale": "full", "status": "running", "manifest": {}}
    store.put_run(put_run_row)
    assert len(schema.EXAMPLES) == 10
    found = [store.sql(query) for _, query in schema.EXAMPLES]
    assert found[0].num_rows == 2
    assert found[1].to_pylist() == [
        {"experiment": "exp05", "arm": "self_monitor", "model": "tiny", "scale": "full", "judge": "lexical", "pairs": 60, "gained": 15, "lost": 0}
    ]  # fmt: skip
    assert found[2].num_rows == 10
    assert found[-1].num_rows == 1


def test_every_command_of_the_documentation_does_what_it_says(store, tmp_path, monkeypatch, capsys):
    from esr.store import schema

    own = filled(store)
    row = store.put_run({"experiment": "exp05", "model": "tiny", "scale": "full", "status": "completed", "manifest": {}})
    monkeypatch.chdir(tmp_path)
    lines = [line for line in schema.HISTORY.splitlines() if line.startswith("python -m esr ")]
    assert len(lines) == 8
    for line in lines:
        words = shlex.split(line, comments=True)[3:]
        asked(capsys, *({"RUN": row[:8], "TRIAL": own[0].trial.id[:12]}.get(word, word) for word in words))
    (found,) = json.loads(asked(capsys, "runs", "--json", "--all"))
    assert (found["name"], found["hidden"]) == ("before the new SAE", True)
    assert len(pd.read_csv("exp05.csv")) == 60
    program = schema.HISTORY.split("```python\n")[1].split("```")[0]
    space: dict[str, object] = {}
    exec(program, space)
    assert len(space["frame"]) == 120


def test_pending_and_failed_are_told_apart(store):
    members = [member(i, scale="full") for i in range(6)]
    store.put_members(members)
    store.put_grades([grade(members[0], 20.0), grade(members[1], missing="refused"), grade(members[2])])
    row = store.sql("select n_planned, n_graded, n_missing, n_pending, n_failed from summary").to_pylist()
    assert row == [{"n_planned": 6, "n_graded": 1, "n_missing": 5, "n_pending": 3, "n_failed": 2}]


def test_what_is_shared_is_taken_whole_and_once(store, tmp_path, monkeypatch, capsys):
    filled(store)
    store.put_run({"experiment": "exp05", "model": "tiny", "scale": "full", "status": "completed", "manifest": {}})
    said = asked(capsys, "share", "exp05", "tiny", "--to", str(tmp_path / "parcel"))
    assert "60 members" in said
    assert main(["share", "exp05", "tiny", "--to", str(tmp_path / "parcel")]) == 2
    assert main(["share", "exp09", "tiny", "--to", str(tmp_path / "other")]) == 2
    before = store.sql("from summary where experiment = 'exp05'").to_pylist()
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "colleague"))
    for _ in range(2):
        assert "planned here otherwise" not in asked(capsys, "take", str(tmp_path / "parcel"))
        assert Store().sql("from summary").to_pylist() == before
        assert Store().sql("select count(*) as n from replies").to_pylist() == [{"n": 60}]
        assert Store().sql("select count(*) as n from runs").to_pylist() == [{"n": 1}]
    Store().put_members([member(i, arm="self_monitor", experiment="exp05", scale="full", boost=9.0) for i in range(4)])
    assert "exp05/self_monitor on tiny, full: planned here otherwise" in asked(capsys, "take", str(tmp_path / "parcel"))
    assert main(["take", str(tmp_path)]) == 2
    (shard,) = (tmp_path / "parcel" / "shards" / "replies").glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:-40])
    assert main(["take", str(tmp_path / "parcel")]) == 2
