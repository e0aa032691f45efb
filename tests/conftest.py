"""What all tests stand on: no network, a small engine, no store of anyone's, GPU tests only where a GPU is.

`make test` runs them on several processes (pytest-xdist). A file's tests stay together and in order, so that what they share, an
engine or a Prefect server, is opened once; files with slow tests begin first, and before all those that may take longest. A test
marked `quiet` measures time and runs while no other does.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from coverage import Coverage
from hypothesis import settings
from prefect_database import migrated
from s3_server import Server, running

os.environ.update(
    HF_HUB_OFFLINE="1",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    MPLBACKEND="Agg",
    DO_NOT_TRACK="1",
    DVC_NO_ANALYTICS="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    VLLM_NO_USAGE_STATS="1",
)
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
# Threads of OpenMP wait for one another by spinning. Where a core is shared with another test, that is three quarters of an engine's time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
STARTUP = Path(__file__).parent / "startup"
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(STARTUP), os.environ.get("PYTHONPATH")]))
for key in (
    "ESR_PARAMS",
    "ESR_STORE",
    "ESR_ENGINE",
    "PREFECT_API_URL",
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "OPENROUTER_API_KEY",
    "GEMINI_API_KEY",
):
    os.environ.pop(key, None)
BARE = dict(os.environ)
ASIDE = tempfile.TemporaryDirectory(prefix="esr-collect-")  # where Prefect writes for what is imported as tests are collected
os.environ["ESR_STORE"] = ASIDE.name
# An example of 200 ms takes longer beside other tests; and the same tree gets the same verdict. `--hypothesis-profile=wide` looks further.
settings.register_profile("wide", deadline=None)
settings.register_profile("same", deadline=None, derandomize=True)
settings.load_profile("same")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu = shutil.which("nvidia-smi") is not None
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    longest = {path: max(_minutes(item) for item in items if item.path == path) for path in slow}
    items.sort(key=lambda item: (item.path not in slow, -longest.get(item.path, 0)))
    for item in items:
        if not gpu and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no GPU here"))


def _minutes(item: pytest.Item) -> float:
    """Of its own mark; a file that may take longest begins first, so that no process is left alone with it at the end."""
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) / 60 if mark and mark.args else 0.0


def pytest_collection_finish() -> None:
    """The package `tasks` names Prefect's places in the environment when it is first imported; no test's processes inherit them."""
    os.environ.clear()
    os.environ.update(BARE)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with _turn(item.config, alone=item.get_closest_marker("quiet") is not None):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A run in this process names its store and its Prefect in the environment; the next test starts without."""
    before = dict(os.environ)
    try:
        return (yield)
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _turn(config: pytest.Config, *, alone: bool) -> Iterator[None]:
    """A quiet test waits for those that run, and those that come after it wait for it at the gate."""
    place = config.rootpath / ".pytest_cache" / "turns"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "gate").open("w") as gate, (place / "room").open("w") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)  # also for a child that has inherited it and outlives the test


def pytest_sessionfinish() -> None:
    """What was measured is written before xdist ends this process, for which it gives it ten seconds."""
    if measured := Coverage.current():
        measured.save()


@pytest.fixture(scope="session")
def served() -> Iterator[Server]:
    """An S3 server with a bucket."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prefect server of the tests' own, with its pages; the URL of its API."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("prefect")
    migrated(home)
    url = f"http://127.0.0.1:{port}/api"
    env = {
        **{
            name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
        },  # nothing that is measured runs in it
        "PREFECT_API_URL": url,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_MEMO_STORE_PATH": str(home / "memo.toml"),
    }
    line = [str(Path(sys.executable).parent / "prefect"), "server", "start", "--port", str(port)]
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(line, env=env, stdout=log, stderr=log, start_new_session=True)
    until = time.monotonic() + 300
    try:
        while True:
            try:
                with urlopen(f"{url}/health", timeout=2):
                    break
            except OSError:
                if server.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((home / "server.log").read_text()[-2000:]) from None
                time.sleep(0.2)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
