"""The runs that the store knows of, as people list them."""

import json
from datetime import UTC, datetime
from typing import Any

from esr.record.run import RUNNING, at_work
from esr.store import Store

LIST = """
select run_id, started_at, experiment, model, scale, judge, status, cost, name, hidden,
  epoch(coalesce(finished_at, ?::timestamp) - started_at) as seconds, manifest
from runs where ? or hidden is not true order by started_at, run_id
"""


def listed(store: Store, *, hidden: bool) -> list[dict[str, Any]]:
    """In the order in which they began; `hidden`: also those that a person does not want to see. The manifest is JSON text."""
    rows: list[dict[str, Any]] = store.sql(LIST, [datetime.now(UTC).replace(tzinfo=None), hidden]).to_pylist()
    return [{**row, "status": _status(row["status"], row["manifest"])} for row in rows]


def _status(recorded: str | None, manifest: str | None) -> str | None:
    """As recorded; of a run that never ended, whether its process is still there."""
    if recorded == RUNNING and manifest and at_work(json.loads(manifest)) is False:
        return "killed"
    return recorded
