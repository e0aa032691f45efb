"""The Prefect server that `python -m deployments up` starts: Prefect's own, whose transactions wait for their turn and are fewer.

Prefect begins a transaction as a reader and writes later in it. Where somebody else has written in between, SQLite refuses that at
once with "database is locked", whatever the busy time-out; with a worker that polls this happens every few seconds. A transaction that
begins as a writer waits instead, up to Prefect's busy time-out of 60 s. Postgres is not concerned.
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

RECORDER = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}
"""Its environment: reports of task runs are written down a hundred at a time, or those of a second. By itself Prefect gives each a transaction of
its own, which takes several times as much of the processor. A server that is killed loses those of its last second."""


def command(host: str, port: int) -> list[str]:
    """The line that starts it."""
    line = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(__file__).resolve().parent.parent)]
    line += ["--factory", "deployments.server:create_app", "--host", host, "--port", str(port)]
    return [*line, "--timeout-keep-alive", "5", "--log-level", "warning"]


def create_app() -> Any:
    """For `uvicorn --factory`."""
    from prefect.server.database.configurations import AioSqliteConfiguration

    AioSqliteConfiguration.begin_transaction = as_writer(AioSqliteConfiguration.begin_transaction)
    from prefect.server.api.server import create_app as app

    return app()


def as_writer(begin: Any) -> Any:
    @asynccontextmanager
    async def begin_transaction(self: Any, session: Any, with_for_update: bool = True) -> AsyncGenerator[Any, None]:
        async with begin(self, session, with_for_update=True) as transaction:
            yield transaction

    return begin_transaction
