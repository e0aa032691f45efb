"""One row of `runs`, put when a run begins and again when it ends, with everything that it rests on."""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from esr.record.manifest import manifest

if TYPE_CHECKING:
    from esr.engine import Engine
    from esr.judge import Judge
    from esr.params import Params
    from esr.store import Store


RUNNING = "running"
"""Status of a run that has begun and of which no end was recorded: it is at work, or it was killed."""

STREAMS = """
select distinct on (layer) layer, scope, norm, tokens, replies, weights from norms where model = ? order by layer, measured_at desc
"""


def at_work(manifest: Mapping[str, Any]) -> bool | None:
    """Whether the process that carries out a run is still there; None: it ran on another machine, which is not asked."""
    host = manifest.get("host") or {}
    if host.get("name") != platform.node() or "process" not in host:
        return None
    try:
        os.kill(int(host["process"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def put_run(
    store: "Store",
    params: "Params",
    *,
    experiment: str,
    model: str,
    judges: "Sequence[Judge]",
    engine: "Engine | None",
    judge: str,
    started: datetime,
    status: str,
    cost: float | None = None,
    run_id: str | None = None,
    meaning: str | None = None,
) -> str:
    """The id of the row. `engine`: the one that was opened; None: every reply was there already. `run_id`: of the row that it
    replaces, whose name it keeps. `meaning`: of the study's trials; None: it cannot be told."""
    kept = store.sql("select name, hidden from runs where run_id = ?", [run_id]).to_pylist() if run_id else []
    streams = store.sql(STREAMS, [model]).to_pylist()
    return store.put_run(
        {
            **(kept[0] if kept else {}),
            **({"run_id": run_id} if run_id else {}),
            "experiment": experiment,
            "model": model,
            "scale": params.scale,
            "started_at": started,
            "finished_at": None if status == RUNNING else datetime.now(UTC),
            "judge": judge,
            "status": status,
            "cost": cost,
            "manifest": manifest(params, model, engine=engine, judges=judges, meaning=meaning, streams=streams),
        }
    )
