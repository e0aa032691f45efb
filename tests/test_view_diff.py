"""The page of two sides in pairs, in a browser: numbers, who has no partner, replies beside each other with their changed words marked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Served, browser, served, shown, tab
from store_rows import grade, member, reply

from esr.store import Store
from esr.store.snapshot import Snapshot
from esr.types import Member
from esr.view.address import of_run

pytestmark = pytest.mark.slow

N = 40
SAID = (
    "Boil the <b>water</b> slowly & <script>document.title='run'</script> 🫖 مرحبا end.",
    "Boil the kettle & wait. Let me start again. Fry it end.",
)
PAIR = "#/diff?a=exp05/self_monitor&b=exp01/baseline&model=tiny&judge=lexical&scale=smoke"


def arm(name: str, boost: float, n: int) -> list[Member]:
    return [member(i, arm=name, experiment="exp01" if name == "baseline" else "exp05", boost=boost) for i in range(n)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two arms of which the second corrects itself in every other reply; two of its trials are planned and not made."""
    store = Store(tmp_path_factory.mktemp("pages") / "store")
    quiet, loud = arm("baseline", 3.0, N), arm("self_monitor", 2.0, N + 2)
    for members, text in ((quiet, SAID[0]), (loud[:N], SAID[1])):
        store.put_members(members if members is quiet else loud)
        store.put_replies([reply(m, text) for m in members])
    store.put_grades([grade(m, 30.0) for m in quiet])
    store.put_grades([grade(m, 20.0 + i, 90.0) if i % 2 else grade(m, 30.0) for i, m in enumerate(loud[:N])])
    return store


@pytest.fixture(scope="module")
def server(store: Store) -> Iterator[Served]:
    with served(store.root) as found:
        yield found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


def test_differences_partners_and_replies_stand_beside_each_other(server: Served, chromium: Any) -> None:
    page, noted = tab(chromium)
    shown(page, server.url + PAIR)
    text = page.inner_text("main")
    for words in ("exp05/self_monitor − exp01/baseline", "40 pairs of one latent", "+50.0", "42 trials planned, 40 graded, 40 in pairs; 2 × no reply yet",
                  "40 of 40 pairs changed, 20 in outcome, 20 in words alone", "2 words alike", "corrected (21 → 90)"):  # fmt: skip
        assert words in text
    first = page.locator(".side").nth(1)
    assert SAID[0] in first.inner_text(), "a reply is text, whatever it holds"
    assert page.title() == "Compare · esr"
    assert first.locator("mark").all_inner_texts()[0].startswith("<b>water</b> slowly")
    assert page.locator(".side").first.locator("mark").all_inner_texts()[0].startswith("kettle")
    assert "end." not in "".join(page.locator("mark").all_inner_texts())
    assert noted.errors == []
    assert noted.hosts() == {"127.0.0.1"}


def test_keys_go_through_the_pairs_and_the_address_keeps_the_place(server: Served, chromium: Any) -> None:
    page, _ = tab(chromium)
    shown(page, server.url + PAIR)
    trial = page.locator(".side a").first.get_attribute("href")
    for key in ("j", "ArrowRight", "k"):
        page.keyboard.press(key)
    assert "2 of 40" in page.inner_text(".step")
    second = page.locator(".side a").first.get_attribute("href")
    assert second != trial
    shown(page, page.url)
    assert "2 of 40" in page.inner_text(".step")
    page.get_by_role("button", name="20", exact=True).last.click()
    assert "Of the 40 here, 20 are single in A and single in B" in page.inner_text(
        "main"
    ) or "20 are corrected in A" in page.inner_text("main")
    assert "1 of 20" in page.inner_text(".step")
    assert "only=" in page.url
    wanted = page.locator(".side a").first.get_attribute("href")
    page.keyboard.press("t")
    page.wait_for_url("**/#/trial?*")
    assert page.url.endswith(wanted.removeprefix("#"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_shows_it_without_scrolling_sideways(server: Served, chromium: Any, scheme: str) -> None:
    page, noted = tab(chromium, width=390, height=800, scheme=scheme)
    shown(page, server.url + PAIR)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    ground = page.evaluate("() => getComputedStyle(document.querySelector('mark')).backgroundColor")
    assert (int(ground.split("(")[1].split(",")[0]) < 128) == (scheme == "dark")
    assert noted.errors == []


def test_what_can_be_compared_is_offered_and_a_name_that_is_none_is_one_sentence(server: Served, chromium: Any) -> None:
    page, _ = tab(chromium)
    shown(page, server.url + "#/diff")
    page.get_by_role("link", name="exp05/self_monitor − exp01/baseline").click()
    page.wait_for_selector(".pair")
    shown(page, server.url + "#/diff?a=exp05/self_monitor&b=tiny")
    assert "are not two arms, two models" in page.inner_text("[role=alert]")
    shown(page, server.url + PAIR + "&limit=all")
    assert "limit=all; it should be a number" in page.inner_text("[role=alert]")


def test_two_runs_say_first_what_they_were_made_with(store: Store, chromium: Any) -> None:
    ids = []
    for target in (0.3, 0.5):
        content = {"preset": "v1", "protocol": {"target": target}, "models": {}, "experiments": {}}
        row = {"experiment": "exp01", "model": "tiny", "scale": "smoke", "judge": "lexical", "status": "completed"}
        times = {"started_at": f"2030-01-01T00:00:0{int(10 * target)}Z", "finished_at": "2030-01-02T00:00:00Z"}
        ids.append(store.put_run({**row, **times, "manifest": {"params": {"content": content}}}))
    page, _ = tab(chromium)
    with served(store.root) as server:
        shown(page, f"{server.url}#/diff?a={ids[0][:8]}&b={ids[1][:8]}")
        text = page.inner_text("main")
        assert text.index("protocol.target") < text.index("first-attempt score")
        assert "No pair changed: 40 replies and verdicts are the same." in text
        shown(page, server.url + of_run(ids[0]).split("/", 3)[3])
        assert page.locator("main button[aria-expanded='true']").all_inner_texts() == [ids[0][:8]], (
            "a run's own address opens it alone"
        )


def test_a_bundle_holds_each_arm_against_the_one_it_is_compared_with(
    store: Store, chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from esr.view import bundle

    monkeypatch.setattr(bundle, "COPIED", {"diff": bundle.COPIED["diff"]})
    bundle.write(Snapshot(store.root), tmp_path / "pages")
    page, noted = tab(chromium)
    shown(page, (tmp_path / "pages" / "index.html").as_uri() + "#/diff")
    page.get_by_role("link", name="exp05/self_monitor − exp01/baseline").click()
    page.wait_for_selector(".pair")
    page.keyboard.press("j")
    assert "2 of 40" in page.inner_text(".step")
    assert noted.errors == []
