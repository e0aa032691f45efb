"""Processes that go on after the shell that started them, and how to find and end them again.

Each leads a session of its own and writes to a file. What is known of it lies in the store: its pid, and when it began, because a pid
is given to another process after it.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

GRACE = 10.0
"""Seconds between asking a process to end and ending it."""
FILE = "processes.json"


@dataclass(frozen=True, slots=True)
class Process:
    name: str
    pid: int
    began: float
    """Seconds since the epoch, as the system says."""
    url: str
    """Of the server that it is, or works for."""

    @property
    def lives(self) -> bool:
        try:
            found = psutil.Process(self.pid)
            return abs(found.create_time() - self.began) < 1.0 and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def family(self) -> list[psutil.Process]:
        """It, its descendants, and those of its session whose parents have gone. No pid is given anew while a session has it."""
        if psutil.pid_exists(self.pid) and not self.lives:
            return []
        found: dict[int, psutil.Process] = {}
        with suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self.pid)
            found = {one.pid: one for one in [leader, *leader.children(recursive=True)]}
        for one in psutil.process_iter():
            with suppress(ProcessLookupError, PermissionError):
                if os.getsid(one.pid) == self.pid:
                    found[one.pid] = one
        return list(found.values())


def started(home: Path) -> list[Process]:
    """All of which something is left; a file that a killed writer left half is taken for none."""
    try:
        rows = [Process(**row) for row in json.loads((home / FILE).read_text())]
    except (OSError, ValueError, TypeError):
        return []
    return [row for row in rows if row.lives or row.family]


def living(home: Path) -> dict[str, Process]:
    return {process.name: process for process in started(home) if process.lives}


def write(home: Path, processes: Sequence[Process]) -> None:
    aside = home / f"{FILE}.{os.getpid()}"
    aside.write_text(json.dumps([asdict(process) for process in processes], indent=1))
    aside.replace(home / FILE)


def start(home: Path, name: str, line: Sequence[str], url: str, env: dict[str, str], folder: Path) -> Process:
    """Begin it and write it down before anything else, so that it can be ended whatever happens next."""
    with log(home, name).open("ab") as file:
        child = subprocess.Popen(
            line, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    process = Process(name, child.pid, psutil.Process(child.pid).create_time(), url)
    write(home, [*started(home), process])
    return process


def log(home: Path, name: str) -> Path:
    return home / f"{name.replace(' ', '-')}.log"


def last_words(home: Path, name: str) -> str:
    """The last line of its log that says something."""
    with suppress(OSError):
        lines = [line.strip() for line in log(home, name).read_text(errors="replace").splitlines()[-200:]]
        return next((line for line in reversed(lines) if line), "")
    return ""


def end(home: Path, process: Process) -> None:
    """Ask it and all that it started to end, whatever session that is in, and end what is left after a while."""
    everybody = {one.pid: one for one in process.family}
    for one in everybody.values():
        _send(one, signal.SIGTERM)
    psutil.wait_procs(list(everybody.values()), timeout=GRACE)
    everybody |= {one.pid: one for one in process.family}
    for one in everybody.values():
        _send(one, signal.SIGKILL)
    psutil.wait_procs(list(everybody.values()), timeout=GRACE)
    write(home, [other for other in started(home) if other != process])


def _send(process: psutil.Process, what: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(what)


def wait(ready: Callable[[], bool], seconds: float) -> bool:
    """Whether it became true in time."""
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True
