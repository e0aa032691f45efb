"""Server and workers of one store: started together, found again, mended, ended together.

They lead sessions of their own and so survive the shell; their output goes to files in store/prefect, never to a pipe: Prefect's own
`server start --background` writes into one that nobody reads, and its server dies of the first line after the command has ended.
"""

import fcntl
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deployments import catalogue, pools, processes
from deployments.processes import wait
from deployments.server import RECORDER, command
from esr.errors import EsrError
from esr.params import HOME
from tasks import environment

SERVER = "server"
HERE = ("127.0.0.1", "localhost", "::1", "0.0.0.0")
START = 120.0
"""Seconds that a server or a worker gets to start."""
PROMPT = 5.0
"""Seconds in which a server that has started answers."""
FILE = HOME / "deployments" / "prefect.yaml"
EXAMPLE = "exp05/tiny"
PASSWORD = "export PREFECT_API_AUTH_STRING=user:password, as PREFECT_SERVER_API_AUTH_STRING of the server has it"


class ServiceError(EsrError, ConnectionError):
    """A server or a worker that is not there, or not as asked."""


def url() -> str:
    return os.environ.get("PREFECT_API_URL") or "http://127.0.0.1:4200/api"


def pages() -> str:
    return url().removesuffix("/api")


def folder() -> Path:
    """Where Prefect keeps its database, and we what was started; made where it is missing."""
    found = Path(os.environ.get("PREFECT_HOME") or environment.settings(environment.home())["PREFECT_HOME"]).absolute()
    try:
        found.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServiceError(
            f"the store {found.parent} cannot be made: {error.strerror}; set ESR_STORE to a folder that can"
        ) from error
    return found


def answers(seconds: float = 0.0) -> bool:
    """Whether a Prefect server is at the address, at the latest in so many seconds. One that hangs is none."""
    from prefect.client.orchestration import get_client

    with get_client(httpx_settings={"timeout": PROMPT}, sync_client=True) as client:
        return wait(lambda: client.api_healthcheck() is None, seconds)


