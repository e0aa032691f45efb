"""Ctrl-C in a real terminal, with the real engine: every process of the run is sent it, and the run ends soon and in good order."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from flow_runs import Place, place
from prefect_database import migrated

from esr.params import HOME
from esr.store import Store

pytestmark = pytest.mark.slow
LIMIT = 30.0
"""Seconds from the key to the end of the process."""
WORDS = ("exp01", "tiny", "--scale", "smoke")
GO_ON = f"what was computed is kept, go on with: python -m flows {' '.join(WORDS)}"


def at_a_terminal() -> None:
    """It is the process's own, and what is typed there is heard, also where these tests were started in the background, deaf to Ctrl-C."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Terminal:
    """A run whose keyboard and screen are a terminal of its own."""

    where: Place
    env: dict[str, str]
    screen: str = ""

    def __post_init__(self) -> None:
        self.keys, there = pty.openpty()
        line = [sys.executable, "-m", "flows", *WORDS]
        self.process = subprocess.Popen(
            line, cwd=HOME, env={**os.environ, **self.where.env, "TERM": "xterm", **self.env}, stdin=there, stdout=there, stderr=there,
            start_new_session=True, preexec_fn=at_a_terminal,
        )  # fmt: skip
        os.close(there)

    def read(self) -> None:
        """What has come to the screen in a tenth of a second."""
        if select.select([self.keys], [], [], 0.1)[0]:
            try:
                self.screen += os.read(self.keys, 65536).decode(errors="replace")
            except OSError:  # the last process has let go of the terminal
                time.sleep(0.1)

    def watch(self, until: Callable[["Terminal"], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not until(self):
            assert self.process.poll() is None, f"ended with {self.process.returncode} too early:\n{self.screen}"
            assert time.monotonic() < end, f"not within {seconds} s:\n{self.screen}"
            self.read()

    def press(self) -> float:
        """Ctrl-C; seconds to the end of the process."""
        pressed = time.monotonic()
        os.write(self.keys, b"\x03")
        while self.process.poll() is None and time.monotonic() < pressed + 120:
            self.read()
        took = time.monotonic() - pressed
        for _ in range(3):
            self.read()
        return took

    @property
    def children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def has(self, word: str) -> bool:
        """Whether a process of the run has it in its command."""
        for child in self.children:
            with suppress(psutil.Error):
                if word in " ".join(child.cmdline()):
                    return True
        return False

    def left(self) -> list[str]:
        """Commands of those that still live of the run."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            try:
                if process.environ().get("ESR_STORE") == str(self.where.store) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.info["cmdline"]))
            except psutil.Error:
                continue
        return found


def replies(where: Place) -> int:
    return int(Store(where.store).sql("select count(*) as n from replies")["n"][0].as_py()) if where.store.exists() else 0


def kept(terminal: Terminal) -> bool:
    """Of the replies: the run itself is recorded before the engine is even open."""
    return any((terminal.where.store / "shards" / "replies").glob("*.parquet"))


def after(seconds: float, moment: Callable[[Terminal], bool]) -> Callable[[Terminal], bool]:
    seen: list[float] = []

    def passed(terminal: Terminal) -> bool:
        if not seen and moment(terminal):
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() >= seen[0] + seconds

    return passed


MIGRATES = "the server migrates its database"
MOMENTS: dict[str, Callable[[], Callable[[Terminal], bool]]] = {
    "nothing is said yet": lambda: lambda terminal: "_pydantic_core" in Path(f"/proc/{terminal.process.pid}/maps").read_text(),
    "the plan is said": lambda: lambda terminal: "plan:" in terminal.screen,
    "the server starts": lambda: lambda terminal: terminal.has("prefect.server"),
    MIGRATES: lambda: after(1.5, lambda terminal: terminal.has("prefect.server")),
    "the engine's process starts": lambda: lambda terminal: terminal.has("spawn_main") or terminal.has("VLLM"),
    "the engine loads": lambda: after(4, lambda terminal: terminal.has("spawn_main") or terminal.has("VLLM")),
    "the first stage is shown": lambda: lambda terminal: "calibrate: judge" in terminal.screen,
    "a batch is at work": lambda: after(1, lambda terminal: "calibrate: judge" in terminal.screen and terminal.has("VLLM")),
    "the first replies are kept": lambda: kept,
    "the next are at work": lambda: after(2, kept),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_one_ctrl_c_ends_a_run_soon_and_says_how_to_go_on(moment: str, tmp_path: Path) -> None:
    where = place(tmp_path, fake=False)
    if moment != MIGRATES:
        migrated(where.store / "prefect")
    terminal = Terminal(where, {"ESR_ENGINE": "vllm", "PREFECT_API_URL": ""})
    terminal.watch(MOMENTS[moment](), 400)
    before = replies(where) if kept(terminal) else 0
    took = terminal.press()
    assert terminal.process.returncode == 130, terminal.screen
    assert GO_ON in terminal.screen.replace("\r\n", "\n")
    assert "Traceback" not in terminal.screen
    assert "EngineDeadError" not in terminal.screen
    assert took < LIMIT
    assert replies(where) >= before
    end = time.monotonic() + 60
    while terminal.left() and time.monotonic() < end:
        time.sleep(0.2)
    assert terminal.left() == []


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    where = place(tmp_path)
    migrated(where.store / "prefect")
    terminal = Terminal(where, {"ESR_FAKE_DELAY": "30", "PREFECT_API_URL": ""})
    terminal.watch(lambda terminal: "calibrate: judge" in terminal.screen, 400)
    os.write(terminal.keys, b"\x03")
    terminal.watch(lambda terminal: "Ctrl-C again to stop at once" in terminal.screen, 60)
    took = terminal.press()
    assert terminal.process.returncode == 130
    assert "stopped at once; " in terminal.screen or "stopped; " in terminal.screen
    assert GO_ON in terminal.screen
    assert took < 10


def test_what_had_finished_of_a_batch_is_kept_and_the_rest_is_done_by_the_same_line(tmp_path: Path) -> None:
    where = place(tmp_path, fake=False)
    migrated(where.store / "prefect")
    terminal = Terminal(where, {"ESR_ENGINE": "vllm", "PREFECT_API_URL": ""})
    terminal.watch(after(1, kept), 400)
    terminal.press()
    first = replies(where)
    assert first > 0
    code, said = where.run(*WORDS, ESR_ENGINE="vllm", PREFECT_API_URL="")
    assert code == 0, said
    assert replies(where) > first
