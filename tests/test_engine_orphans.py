"""A killed run leaves no engine behind that would hold the device's memory."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

OPEN = """
import sys
from pathlib import Path
from tiny_models import make_toy
from esr.engine.vllm import VllmEngine

if __name__ == "__main__":
    toy = make_toy(Path(sys.argv[1]), "llama")
    engine = VllmEngine(toy.params, toy.name, enforce_eager=True, max_model_len=128, max_num_seqs=4)
    print("ready", flush=True)
    sys.stdin.read()
"""


ENDS_EARLY = """
import multiprocessing, os, sys, threading, time
from pathlib import Path
from tiny_models import make_toy
from esr.engine.open import open_engine

def ahead():
    open_engine(toy.params, toy.name)
    os.write(1, b"opened\\n")

if __name__ == "__main__":
    toy = make_toy(Path(sys.argv[1]), "llama")
    threading.Thread(target=ahead, daemon=True).start()
    while not multiprocessing.active_children():
        time.sleep(0.05)
    time.sleep(float(sys.argv[2]))
    print("ends", flush=True)
"""
"""A run that fails while its engine is being opened ahead of it."""


def alive(session: int) -> list[str]:
    """Commands of a session's processes that are not yet dead."""
    rows = subprocess.run(["ps", "-eo", "sid=,stat=,args="], capture_output=True, text=True, check=True).stdout.splitlines()
    split = (row.split(maxsplit=2) for row in rows)
    return [args for sid, stat, args in split if int(sid) == session and not stat.startswith("Z")]


def test_an_engine_ends_with_the_process_that_opened_it(tmp_path: Path) -> None:
    script = tmp_path / "open_engine.py"
    script.write_text(OPEN)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    opener = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "toy")], env=env, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert opener.stdout is not None
        assert any(line.strip() == "ready" for line in opener.stdout)
        assert any("VLLM" in args for args in alive(opener.pid))
        opener.send_signal(signal.SIGKILL)
        opener.wait()
        deadline = time.monotonic() + 120
        while any("VLLM" in args for args in alive(opener.pid)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not [args for args in alive(opener.pid) if "VLLM" in args]
    finally:
        for pid in (int(row.split()[0]) for row in _of_session(opener.pid)):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("after", [0.0, 4.0])
def test_a_process_that_ends_while_an_engine_is_being_opened_takes_it_along(after: float, tmp_path: Path) -> None:
    script = tmp_path / "ends_early.py"
    script.write_text(ENDS_EARLY)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    opener = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "toy"), str(after)], env=env, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert opener.stdout is not None
        assert any(line.strip() == "ends" for line in opener.stdout)
        assert "opened" not in opener.stdout.read(), "it was waited for"
        opener.wait(60)
        deadline = time.monotonic() + 20
        while alive(opener.pid) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not alive(opener.pid)
    finally:
        for pid in (int(row.split()[0]) for row in _of_session(opener.pid)):
            os.kill(pid, signal.SIGKILL)


def _of_session(session: int) -> list[str]:
    rows = subprocess.run(["ps", "-eo", "pid=,sid=,stat="], capture_output=True, text=True, check=True).stdout.splitlines()
    return [row for row in rows if int(row.split()[1]) == session and not row.split()[2].startswith("Z")]
