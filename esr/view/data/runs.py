"""The page of all runs: how each was made, what it cost, and how its arms stand."""

import json
from collections.abc import Mapping
from typing import Any

from esr.errors import EsrError
from esr.params.load import load
from esr.record.changed import flat
from esr.record.manifest import content
from esr.show.plain import plain
from esr.show.runs import listed
from esr.store import Store
from esr.view.data.choice import Address

ARMS = """
select s.experiment, s.model, s.scale, s.judge, s.arm, s.n_planned as planned, s.n_graded as n, s.n_missing as missing, s.n_pending as pending,
  s.n_failed as failed, s.multi_attempt_rate as multi, s.esr_rate as esr, s.first_score_mean as first
from summary s join current_arms a using (experiment, model, arm, scale) order by s.experiment, s.model, a.kind, a.place, s.arm
"""


def runs(store: Store, address: Address) -> Any:
    """Every run that is not hidden (`hidden=1`: those too), and the arms as they stand now."""
    found = listed(store, hidden=address.get("hidden") == "1")
    with store.asking() as ask:
        arms = ask(ARMS).to_pylist()
    defaults: dict[tuple[str, str], dict[str, object] | None] = {}
    return plain({"runs": [_run(row, defaults) for row in reversed(found)], "arms": arms})


def _run(row: Mapping[str, Any], defaults: dict[tuple[str, str], dict[str, object] | None]) -> dict[str, Any]:
    manifest = json.loads(row["manifest"] or "{}")
    told = {key: value for key, value in manifest.items() if key not in ("params", "prompts")}
    return {**row, "manifest": told, "changed": _changed(manifest, str(row["model"]), str(row["scale"]), defaults)}


def _changed(
    manifest: Mapping[str, Any], model: str, scale: str, defaults: dict[tuple[str, str], dict[str, object] | None]
) -> list[dict[str, object]] | None:
    """Parameters of the run that are not those of params.yaml as it is now; None: there is nothing to compare."""
    then = (manifest.get("params") or {}).get("content")
    if (model, scale) not in defaults:
        try:
            defaults[model, scale] = dict(flat(content(load(model, scale))))
        except EsrError:
            defaults[model, scale] = None
    now = defaults[model, scale]
    if then is None or now is None:
        return None
    old = dict(flat(then))
    return [{"name": name, "run": old.get(name), "now": now.get(name)} for name in {**now, **old} if old.get(name) != now.get(name)]
