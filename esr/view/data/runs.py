"""The page of all runs: how each was made, what it cost, and how its arms stand."""

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from esr.errors import EsrError
from esr.params.load import load
from esr.record.changed import flat
from esr.record.manifest import content
from esr.show.plain import plain
from esr.show.runs import listed
from esr.store import Store
from esr.types import BASELINE
from esr.view.data.choice import Address

Flat: TypeAlias = dict[str, object]
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
    defaults: dict[tuple[str, str], Flat | None] = {}
    return plain({"runs": [_run(row, defaults) for row in reversed(found)], "arms": arms})


def _run(row: Mapping[str, Any], defaults: dict[tuple[str, str], Flat | None]) -> dict[str, Any]:
    manifest = json.loads(row["manifest"] or "{}")
    told = {key: value for key, value in manifest.items() if key not in ("params", "prompts")}
    return {**row, "manifest": told, "changed": _changed(manifest, row, defaults)}


def _changed(
    manifest: Mapping[str, Any], row: Mapping[str, Any], defaults: dict[tuple[str, str], Flat | None]
) -> list[dict[str, object]] | None:
    """Parameters of the run that are not those of params.yaml as it is now, without those that the run does not look at; None: there is
    nothing to compare."""
    then, key = (manifest.get("params") or {}).get("content"), (str(row["model"]), str(row["scale"]))
    if key not in defaults:
        try:
            defaults[key] = dict(flat(content(load(*key))))
        except EsrError:
            defaults[key] = None
    now = defaults[key]
    if then is None or now is None:
        return None
    old = dict(flat(then))
    own = {
        "experiments": (row["experiment"], BASELINE.experiment),
        "models": (row["model"],),
        "judges": (row["judge"],),
        "saes": ((manifest.get("sae") or {}).get("name"),),
    }
    names = [name for name in {**now, **old} if old.get(name) != now.get(name) and _looked_at(name, own)]
    return [{"name": name.removeprefix("experiments."), "run": old.get(name), "now": now.get(name)} for name in names]


def _looked_at(name: str, own: Mapping[str, tuple[object, ...]]) -> bool:
    """Not of a block of another experiment, model, judge, SAE or set of directions."""
    block, _, rest = name.partition(".")
    return block != "directions" and (block not in own or rest.split(".")[0] in own[block])
