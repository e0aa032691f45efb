"""`python -m deployments`: server, deployments and worker of a fresh copy of the tree, in the background, with one line each."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from flow_runs import place

from deployments import processes
from esr.params import HOME

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent


def readme() -> list[str]:
    """The README's lines for a Prefect server: start, run, end."""
    after = (HOME / "README.md").read_text().split("On a Prefect server")[1]
    return after.split("```bash\n")[1].split("```")[0].splitlines()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@dataclass(frozen=True)
class Copy:
    """A fresh copy of what git tracks, with a store and a port of its own."""

    tree: Path
    env: dict[str, str]

    @property
    def prefect(self) -> Path:
        return Path(self.env["ESR_STORE"]) / "prefect"

    def run(self, *words: str | Path, timeout: float = 400, **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            words, cwd=self.tree, env=self.env | env, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )

    def deployments(self, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return self.run(sys.executable, "-m", "deployments", *words, **env)

    def bash(self, line: str) -> "subprocess.CompletedProcess[str]":
        """A line of the README, but for the port."""
        return self.run("bash", "-c", line.replace("http://127.0.0.1:4200/api", self.env["PREFECT_API_URL"]))

    def pids(self) -> dict[str, int]:
        return {row["name"]: row["pid"] for row in json.loads((self.prefect / processes.FILE).read_text())}

    def left(self) -> list[str]:
        """Commands of all living processes that work for this store."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("ESR_STORE") == self.env["ESR_STORE"] and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found


def copy(root: Path) -> Copy:
    tree = root / "tree"
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=HOME, capture_output=True, text=True, check=True)
    for name in tracked.stdout.splitlines():
        if (HOME / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((HOME / name).read_bytes())
    (tree / ".venv").symlink_to(BIN.parent)
    where = place(root / "place")
    env = {**os.environ, **where.env, "PYTHONPATH": str(tree), "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"}
    env["ESR_STORE"] = str(root / "new" / "store")
    return Copy(tree, env)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    found = copy(tmp_path_factory.mktemp("service"))
    try:
        yield found
    finally:
        found.deployments("down")


def test_one_line_starts_all_in_a_new_store_and_says_little(here: Copy) -> None:
    done = here.bash(readme()[0])
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6
    assert f"pages: {here.env['PREFECT_API_URL'].removesuffix('/api')} " in done.stdout
    assert set(here.pids()) == {"server", "worker cpu"}
    assert all(os.getsid(pid) == pid for pid in here.pids().values())  # no shell that ends takes them along


def test_a_deployment_runs_to_its_end_and_nobody_met_a_locked_database(here: Copy) -> None:
    done = here.bash(readme()[1])
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Completed" in done.stdout
    log = processes.log(here.prefect, "server").read_text()
    assert "database is locked" not in log, log[-3000:]
    healthy = here.deployments("status")
    assert healthy.returncode == 0, healthy.stdout
    assert "worker cpu: takes runs" in healthy.stdout


def test_the_line_can_be_repeated(here: Copy) -> None:
    before = here.pids()
    done = here.deployments("up")
    assert done.returncode == 0, done.stderr
    assert "server: is there" in done.stdout
    assert "worker cpu: is there" in done.stdout
    assert here.pids() == before


def test_a_server_that_hangs_and_a_dead_worker_are_replaced(here: Copy) -> None:
    before = here.pids()
    os.kill(before["worker cpu"], signal.SIGKILL)
    os.kill(before["server"], signal.SIGSTOP)
    ill = here.deployments("status")
    assert ill.returncode == 1
    assert "server: does not answer" in ill.stdout
    (here.prefect / "server.pid").write_text(str(before["worker cpu"]))
    done = here.deployments("up")
    assert done.returncode == 0, done.stderr
    after = here.pids()
    assert set(after.values()).isdisjoint(before.values())
    assert not (here.prefect / "server.pid").exists()  # Prefect's own command would take its dead server to be running
    assert here.deployments("status").returncode == 0


def test_another_store_does_not_send_its_runs_to_this_server(here: Copy, tmp_path: Path) -> None:
    done = here.deployments("up", ESR_STORE=str(tmp_path / "other"))
    assert done.returncode == 2
    assert f"keeps its runs in {here.prefect}" in done.stderr


def test_one_line_ends_all_also_in_the_middle_of_a_run(here: Copy) -> None:
    begun = here.run(BIN / "prefect", "deployment", "run", "exp08/tiny", "--param", "scale=smoke")
    assert begun.returncode == 0, begun.stdout
    until = time.monotonic() + 120
    while (
        not any("prefect" in line and "flow_run" in line.replace("flow-run", "flow_run") for line in here.left())
        and time.monotonic() < until
    ):
        time.sleep(0.2)
    done = here.bash(readme()[2])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "server: ended"
    assert here.left() == []
    ended = here.deployments("down")
    assert ended.stdout.strip() == "nothing runs that was started from this store"
    assert here.deployments("status").returncode == 1


def test_a_port_that_somebody_else_has_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        env = {"ESR_STORE": str(tmp_path), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
        done = Copy(HOME, {**os.environ, **env}).deployments("up")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        f"error: port {port} is taken by a process that does not answer as a Prefect server"
    )


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    env = {"ESR_STORE": str(tmp_path), "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"}
    broken = {"PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://nobody@127.0.0.1:9/none"}
    done = Copy(HOME, {**os.environ, **env}).deployments("up", **broken)
    assert done.returncode == 2
    assert "the Prefect server did not start; its log" in done.stderr.splitlines()[-1]
    assert Copy(HOME, env).left() == []


def test_a_pid_that_belongs_to_somebody_else_now_is_not_ended(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        processes.write(tmp_path, [processes.Process("server", other.pid, 1.0, "http://127.0.0.1:9/api")])
        assert processes.started(tmp_path) == []
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_init_on_a_server_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    code = "import sys; from deployments import service; service.reach(service.url(), patience=1)"
    env = {**os.environ, "ESR_STORE": str(tmp_path), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=HOME, capture_output=True, text=True, timeout=120)
    assert "waiting up to 1 s for the Prefect server at http://127.0.0.1:9/api" in done.stderr
    assert "no Prefect server answers at http://127.0.0.1:9/api; start one with `python -m deployments up`" in done.stderr
