"""The server of `python -m esr view`: who may read it, what it answers, and how much of a store it reads."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient
from store_rows import grade, member, reply

from esr.store import Store
from esr.store.snapshot import Snapshot
from esr.view.server import HEADERS, application

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
