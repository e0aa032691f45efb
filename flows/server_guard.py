"""The server that a foreground run brings ends with the run, however that ends.

Prefect ends its own server at exit; a process that is killed, or that leaves at once, has none. So a small process waits for this one to
go, and ends what it finds of it: the servers that carry its mark in their environment.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

MARK = "ESR_SERVER_GUARD"
SERVER = b"prefect.server.api.server"
LOOKS = (0.0, 1.0, 3.0)
"""Seconds between looks, once the run is gone: a server that it was just starting has not its name yet."""


@cache
def guard() -> "subprocess.Popen[bytes] | None":
    """Holds what this process starts from now on, until it ends; a server that PREFECT_API_URL names is not its."""
    if os.environ.get("PREFECT_API_URL") or not Path("/proc/self/environ").exists():
        return None
    os.environ[MARK] = uuid4().hex
    line = [sys.executable, "-S", __file__, os.environ[MARK]]
    return subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def servers(mark: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if SERVER in (process / "cmdline").read_bytes() and f"{MARK}={mark}".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


if __name__ == "__main__":
    sys.stdin.read()  # until the run's end of the pipe closes
    for seconds in LOOKS:
        time.sleep(seconds)
        for pid in servers(sys.argv[1]):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
