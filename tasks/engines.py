"""Engines that are flow runs of a work pool: how a run calls them."""

import os
import socket
from urllib.parse import urlsplit

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from esr.engine import share
from esr.engine.share import POOL, Summons
from esr.errors import EngineError
from tasks.run import Run

HOST = "ESR_FLEET_HOST"
"""Address at which workers reach this machine, where that from which it reaches the Prefect server is not it."""


def taken_from_pool(run: Run) -> None:
    """With $ESR_POOL, engines that are opened from now on are those of its workers."""
    pool, url = os.environ.get(POOL), os.environ.get("PREFECT_API_URL")
    if not pool:
        return
    if not url:
        raise EngineError(
            f"workers of the pool {pool!r} are called through a Prefect server; set PREFECT_API_URL, or leave --pool out"
        )
    if not online(pool):
        raise EngineError(
            f"no worker of the pool {pool!r} takes runs at {url}; start one with `prefect worker start --pool {pool} --limit 1`, or leave --pool "
            "out: the run then has an engine of its own"
        )

    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(f"engine/{pool}")
        except ObjectNotFound:
            told = f"the server at {url} has no deployment engine/{pool}, which a run calls; `python -m deployments up` makes it where params.yaml"
            raise EngineError(f"{told} has a model of that pool") from None

    def call(address: str, key: str) -> None:
        asked = {"address": address, "key": key, "run": f"{run.experiment.name} on {run.model}"}
        run_deployment(f"engine/{pool}", parameters=asked, timeout=0, as_subflow=True)

    share.summon_by(Summons(pool, os.environ.get(HOST) or address_towards(url), call))


def online(pool: str) -> int:
    """Workers of the pool that take runs."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
            return sum(worker.status == WorkerStatus.ONLINE for worker in client.read_workers_for_work_pool(pool))
        except ObjectNotFound:
            return 0


def address_towards(url: str) -> str:
    """Of this machine, as whoever is at the server sees it."""
    where = urlsplit(url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((where.hostname or "127.0.0.1", where.port or 4200))
        return str(probe.getsockname()[0])
