"""The page of the audit, in a browser: labelled by keyboard, kept at once, resumed after everything was killed, and blind."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import Served, browser, served, shown, tab
from starlette.testclient import TestClient
from store_rows import grade, member, reply

from esr.__main__ import main
from esr.store import Store
from esr.store.snapshot import Snapshot
from esr.study import audit
from esr.view.server import application

pytestmark = pytest.mark.slow

N, SHEET = 72, 24
HERE = "http://127.0.0.1:8731"


def filled(root: Path) -> tuple[Store, audit.Sheet]:
    """Twelve latents, of which the judge finds a third of the replies corrected; a sheet of some."""
    store = Store(root)
    members = [member(i, scale="full") for i in range(N)]
    members = [replace(m, trial=replace(m.trial, latent=replace(m.trial.latent, index=i % 12))) for i, m in enumerate(members)]
    store.put_members(members)
    store.put_replies([reply(m, f"<i>Reply</i> {i}. Wait, that is not right. Put the pot on.") for i, m in enumerate(members)])
    store.put_grades([grade(m, *((10.0, 60.0) if i % 3 == 0 else (10.0,))) for i, m in enumerate(members)])
    return store, audit.draw(store, "exp01", "tiny", scale="full", judge="lexical", n=SHEET, seed=1)


@pytest.fixture
def here(tmp_path: Path) -> tuple[Store, audit.Sheet]:
    return filled(tmp_path / "store")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


def labels(store: Store, author: str = "ada") -> list[tuple[str, str, str | None]]:
    """In the order in which they were given."""
    rows = store.sql("select item, label, reason from audit_labels where author = ? order by labelled_at", [author]).to_pylist()
    return [(row["item"], row["label"], row["reason"]) for row in rows]


def begun(page: Any, server: Served, sheet: audit.Sheet, author: str) -> None:
    """By keyboard: the name, Enter."""
    shown(page, f"{server.url}#/audit?sheet={sheet.id}")
    page.keyboard.type(author)
    page.keyboard.press("Enter")
    page.wait_for_selector(f"input[aria-label='your name'][value='{author}'], main .who button:text('somebody else')")


def press(page: Any, key: str) -> str:
    """The item that was labelled; the next one is shown when this returns."""
    item: str = page.get_attribute(".item", "data-item")
    page.keyboard.press(key)
    page.wait_for_selector(f".item:not([data-item='{item}'])")
    return item


def test_a_sheet_is_labelled_by_keyboard_and_each_label_is_kept_before_the_next_reply(
    here: tuple[Store, audit.Sheet], chromium: Any
) -> None:
    store, sheet = here
    page, noted = tab(chromium)
    with served(store.root) as server:
        begun(page, server, sheet, "ada")
        assert "<i>Reply</i>" in page.inner_text(".item")
        first = press(page, "1")
        assert labels(store) == [(first, "single", None)]
        page.keyboard.press("r")
        page.keyboard.type("it starts over")
        page.keyboard.press("Enter")
        second = press(page, "3")
        assert labels(store)[1:] == [(second, "corrected", "it starts over")]
        third = press(page, "2")
        assert press(page, "u") != third
        assert page.get_attribute(".item", "data-item") == third
        assert "3" not in page.inner_text(".count").split(" of ")[0]
        assert labels(store)[2:] == [(third, "multi", None), (third, "withdrawn", None)]
        shown(page, page.url)
        assert page.get_attribute(".item", "data-item") == third, "it goes on where it was"
        press(page, "u")
        assert page.get_attribute(".item", "data-item") == second, "also what was said before the page was closed is taken back"
    standing = store.sql("select item from audited where label is not null").to_pylist()
    assert standing == [{"item": first}]
    assert noted.errors == []
    assert noted.hosts() == {"127.0.0.1"}
    told = "".join(noted.answers)
    for secret in ("baseline", "label 1", "corrected+restart", "trial_id", "stratum", "lexical"):
        assert secret not in told, "the sheet is blind"


def test_a_server_that_is_killed_loses_nothing_and_the_page_goes_on_with_the_next_one(
    here: tuple[Store, audit.Sheet], chromium: Any
) -> None:
    store, sheet = here
    page, _ = tab(chromium)
    with served(store.root) as server:
        begun(page, server, sheet, "ada")
        given = [press(page, "1"), press(page, "2")]
        server.kill()
        waiting = page.get_attribute(".item", "data-item")
        page.keyboard.press("3")
        page.get_by_text("Not kept yet").wait_for()
        assert page.get_attribute(".item", "data-item") == waiting
        assert [item for item, _, _ in labels(store)] == given
        server.begin()
        page.wait_for_selector(f".item:not([data-item='{waiting}'])")
        assert labels(store)[2:] == [(waiting, "corrected", None)], "with the new server's token"


def test_two_people_label_one_sheet_at_once_and_each_sees_how_far_they_agree(
    here: tuple[Store, audit.Sheet], chromium: Any
) -> None:
    store, sheet = here
    (ada, noted), (bob, _) = tab(chromium), tab(chromium)
    verdicts = {row["item"]: row for row in store.sql("select * from audited").to_pylist()}
    with served(store.root) as server:
        begun(ada, server, sheet, "ada")
        begun(bob, server, sheet, "bob")
        for i in range(SHEET):
            item = ada.get_attribute(".item", "data-item")
            assert bob.get_attribute(".item", "data-item") == item
            assert "The sheet is finished" not in ada.inner_text("aside")
            for page in (ada, bob):
                page.keyboard.press("3" if verdicts[item]["corrected"] or (page is bob and i == 5) else "1")
            for page in (ada, bob):
                page.wait_for_selector(f".item:not([data-item='{item}'])" if i < SHEET - 1 else "text=The sheet is finished")
        assert "judge lexical, 24 replies that both have labelled" in ada.inner_text("aside")
        assert "It says the same of every reply." in ada.inner_text("aside")
        shown(ada, ada.url)
        ada.get_by_text("bob, 24 replies that both have labelled").wait_for()
        assert f"{100 * 23 / 24:.1f} % [" in ada.inner_text("aside")
        assert "It says otherwise of 1" in bob.inner_text("aside")
    for author in ("ada", "bob"):
        assert len(labels(store, author)) == SHEET
    assert noted.errors == []


def test_a_label_comes_from_the_page_itself_with_the_servers_token(here: tuple[Store, audit.Sheet]) -> None:
    store, sheet = here
    client = TestClient(application(Snapshot(store.root)), base_url=HERE)
    token = client.get("/api/audit").json()["token"]
    good = {"origin": HERE, "x-esr-token": token}
    label = {"sheet": sheet.id, "item": sheet.rows[0]["item"], "author": "ada", "label": "single", "reason": ""}

    def post(headers: dict[str, str], **other: Any) -> int:
        return int(client.post("/api/audit", json={**label, **other}, headers=headers).status_code)

    for headers, status in (({"x-esr-token": token}, 403), ({**good, "origin": "http://evil.example"}, 403), ({**good, "origin": "null"}, 403),
                            ({"origin": HERE}, 409), ({**good, "x-esr-token": "guess"}, 409), ({**good, "host": "evil.example"}, 400)):  # fmt: skip
        assert post(headers) == status
    for other in (
        {"label": "maybe"},
        {"author": " "},
        {"item": "0123"},
        {"sheet": "0123"},
        {"reason": "x" * 2001},
        {"more": "x"},
        {"label": 1},
    ):
        assert post(good, **other) == 400, other
    assert client.post("/api/audit", content=b"x" * 20_000, headers=good).status_code == 413
    assert client.post("/api/audit", content=b"{", headers=good).status_code == 400
    assert labels(store) == []
    assert post(good) == 200
    assert labels(store) == [(label["item"], "single", None)]
    assert client.get("/api/audit?sheet=nothing").status_code == 400


def test_labels_of_the_screen_and_of_a_file_are_the_same_labels(
    here: tuple[Store, audit.Sheet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    store, sheet = here
    monkeypatch.setenv("ESR_STORE", str(store.root))
    client = TestClient(application(Snapshot(store.root)), base_url=HERE)
    good = {"origin": HERE, "x-esr-token": client.get("/api/audit").json()["token"]}
    for row in sheet.rows[:5]:
        label = {"sheet": sheet.id, "item": row["item"], "author": "ada", "label": "multi", "reason": "no better"}
        assert client.post("/api/audit", json=label, headers=good).status_code == 200
    with (tmp_path / "sheet.csv").open("w", newline="") as text:
        out = csv.DictWriter(text, list(sheet.rows[0]))
        out.writeheader()
        out.writerows({**row, "label": "multi", "reason": "no better", "author": "ada"} for row in sheet.rows[:7])
    assert main(["audit", "read", str(tmp_path / "sheet.csv")]) == 0
    assert "7 labels read, 2 of them new" in capsys.readouterr().out
    assert len(labels(store)) == 7
    before = client.get(f"/api/audit?sheet={sheet.id}&author=ada").json()["said"]
    assert [one["label"] for one in before] == ["multi"] * 7
    assert json.loads(client.get("/api/audit").content)["sheets"][0]["authors"] == {"ada": 7}


def test_in_a_bundle_the_page_says_that_labels_are_kept_only_with_the_server(
    here: tuple[Store, audit.Sheet], chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from esr.view import bundle

    store, sheet = here
    monkeypatch.setattr(bundle, "COPIED", {})
    bundle.write(Snapshot(store.root), tmp_path / "pages")
    page, noted = tab(chromium)
    shown(page, (tmp_path / "pages" / "index.html").as_uri() + f"#/audit?sheet={sheet.id}")
    assert "Labels are kept only with the server" in page.inner_text("main")
    assert noted.errors == []
