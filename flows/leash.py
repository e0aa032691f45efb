"""The server that a foreground run brings ends with the run, also when the run is killed.

Prefect ends its own server at exit; a process that is killed has none. So a small process waits for this one to go, and ends the
server that it had started.
"""

import os
import select
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

LOOK = 1.0
"""Seconds between two looks at what the run has started."""
SERVER = b"prefect.server.api.server"


@cache
def leash() -> "subprocess.Popen[bytes] | None":
    """Holds the server of this process's own, until the process ends; a server that PREFECT_API_URL names is not its."""
    if os.environ.get("PREFECT_API_URL") or not Path("/proc/self/task").is_dir():
        return None
    line = [sys.executable, "-S", __file__, str(os.getpid())]
    return subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def servers(parent: int) -> set[int]:
    found = set()
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        found |= {int(pid) for pid in children.read_text().split() if is_server(int(pid))}
    return found


def is_server(pid: int) -> bool:
    try:
        return SERVER in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def watch(parent: int) -> None:
    """Until the parent's end of the pipe closes."""
    known: set[int] = set()
    while not select.select([sys.stdin], [], [], LOOK)[0]:
        try:
            known |= servers(parent)
        except OSError:
            break
    for pid in filter(is_server, known):
        os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    watch(int(sys.argv[1]))