def status_of(path: str) -> int:
    """Of the server's answer, at once; 0 where there is none."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        try:
            with get_client(httpx_settings={"timeout": PROMPT}, sync_client=True) as client:
                return int(client._client.get(path).status_code)
        except httpx.HTTPStatusError as error:
            return error.response.status_code
        except httpx.HTTPError:
            return 0


def refused() -> str:
    """Why a server that answers does not let us in, or nothing: that it is healthy, it says to everybody."""
    if status_of("/admin/version") != 401:
        return ""
    given = os.environ.get("PREFECT_API_AUTH_STRING")
    return f"the Prefect server at {url()} " + (
        "refuses the password of PREFECT_API_AUTH_STRING" if given else "wants a password and PREFECT_API_AUTH_STRING is not set"
    )


def here() -> bool:
    """Whether the address is one of this machine."""
    return urlsplit(url()).hostname in HERE


def reach(address: str, patience: float = 60.0) -> None:
    """A server that was started in the line before takes some seconds."""
    settle()
    if not answers():
        print(f"waiting up to {patience:.0f} s for the Prefect server at {address}", file=sys.stderr)
        if not answers(patience):
            raise ServiceError(f"no Prefect server answers at {address}; start one with `python -m deployments up`")
    _let_in()


def up(gpus: Sequence[str] = ()) -> Iterator[str]:
    """Makes what is missing and leaves what works; a line for each part."""
    for devices in gpus:
        pools.check(devices)
    settle()
    from prefect.client.orchestration import get_client

    from deployments import definitions

    with _alone(folder()):
        yield _server()
        _let_in()
        pools.make()
        with get_client(sync_client=True) as client:
            names = catalogue.deploy(client, FILE, HOME)
        flows = sorted({name.split("/")[0] for name in names})
        yield f"deployments: {len(names)}, of {', '.join(flows)}"
        if old := definitions.stale():
            yield old
        yield _worker("cpu")
        for devices in gpus:
            yield _worker(pools.of_devices(devices), devices)
    yield f"pages: {pages()}    logs: {folder()}/*.log"
    yield f"run one: PREFECT_API_URL={url()} {Path(sys.executable).parent / 'prefect'} deployment run {EXAMPLE} --watch"
    yield "end all: python -m deployments down"


def status() -> tuple[list[str], bool]:
    """A line for each part, and whether all is well."""
    settle()
    from prefect.client.orchestration import get_client

    answering = answers(PROMPT if SERVER in processes.living(folder()) else 0.0)
    lines = [f"server: {'answers' if answering else 'does not answer'} at {url()}"]
    healthy = answering
    online = set()
    if answering:
        _let_in()
        with get_client(sync_client=True) as client:
            online = _online(client)
            lines.append(f"deployments: {client._client.post('/deployments/count', json={}).json()}")
            running = client._client.post("/flow_runs/count", json={"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}})
            lines.append(f"runs at work: {running.json()}")
    for process in processes.started(folder()):
        if process.name == SERVER:
            lines[0] += f", pid {process.pid}"
            continue
        well = process.lives and _title(process.name) in online
        healthy &= well
        lines.append(f"{process.name}: {'takes runs' if well else 'lives' if process.lives else 'is dead'}, pid {process.pid}")
    if not online:
        lines.append("workers: none takes runs; `python -m deployments up` starts one")
    return lines, healthy and bool(online)


def down() -> list[str]:
    """Workers first, so that the runs under them can still say how they ended."""
    settle()
    home = folder()
    with _alone(home):
        there = sorted(processes.started(home), key=lambda process: process.name == SERVER)
        for process in there:
            processes.end(home, process)
    lines = [f"{process.name}: ended" for process in there] or ["nothing runs that was started from this store"]
    if SERVER not in {process.name for process in there} and answers():
        lines.append(f"a Prefect server that was not started from this store answers at {url()} and stays")
    return lines


def settle() -> None:
    """Before Prefect is first imported: it reads its settings from the environment."""
    os.environ.setdefault("PREFECT_API_URL", url())
    environment.prepare()


def _let_in() -> None:
    if why := refused():
        raise ServiceError(f"{why}; {PASSWORD}")


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Two that start or end the service at once take turns."""
    with (home / "service.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _server() -> str:
    home = folder()
    ours = processes.living(home).get(SERVER)
    if ours and ours.url != url():
        raise ServiceError(f"the server of this store runs at {ours.url}, not at {url()}; end it with `python -m deployments down`")
    if answers(PROMPT if ours else 0.0):
        if ours is None:
            _same_store(home)
        return f"server: is there, {url()}"
    where = urlsplit(url())
    if not here():
        raise ServiceError(
            f"no Prefect server answers at {url()}, which is not on this machine; start it there, or unset PREFECT_API_URL"
        )
    if ours:
        processes.end(home, ours)
    _forget_dead_pid(home)
    host, port = where.hostname, where.port or 4200
    _port_is_free(host, port)
    process = processes.start(
        home, SERVER, command(host, port), url(), RECORDER | os.environ | {"PREFECT__SERVER_FINAL": "1"}, HOME
    )
    if not wait(lambda: not process.lives or answers(), START) or not process.lives:
        said = processes.last_words(home, SERVER)
        processes.end(home, process)
        raise ServiceError(f"the Prefect server did not start; its log {processes.log(home, SERVER)} ends with: {said:.200}")
    return f"server: {'started anew' if ours else 'started'}, {url()}, pid {process.pid}"


def _same_store(home: Path) -> None:
    """A server that another store's `up` has started would send its runs to this store's worker, or ours to its."""
    from prefect.client.orchestration import get_client

    if not here():
        return
    _let_in()
    with get_client(sync_client=True) as client:
        other = client._client.get("/admin/settings").json().get("home")
    if other and Path(other).absolute() != home and (Path(other) / processes.FILE).is_file():
        raise ServiceError(
            f"the Prefect server at {url()} keeps its runs in {other}, not in {home}; end it with the ESR_STORE that started it, "
            "or choose another port with PREFECT_API_URL"
        )


def _forget_dead_pid(home: Path) -> None:
    """`prefect server start --background` refuses to start where its last server has died and left this file."""
    file = home / "server.pid"
    with suppress(OSError, ValueError):
        text = file.read_text().strip()
        if not text or not Path(f"/proc/{int(text)}").exists():
            file.unlink()


def _port_is_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), reuse_port=False):
            return
    except OSError as error:
        raise ServiceError(
            f"port {port} is taken by a process that does not answer as a Prefect server ({error.strerror}); "
            f"end it, or choose another with PREFECT_API_URL=http://{host}:{port + 1}/api"
        ) from error


def _worker(pool: str, devices: str = "") -> str:
    from prefect.client.orchestration import get_client

    home, name = folder(), f"worker {pool} {devices}".strip()
    ours = processes.living(home).get(name)
    if ours and ours.url != url():
        processes.end(home, ours)
        ours = None
    with get_client(sync_client=True) as client:
        if ours and wait(lambda: _title(name) in _online(client), PROMPT):
            return f"{name}: is there"
        if ours:
            processes.end(home, ours)
        env = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": devices} if devices else {})
        line = [
            str(Path(sys.executable).parent / "prefect"),
            "worker",
            "start",
            "--pool",
            pool,
            "--limit",
            "1",
            "--name",
            _title(name),
        ]
        process = processes.start(home, name, line, url(), env, HOME)
        if not wait(lambda: not process.lives or _title(name) in _online(client, process.began), START) or not process.lives:
            said = processes.last_words(home, name)
            processes.end(home, process)
            raise ServiceError(f"{name} did not start; its log {processes.log(home, name)} ends with: {said:.200}")
    return f"{name}: {'started anew' if ours else 'started'}, pid {process.pid}"


def _title(name: str) -> str:
    """As the pages show it: several machines may work for one server."""
    return f"{name.removeprefix('worker ')} on {socket.gethostname()}"


def _online(client: Any, since: float = 0.0) -> set[str]:
    """Those heard of since then; one that has died is said to be online for a while."""
    from prefect.client.schemas.objects import WorkerStatus

    workers = [worker for pool in pools.pools() for worker in client.read_workers_for_work_pool(pool)]
    heard = (worker for worker in workers if worker.last_heartbeat_time and worker.last_heartbeat_time.timestamp() >= since)
    return {worker.name for worker in heard if worker.status == WorkerStatus.ONLINE}
