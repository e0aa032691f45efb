"""What a run's page in Prefect says of it: its tags, and of a failure one traceback at most."""

import logging

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.utilities.urls import url_for

from esr.errors import EsrError
from esr.view.address import of_run

TOLD = "_told_on_page"
"""Set on an exception whose traceback stands in a log already."""


class Once(logging.Filter):
    """A failure passes through a task and its flow, and each logs it. Of what a user can meet the sentence is enough; anything else
    is told with its traceback once."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if error is None:
            return True
        if isinstance(error, EsrError) or getattr(error, TOLD, False):
            record.exc_info, record.exc_text = None, None
        else:
            setattr(error, TOLD, True)
        return True


ONCE = Once()
LOGGERS = ("prefect.task_runs", "prefect.flow_runs", "prefect.engine")


def told() -> None:
    """From now on, in this process: what esr says goes into the run's log, a line a batch, and a failure is told once."""
    said = logging.getLogger("esr")
    if not said.isEnabledFor(logging.INFO):
        said.setLevel(logging.INFO)  # Prefect gives the logger a way to its pages and leaves it the root's level
    for name in LOGGERS:
        logging.getLogger(name).addFilter(ONCE)  # the same again is a no-op


def tag(*names: str) -> None:
    """Of the flow run at work: these beside those that it has, so that runs are found by experiment, model and scale."""
    found, now = runtime.flow_run.id, list(runtime.flow_run.tags or [])
    if found is None or set(names) <= set(now):
        return
    with get_client(sync_client=True) as client:
        client.update_flow_run(found, tags=list(dict.fromkeys([*now, *names])))


def address(flow_run: str | None) -> str | None:
    """Of a flow run's page; None where the server ends with the run."""
    return url_for("flow-run", obj_id=flow_run) if flow_run else None


def view(row: str | None) -> str | None:
    """Of the run's page in `python -m esr view`; None where no row of it was recorded."""
    return of_run(row) if row else None
