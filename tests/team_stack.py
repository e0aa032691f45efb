"""What deployments/compose.yaml has, as processes of this machine: Postgres, Redis and Prefect's server in the environment that stands there.

Where containers do not run, or would hide what is asked. `lacking` says what is missing for it.
"""

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from s3_server import free_port

from esr.params import HOME

FILE = HOME / "deployments" / "compose.yaml"
PASSWORD, AUTH = "se/c@r:e%t", "team:s3/c r@t%"
START = 120.0


def binary(name: str) -> str | None:
    """Debian keeps Postgres's own out of the way."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


def lacking(*, redis: bool = True) -> str:
    """Why the stack cannot be started here, or nothing."""
    names = ["initdb", "postgres", *(["redis-server"] if redis else [])]
    missing = [name for name in names if binary(name) is None]
    if redis and importlib.util.find_spec("prefect_redis") is None:
        missing.append("the package prefect-redis")
    return f"not here: {', '.join(missing)}" if missing else ""


def filled(text: str, given: Mapping[str, str]) -> str:
    """As compose puts the values of .env in: ${NAME}, ${NAME:-otherwise} and ${NAME:?why it is needed}."""

    def value(found: re.Match[str]) -> str:
        name, how, rest = found[1], found[2], found[3]
        if given.get(name):
            return given[name]
        if how == ":?":
            raise LookupError(f"{name}: {rest}")
        return rest or ""

    return re.sub(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}", value, text)


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
    return found


@dataclass
class Stack:
    """A folder of its own, whose files the database's user may read, and all that was started in it."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=lambda: {"POSTGRES_PASSWORD": PASSWORD, "PREFECT_API_AUTH_STRING": AUTH})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports.setdefault('server', free_port())}/api"

    @property
    def client(self) -> dict[str, str]:
        """The environment of those who ask this server."""
        return {"PREFECT_API_URL": self.url, "PREFECT_API_AUTH_STRING": AUTH}

    def start(self, name: str, line: Sequence[str], ready: Callable[[], bool], **more: Any) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(line, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, **more)
        self.running[name] = process
        until = time.monotonic() + START
        while not ready():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{name} did not start: {self.log(name)[-3000:]}")
            time.sleep(0.1)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def kill(self, name: str, how: int = signal.SIGKILL) -> None:
        process = self.running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        process.wait(timeout=30)

    def postgres(self) -> None:
        """Postgres refuses to be root; what it loses in a crash of the machine does not matter here."""
        other = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        data = self.folder / "postgres"
        if not data.exists():
            data.mkdir()
            word = self.folder / "password"
            word.write_text(PASSWORD)
            if other:
                for one in (self.folder, data, word):
                    shutil.chown(one, **other)
            user = services()["postgres"]["environment"]["POSTGRES_USER"]
            line = [binary("initdb") or "", "-D", str(data), "-U", user, "-A", "scram-sha-256", "--pwfile", str(word)]
            subprocess.run([*line, "--no-sync", "-E", "UTF8"], check=True, capture_output=True, cwd=self.folder, **other)
            self.ports["postgres"] = free_port()
        port = self.ports["postgres"]
        line = [binary("postgres") or "", "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(self.folder)]
        self.start("postgres", line, functools.partial(listens, port), cwd=self.folder, **other)
        self.database(services()["postgres"]["environment"]["POSTGRES_DB"])

    def database(self, name: str) -> None:
        """As the image makes it at its first start."""
        import asyncio

        import asyncpg

        async def make() -> None:
            user = services()["postgres"]["environment"]["POSTGRES_USER"]
            for _ in range(100):
                try:
                    db = await asyncpg.connect(
                        host="127.0.0.1", port=self.ports["postgres"], user=user, password=PASSWORD, database="postgres"
                    )
                    break
                except (OSError, asyncpg.CannotConnectNowError):
                    await asyncio.sleep(0.1)
            with contextlib.suppress(asyncpg.DuplicateDatabaseError):
                await db.execute(f'create database "{name}"')
            await db.close()

        asyncio.run(make())

    def redis(self) -> None:
        port = self.ports.setdefault("redis", free_port())
        line = [binary("redis-server") or "", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        self.start("redis", line, functools.partial(listens, port))

    def environment(self) -> dict[str, str]:
        """What compose.yaml gives the server, with the names of services replaced by where they are here."""
        given = self.given | {"PREFECT_API_URL": self.url}
        found = {name: filled(str(text), given) for name, text in services()["server"]["environment"].items()}
        for name, value in list(found.items()):
            if name.endswith("_HOST") and value in services():
                found |= {name: "127.0.0.1", name.removesuffix("HOST") + "PORT": str(self.ports.get(value, 9))}
        return found

    def prefect(self, name: str, words: Sequence[str], env: Mapping[str, str], ready: Callable[[], bool]) -> None:
        self.start(name, [sys.executable, "-m", "prefect", *words], ready, env=self.clean(name) | env, cwd=self.folder)

    def once(self, words: Sequence[str], env: Mapping[str, str]) -> None:
        """A command of Prefect that ends by itself."""
        line = [sys.executable, "-m", "prefect", *words]
        done = subprocess.run(line, env=self.clean("once") | env, cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {(done.stdout + done.stderr)[-3000:]}")

    def clean(self, name: str) -> dict[str, str]:
        """Nothing of Prefect but a home of its own: as in a container."""
        found = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        return found | {
            "PREFECT_HOME": str(self.folder / name),
            "PREFECT_SERVER_MEMO_STORE_PATH": str(self.folder / f"{name}.toml"),
        }

    def server(self, *more: str, env: Mapping[str, str] | None = None) -> None:
        """With the command of compose.yaml, at a port that is free here."""
        env, ready = self.environment() if env is None else env, functools.partial(healthy, self.url)
        words = services()["server"]["command"].replace("0.0.0.0", "127.0.0.1").split()[1:]
        self.prefect("server", [*words, "--port", str(self.ports["server"]), *more], env, ready)

    def end(self) -> None:
        for name in reversed(list(self.running)):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.kill(name, signal.SIGINT if name == "postgres" else signal.SIGKILL)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def healthy(url: str) -> bool:
    import httpx

    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    return False


@contextlib.contextmanager
def stack() -> Iterator[Stack]:
    folder = Path(tempfile.mkdtemp(prefix="esr-stack-"))
    found = Stack(folder)
    try:
        yield found
    finally:
        found.end()
        shutil.rmtree(folder, ignore_errors=True)
