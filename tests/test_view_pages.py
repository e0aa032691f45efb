"""The pages in a browser, over 25,000 trials: how quick they are, that nothing in a text is run, and that no other host is asked."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import view_store
from browser import browser as chromium
from browser import served

from esr.params import HOME
from esr.store import Store

pytestmark = pytest.mark.slow

PAINT, FILTER, MEMORY = 2.0, 0.4, 500
"""Seconds, seconds and MB; the first two twice of what is asked of them, as other tests run meanwhile."""
ODD = [view_store.trial("exp01/baseline", i) for i in range(len(view_store.ODD))]
EVERY = (
    "front", "runs", "trials?experiment=exp01", "experiment?experiment=exp03&model=tiny", f"trial?id={ODD[0]}", "latents",
    "latent?model=tiny&latent=3",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return view_store.build(tmp_path_factory.mktemp("view") / "store")


@pytest.fixture(scope="module")
def server(store: Store) -> Iterator[tuple[str, psutil.Process]]:
    """`python -m esr view` in a process of its own; its address."""
    with served(store.root) as found:
        assert found.process is not None
        yield found.url, psutil.Process(found.process.pid)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


class Tab:
    """A page with everything that it asked for and complained of."""

    def __init__(self, browser: Any, base: str, **how: Any) -> None:
        self.base, self.asked, self.said = base, [], []
        self.page = browser.new_page(**{"viewport": {"width": 1300, "height": 900}, **how})
        self.page.set_default_timeout(60_000)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))

    def open(self, address: str) -> Any:
        self.page.goto("about:blank")
        self.page.goto(f"{self.base}#/{address}")
        self.page.wait_for_selector("body[data-ready]")
        self.page.wait_for_selector(".later > .wait", state="detached")
        return self.page

    def close(self) -> None:
        self.page.close()
        assert not [url for url in self.asked if not url.startswith((self.base, "data:", "about:"))]
        assert not self.said


@pytest.fixture
def tab(browser: Any, server: tuple[str, psutil.Process]) -> Iterator[Tab]:
    opened = Tab(browser, server[0])
    yield opened
    opened.close()


def test_every_page_is_whole_in_light_and_dark_and_on_a_narrow_screen(browser: Any, server: tuple[str, psutil.Process]) -> None:
    colours = set()
    for scheme, width in (("light", 1300), ("dark", 390)):
        tab = Tab(browser, server[0], color_scheme=scheme, viewport={"width": width, "height": 800})
        for address in EVERY:
            page = tab.open(address)
            shown = page.inner_text("main")
            assert page.locator(".failed").count() == 0, shown
            assert page.locator("h1").count() == 1
            assert not re.search(r"\[object|undefined|NaN", shown), address
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{address} makes the whole page scroll sideways by {wide}"
            colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        tab.close()
    assert len(colours) == 2


def test_25_000_trials_are_painted_filtered_and_searched_at_once_in_little_memory(
    tab: Tab, server: tuple[str, psutil.Process]
) -> None:
    page = tab.open("trials?model=tiny&judge=lexical")
    assert page.inner_text(".bar [role=status]") == f"{view_store.TRIALS:,} trials"
    painted = []
    for _ in range(3):
        began = time.monotonic()
        page.reload()
        page.wait_for_selector(".line")
        painted.append(time.monotonic() - began)
    assert min(painted) < PAINT, painted
    took = []
    for name, value in (("outcome", "corrected"), ("degraded", "0"), ("latent", "7"), ("outcome", "multi")):
        page.get_by_label(name, exact=True).select_option(value)
        took.append(float(page.get_attribute(".grid", "data-took")))
    page.get_by_role("button", name="first", exact=True).click()
    took.append(float(page.get_attribute(".grid", "data-took")))
    assert max(took) < 1000 * FILTER, took
    firsts = [float(text) for text in page.locator(".line span:nth-child(7)").all_inner_texts()]
    assert firsts == sorted(firsts, reverse=True)
    assert page.locator(".line").count() < 120, "only what is seen is drawn"
    again = page.url
    shown = page.get_attribute(".grid", "data-shown")
    page.goto("about:blank")
    page.goto(again)
    page.wait_for_selector(".line")
    assert page.get_attribute(".grid", "data-shown") == shown, "the address holds the view"
    page = tab.open("trials?model=tiny&judge=lexical")
    page.get_by_role("searchbox").fill("ONERROR=")
    page.wait_for_selector(".grid[data-shown='1']")
    assert page.inner_text(".line span.mono") == ODD[0][:8]
    page.get_by_label("outcome", exact=True).select_option("corrected")
    page.get_by_role("button", name="clear").click()
    assert page.get_attribute(".grid", "data-shown") == str(view_store.TRIALS)
    assert page.get_by_role("searchbox").input_value() == page.get_by_label("outcome", exact=True).input_value() == ""
    assert "q=" not in page.url
    assert "outcome=" not in page.url
    page.get_by_role("searchbox").fill("ONERROR=")
    page.wait_for_selector(".grid[data-shown='1']")
    page = tab.open("trials?model=tiny&judge=lexical&experiment=exp01&judges=1")
    assert 0 < int(page.get_attribute(".grid", "data-shown")) < 288
    page = tab.open("trials?model=tiny&judge=lexical&missing=refused")
    assert int(page.get_attribute(".grid", "data-shown")) > 200
    for address in EVERY:
        tab.open(address)
    assert server[1].memory_info().rss < MEMORY * 1e6


def test_texts_are_shown_and_never_run(tab: Tab) -> None:
    for i, text in enumerate(view_store.ODD):
        page = tab.open(f"trial?id={ODD[i]}&judge=lexical")
        told = "".join(page.locator("div.reply").first.evaluate("box => [...box.childNodes].filter(one => !one.classList?.contains('score')).map(one => one.textContent)"))  # fmt: skip
        assert text + view_store.RESTART in told
        assert page.title().startswith("Trial")
        assert page.locator("main img, main script").count() == 0
        first, second = page.locator("div.reply").first.locator(".s0, .s1, .s2, .s3, .s4").all()[:2]
        assert first.inner_text().strip() == text.strip()
        assert second.inner_text().startswith("thing"), "offsets count characters, also beyond the first plane"
    page = tab.open("front")
    assert "<script>document.title" in page.inner_text("main")


def test_the_best_reply_why_the_detectors_and_its_clamped_pair_are_four_clicks_away(tab: Tab) -> None:
    page = tab.open("")
    page.locator(".best a").first.click()
    page.wait_for_selector(".page.trial")
    page.wait_for_selector(".later > .wait", state="detached")
    assert page.locator("div.reply").first.locator(".score").all_inner_texts() == ["1: 0", "2: 100"]
    shown = page.inner_text("main")
    assert "words are of the question's topic" in shown
    assert page.locator(".strip .name", has_text="detector").count() == 2
    page.get_by_role("link", name="exp03/detectors").first.click()
    page.wait_for_selector("h1")
    page.wait_for_selector(f".crumbs:has-text('{view_store.trial('exp03/detectors', 0)[:12]}')")


def test_all_can_be_reached_by_keyboard(tab: Tab) -> None:
    page = tab.open("trials?model=tiny&experiment=exp01&judge=lexical")
    page.locator(".grid").focus()
    for key in ("ArrowDown", "ArrowDown", "PageDown", "ArrowUp"):
        page.keyboard.press(key)
    at = page.inner_text(".line.at .mono")
    page.keyboard.press("Enter")
    page.wait_for_selector(f".crumbs .mono:has-text('{at}')")
    page = tab.open("experiment?experiment=exp01&model=tiny&judge=lexical")
    dot = page.locator("svg.chart circle[tabindex='0']").first
    dot.focus()
    page.keyboard.press("ArrowRight")
    assert "first" in page.inner_text("#tip")
    page.keyboard.press("Enter")
    page.wait_for_selector(".page.trial")
    page.keyboard.press("Tab")
    assert (
        page.evaluate("document.activeElement.className") in ("skip", "home")
        or page.evaluate("document.activeElement.tagName") == "A"
    )


def test_a_run_that_writes_is_seen(tab: Tab, store: Store) -> None:
    page = tab.open("runs")
    before = page.locator("tbody tr").count()
    store.put_run(
        {"experiment": "exp99", "model": "tiny", "scale": "full", "status": "completed", "judge": "lexical", "manifest": "{}"}
    )
    page.wait_for_selector("text=exp99")
    assert page.locator("tbody tr").count() > before


def test_a_bundle_opens_from_the_disk_and_from_a_plain_server(browser: Any, store: Store, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "esr", "view", "--store", str(store.root), "--bundle", str(tmp_path / "pages"), "exp01", "exp03"]
    done = subprocess.run(words, cwd=HOME, capture_output=True, text=True, check=True, timeout=300)
    assert re.search(r"[\d,]+ answers in \d+ files, [\d.]+ MB", done.stdout)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "pages"))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined] # of a partial
    served = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    try:
        bases = (f"file://{tmp_path}/pages/index.html", f"http://127.0.0.1:{served.server_port}/")
        for base in bases:
            tab = Tab(browser, base)
            if base.startswith("file:"):
                tab.base = f"file://{tmp_path}/pages/index.html"
            for address in EVERY if base is bases[0] else EVERY[:1]:
                page = tab.open(address)
                assert page.locator(".failed").count() == 0, page.inner_text("body")
            page = tab.open("trials?model=tiny&judge=lexical")
            assert page.inner_text(".bar [role=status]") == f"{2 * view_store.LATENTS * view_store.EACH:,} trials"
            page.get_by_role("searchbox").fill("onerror=")
            page.wait_for_selector(".grid[data-shown='1']")
            page = tab.open("trial?id=" + view_store.trial("exp08/no-steering", 0))
            assert "does not hold that trial" in page.inner_text(".failed")
            tab.base = base.removesuffix("index.html")
            tab.close()
    finally:
        served.shutdown()
