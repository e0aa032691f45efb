"""Where Prefect keeps what it writes: beside the results, never in a home folder shared by every project.

Prefect ignores PREFECT_HOME for results and memo files, so each place is named. What the user has set stays.
"""

import os
from contextlib import suppress
from pathlib import Path

from esr.params import store

HEARTBEAT = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"


def settings(store: Path) -> dict[str, str]:
    """The environment of every process that runs, serves or works for flows."""
    return {
        "PREFECT_HOME": str(store / "prefect"),
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(store / "cache"),
        "PREFECT_SERVER_MEMO_STORE_PATH": str(store / "prefect" / "memo.toml"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_TASK_RUN_TAG_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
        HEARTBEAT: "30",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "esr",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def home() -> Path:
    return store()


def results() -> Path:
    """Where cached values lie, also under a worker that was started without these settings."""
    return home() / "cache"


def prepare() -> None:
    """Before Prefect is first imported."""
    wanted = settings(home())
    if not os.environ.get("PREFECT_API_URL"):
        os.environ.pop("PREFECT_API_URL", None)
        del wanted[HEARTBEAT]  # a server of the run's own marks no run dead, and each flow's end would wait for the last beat
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    with suppress(OSError):  # a store that cannot be written is said when a run begins
        Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
