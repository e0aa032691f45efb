"""`python -m deployments doctor`: what server, pools, workers and store lack for runs of a team, each with the line that mends it."""

import fcntl
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments import catalogue, pools, service
from esr.errors import StoreError
from esr.remote import mirror
from tasks import environment

UP = "python -m deployments up"


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
    answering = service.answers(service.PROMPT)
    yield Found("server", answering, f"{'answers' if answering else 'does not answer'} at {service.url()}", UP)
    if not answering:
        return
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield _database(client)
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


def _database(client: Any) -> Found:
    """SQLite does for one machine."""
    url = str(client._client.get("/admin/settings").json().get("server", {}).get("database", {}).get("connection_url") or "")
    named = os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL", "")
    sqlite = "postgres" not in url + named
    return Found(
        "database", True, "SQLite, which does for one machine; deployments/compose.yaml has Postgres" if sqlite else "Postgres"
    )


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
