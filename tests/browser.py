"""A server of `python -m esr view` as a process of its own, and a browser's tab on it that notes every request and every error."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from esr.params import HOME

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Served:
    """Ends when it is told to, or killed; begins again at the same address."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, 0
        self.process: subprocess.Popen[str] | None = None

    def begin(self) -> "Served":
        words = [sys.executable, "-m", "esr", "view", "--no-open", "--port", str(self.port)]
        env = {**os.environ, "ESR_STORE": str(self.root)}
        self.process = subprocess.Popen(words, env=env, cwd=HOME, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        address = self.process.stdout.readline().split()[0]
        self.port = urlsplit(address).port or 0
        until = time.monotonic() + 120
        while True:  # the address is said before the first request is taken
            try:
                urlopen(f"{self.url}app.js", timeout=5).close()
                return self
            except OSError:
                assert time.monotonic() < until, "the server does not answer"
                time.sleep(0.05)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def served(root: Path) -> Iterator[Served]:
    server = Served(root).begin()
    try:
        yield server
    finally:
        server.kill()


@dataclass
class Noted:
    """What a tab asked for, and what went wrong in it."""

    asked: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    """Bodies of the data that came."""

    def hosts(self) -> set[str]:
        return {urlsplit(one).hostname or "" for one in self.asked if not one.startswith(("data:", "blob:", "file:"))}


@contextmanager
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no Chromium here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


def tab(found: Any, *, width: int = 1400, height: int = 1000, scheme: str = "light") -> tuple[Any, Noted]:
    context = found.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page, noted = context.new_page(), Noted()
    page.set_default_timeout(20_000)
    page.on("request", lambda request: noted.asked.append(request.url))
    page.on("pageerror", lambda error: noted.errors.append(str(error)))
    page.on("response", lambda answer: noted.answers.append(answer.text()) if "/api/" in answer.url and answer.ok else None)
    return page, noted


def shown(page: Any, address: str) -> None:
    """The page at this address, whole."""
    page.goto(address)
    page.reload()  # of addresses that differ behind the # alone a browser loads nothing anew
    page.wait_for_selector("body[data-ready]")
