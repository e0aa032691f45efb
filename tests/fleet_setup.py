"""Fleets of fake engines, for tests: small ones, what is asked of them, and workers that join as a pool's do."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from esr.engine import Request
from esr.engine.fleet import Fleet
from esr.engine.worker import KEY
from esr.params import HOME, Params, load
from esr.types import Op, Sampling

SAMPLING = Sampling(temperature=0.6, top_p=1.0, repetition_penalty=1.0, max_tokens=64)


def requests(n: int) -> list[Request]:
    return [
        Request(prompt=f"How do I bake bread {i}?", sampling=SAMPLING, seed=i, ops=(Op("add", 3, 90.0, 3, "tiny-l3"),))
        for i in range(n)
    ]


def small() -> Params:
    params = load("tiny")
    return params.model_copy(update={"work": params.work.model_copy(update={"batch": 8, "in_flight": 2})})


@contextmanager
def opened(n: int = 2) -> Iterator[Fleet]:
    fleet = Fleet(n, small(), "tiny", "fake", True, {})
    try:
        until = time.monotonic() + 60
        while any(one.state != "open" for one in fleet.seen()) and time.monotonic() < until:
            time.sleep(0.05)
        yield fleet
    finally:
        fleet.close()


def pids(fleet: Fleet) -> list[int]:
    return [one.pid for one in fleet.seen()]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(true: Any, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


class Called:
    """Workers that join from elsewhere, as a pool's do; here from this machine. `others`: code of those after the first, where they
    differ from it; they come only when the first is `open`."""

    def __init__(self, *others: str) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.address, self._others, self.open = "", list(others), Event()
        self._lock = Lock()

    def __call__(self, address: str, key: str) -> None:
        with self._lock:
            self.address, other = address, self._others.pop(0) if self.processes and self._others else ""
            if other:
                Thread(target=lambda: self.open.wait(60) and self._begin(key, "-c", other), daemon=True).start()
            else:
                self._begin(key, "-m", "esr.engine.worker")

    def _begin(self, key: str, *words: str) -> None:
        line = [sys.executable, *words, "join", self.address]
        self.processes.append(subprocess.Popen(line, env={**os.environ, KEY: key}, cwd=HOME, start_new_session=True))
