"""The server of `python -m esr view`: who may read it, what it answers, and how much of a store it reads."""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from store_rows import grade, member, reply

from esr.errors import DataError
from esr.judge.instructed.feedback import feedback
from esr.judge.lexical.why import why
from esr.judge.providers.answers import TABLES
from esr.judge.providers.given import Given, given
from esr.store import Store
from esr.store.snapshot import Snapshot
from esr.view.bundle import write
from esr.view.kept import Kept
from esr.view.server import HEADERS, application, bound

HERE = "http://127.0.0.1:8731"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    members = [member(i) for i in range(4)]
    store.put_members(members)
    store.put_replies([reply(m) for m in members])
    store.put_grades([grade(m, 10, 60) for m in members[:3]])
    return store


@pytest.fixture
def client(store: Store) -> TestClient:
    return TestClient(application(Snapshot(store.root)), base_url=HERE)


def test_a_host_of_another_name_is_refused(client: TestClient) -> None:
    assert client.get("/api/runs").status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        assert client.get("/api/runs", headers={"host": host}).status_code == 400


def test_nothing_but_reading_is_allowed(client: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, "/api/runs").status_code == 405


def test_every_answer_keeps_others_out(client: TestClient) -> None:
    for path in ("/", "/app.js", "/api/runs", "/api/nothing", "/figures/no.png", "/no", "/a/b/c"):
        found = client.get(path)
        assert all(found.headers[name] == value for name, value in HEADERS.items()), path


def test_nothing_outside_the_figures_is_given(client: TestClient, store: Store) -> None:
    (store.root / "figures").mkdir()
    (store.root / "figures" / "exp01-tiny.png").write_bytes(b"png")
    assert client.get("/figures/exp01-tiny.png").content == b"png"
    for name in ("..%2fesr.duckdb", "%2e%2e/esr.duckdb", "exp01-tiny.json", "..%2f..%2fetc%2fpasswd"):
        assert client.get(f"/figures/{name}").status_code == 404


def test_a_trial_is_told_by_the_beginning_of_its_id_and_an_unknown_one_is_a_sentence(client: TestClient) -> None:
    whole = member(0).trial.id
    told = client.get("/api/trial", params={"id": whole[:10]}).json()
    assert told["trial"]["trial_id"] == whole
    assert told["reply"]["text"] == "fine words"
    assert [attempt["score"] for attempt in told["verdicts"][0]["attempts"]] == [10, 60]
    assert told["again"] == ["python -m flows exp01 tiny --scale smoke"]
    missing = client.get("/api/trial", params={"id": "nothing"})
    assert (missing.status_code, missing.json()["error"]) == (404, "no trial has an id that begins with 'nothing'")
    assert client.get("/api/trial").json()["error"].startswith("the address names no id")


def test_what_is_missing_is_told_with_its_reason(client: TestClient) -> None:
    told = client.get("/api/trials", params={"model": "tiny", "scale": "smoke", "judge": "lexical"}).json()
    reasons = [told["missing"]["names"][i] for i in told["missing"]["of"]]
    assert sorted(reasons) == ["", "", "", "not asked yet"]
    assert told["attempts"][reasons.index("not asked yet")] is None


def test_a_snapshot_answers_as_the_store_does_and_sees_what_is_written(store: Store) -> None:
    snapshot = Snapshot(store.root)
    for query in ("from summary", "from outcomes order by all", "from current_members order by all", "from judged order by all"):
        assert snapshot.sql(query).to_pylist() == store.sql(query).to_pylist()
    before = snapshot.state()
    time.sleep(0.01)
    store.put_grades([grade(member(3), 20, 80)])
    until = time.monotonic() + 120
    while snapshot.state() == before and time.monotonic() < until:
        time.sleep(0.05)
    assert snapshot.sql("select n_graded from summary where judge is not null").to_pylist() == [{"n_graded": 4}]


def test_an_answer_is_worked_out_once_while_the_store_stays_as_it_is(store: Store) -> None:
    asked = []
    kept = Kept(Snapshot(store.root), {"one": lambda _store, address: asked.append(address) or len(asked)})
    kept.store.sql("select 1")
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: kept.answer("one", {"a": "b"}), range(8))) == {b"1"}
    assert kept.answer("one", {"a": "c"}) == b"2"


def test_a_bundle_is_refused_where_it_would_lose_files_or_hold_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(DataError, match="holds other files"):
        write(Snapshot(store.root), tmp_path / "mine")
    with pytest.raises(DataError, match="nothing of exp99"):
        write(Snapshot(store.root), tmp_path / "new", ["exp99"])
    assert not (tmp_path / "new").exists()
    written = write(Snapshot(store.root), tmp_path / "new", ["exp01"])
    assert written.answers > 4
    assert write(Snapshot(store.root), tmp_path / "new").answers == written.answers, "over an earlier bundle"


def test_a_port_that_is_taken_is_a_sentence_and_without_one_another_is_found() -> None:
    with bound(0) as taken, pytest.raises(DataError, match="cannot be used"):
        bound(taken.getsockname()[1])
    with bound(None) as one, bound(None) as two:
        assert one.getsockname()[1] != two.getsockname()[1]


def test_a_judges_own_words_are_found_in_both_forms_of_an_answer() -> None:
    assert feedback('It drifts.\n<json>{"attempts": [], "no_attempt": true}</json>') == "It drifts."
    assert feedback('{"feedback": "It drifts.", "attempts": [], "no_attempt": true}') == "It drifts."
    assert feedback("no form at all") == "no form at all"
    assert feedback('{"attempts": []}') == ""


def test_answers_are_read_back_and_nothing_is_made_where_there_are_none(tmp_path: Path) -> None:
    assert given(tmp_path, ["k"]) == {}
    assert not list(tmp_path.iterdir())
    with sqlite3.connect(tmp_path / "answers.sqlite") as con:
        con.executescript(TABLES)
        row = {"key": "k", "judge": "j", "parameters": "p", "prompt": "q", "round": 0, "kind": "grade", "turns": "[]", "text": "said", "stop": "stop", "model": "m", "raw": "{}", "batch": 0, "seconds": 1.0, "run": "r", "answered_at": 1.0}  # fmt: skip
        con.execute(f"INSERT INTO answers ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
    con.close()
    assert given(tmp_path, ["k", "other"]) == {"k": Given("said", "m", "stop")}


def test_the_lexical_judge_says_which_words_it_counted() -> None:
    found = why("Explain how to change a bike tire.", "The tire and the rim castle zzyzx")
    assert "tire" in found.on
    assert found.unknown == 1
    assert f"{sum(found.on.values())} of 7 words" in found.sentence()
