"""`python -m deployments doctor`: what server, pools, workers and store lack for runs of a team, each with the line that mends it."""

import fcntl
import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployments import catalogue, pools, service
from esr.errors import StoreError
from esr.remote import mirror
from tasks import environment

UP = "python -m deployments up"
COMPOSE = "on the server's machine: docker compose -f deployments/compose.yaml up -d"
WRITTEN = 15.0
"""Seconds after which an event that the server has taken is in its database; five where it has nothing else to do."""


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that runs need, and how it is."""

    what: str
    well: bool
    said: str
    mend: str = ""
    """A line, where it is not well."""

    def __str__(self) -> str:
        return f"{'ok   ' if self.well else 'lacks'} {self.what}: {self.said}" + (
            f"   → {self.mend}" if self.mend and not self.well else ""
        )


def found() -> Iterator[Found]:
    service.settle()
    yield _store(environment.home())
    yield (server := _server())
    if not server.well:
        return
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield (database := _database(client))
        if not database.well:
            return
        yield _messages(client)
        yield from _pools(client)
        yield _deployments(client)
        there = bool(client.read_automations_by_name(pools.AUTOMATION))
        yield Found(
            "automation", there, f"{pools.AUTOMATION!r} is {'there' if there else 'not there'}", "python -m deployments init"
        )
    yield _address()


def _store(home: Path) -> Found:
    """Can be written, and keeps locks: runs that share it work on a batch one after the other. A bucket keeps leases."""
    where = home / f".doctor-{os.getpid()}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with where.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        where.unlink()
    except OSError as error:
        return Found("store", False, f"{home}: {error.strerror}", "set ESR_STORE to a folder that can be written and has flock")
    try:
        if (copy := mirror.of(home)) is None:
            return Found("store", True, f"{home} can be written and has flock")
        copy.bucket.check()
        copy.settle()
    except StoreError as error:
        return Found("store", False, str(error), "correct ESR_STORE, ESR_MIRROR, AWS_ENDPOINT_URL or the keys")
    return Found("store", True, f"{copy.bucket.url} can be written and keeps the first of two writers; {home} is its copy")


def _server() -> Found:
    if not service.answers(service.PROMPT):
        mend = UP if service.here() else "start it there, or correct PREFECT_API_URL"
        return Found("server", False, f"does not answer at {service.url()}", mend)
    if why := service.refused():
        return Found("server", False, why, service.PASSWORD)
    return Found("server", True, f"answers at {service.url()}")


def _database(client: Any) -> Found:
    """Asked before all that a server without one fails at. SQLite does for one machine."""
    if service.status_of("/ready") != 200:
        return Found("database", False, "the server does not reach it", f"{COMPOSE} postgres")
    settings = client._client.get("/admin/settings").json()
    if settings.get("server", {}).get("database", {}).get("driver") == "postgresql+asyncpg":
        return Found("database", True, "answers, Postgres")
    sqlite = (Path(settings.get("home") or "/nowhere") / "prefect.db").is_file()
    return Found(
        "database", True, "answers" + ", SQLite, which does for one machine; deployments/compose.yaml has Postgres" * sqlite
    )


def _messages(client: Any) -> Found:
    """A server without its Redis says that it is healthy, and writes down neither task runs nor signs of life."""
    import httpx

    name = f"esr.doctor.{uuid.uuid4()}"
    event = {
        "id": str(uuid.uuid4()),
        "event": name,
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": "esr.doctor"},
    }
    filtered = {"filter": {"event": {"name": [name]}}, "limit": 1}
    try:
        client._client.post("/events", json=[event])
        there = service.wait(lambda: client._client.post("/events/filter", json=filtered).json()["total"] > 0, WRITTEN)
    except httpx.HTTPError:
        there = False
    said = "are written down" if there else "the server does not write them down, so task runs and signs of life are lost"
    return Found("messages", there, said, f"{COMPOSE} redis")


def _pools(client: Any) -> Iterator[Found]:
    from prefect.client.schemas.objects import WorkerStatus
    from prefect.exceptions import ObjectNotFound

    for name, holds in pools.pools().items():
        try:
            client.read_work_pool(name)
            workers = [one for one in client.read_workers_for_work_pool(name) if one.status == WorkerStatus.ONLINE]
        except ObjectNotFound:
            yield Found(f"pool {name}", False, "is not there", "python -m deployments init")
            continue
        said = (
            f"{len(workers)} worker{'s' * (len(workers) != 1)} take runs ({', '.join(one.name for one in workers)})"
            if workers
            else f"nobody takes runs of {holds}"
        )
        yield Found(f"pool {name}", bool(workers), said, f"prefect worker start --pool {name} --limit 1")


def _deployments(client: Any) -> Found:
    rows = catalogue.declared(service.FILE)
    wanted = {f"{row['entrypoint'].rpartition(':')[2]}/{row['name']}" for row in rows}
    flows = {flow.id: flow.name for flow in _pages(client.read_flows)}
    there = {f"{flows.get(one.flow_id)}/{one.name}" for one in _pages(client.read_deployments)}
    lacking = sorted(wanted - there)
    said = f"{len(wanted & there)} of {len(wanted)}" + (
        f"; not {', '.join(lacking[:3])}{', …' * (len(lacking) > 3)}" if lacking else ""
    )
    return Found("deployments", not lacking, said, "prefect --no-prompt deploy --all --prefect-file deployments/prefect.yaml")


def _pages(read: Any, size: int = 200) -> Iterator[Any]:
    offset = 0
    while some := read(limit=size, offset=offset):
        yield from some
        offset += len(some)


def _address() -> Found:
    """Workers of other machines reach a run here."""
    from tasks.engines import HOST, address_towards

    host = os.environ.get(HOST) or address_towards(service.url())
    local = host.startswith("127.")
    said = f"{host}, where workers join runs of this machine" + (", and only those of this machine can" if local else "")
    try:
        with socket.create_server((host, 0)):
            return Found("address", True, said)
    except OSError as error:
        return Found(
            "address", False, f"nobody can listen at {host} ({error.strerror})", f"set {HOST} to an address of this machine"
        )
