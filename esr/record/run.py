"""One row of `runs`: how a run ended, with everything that it rested on."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from esr.record.manifest import manifest

if TYPE_CHECKING:
    from esr.engine import Engine
    from esr.judge import Judge
    from esr.params import Params
    from esr.store import Store


def put_run(
    store: "Store",
    params: "Params",
    *,
    experiment: str,
    model: str,
    judges: "Sequence[Judge]",
    engine: "Engine | None",
    started: datetime,
    status: str,
    cost: float | None = None,
    meaning: str | None = None,
) -> str:
    """`engine`: the one that was opened; None: every reply was there already. `meaning`: of the study's trials; None: it cannot be told."""
    return store.put_run(
        {
            "experiment": experiment,
            "model": model,
            "scale": params.scale,
            "started_at": started,
            "finished_at": datetime.now(UTC),
            "status": status,
            "cost": cost,
            "manifest": manifest(params, model, engine=engine, judges=judges, meaning=meaning),
        }
    )
