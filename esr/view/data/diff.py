"""The page of two sides in pairs: what `python -m esr diff` tells, and the replies of the trials that changed, whole."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from esr.errors import DataError
from esr.params import load
from esr.show import diff as shown
from esr.show.plain import plain
from esr.show.sides import Asked, Names
from esr.store import Store
from esr.view.data.choice import Address

LIMIT, MOST = 60, 2000
"""Changed trials of each arm that come at first, and at most."""
ARMS = """
select distinct s.experiment || '/' || s.arm as arm, a.against, s.model, s.judge, s.scale, s.experiment, a.kind, a.place
from summary s join current_arms a using (experiment, model, arm, scale)
where s.n_graded > 0 order by s.scale, s.model, s.experiment, a.kind, a.place, arm, s.judge
"""


def diff(store: Store, address: Address) -> Any:
    """Of an address that names `a` and `b`; of another, what can be held against what."""
    if not address.get("a") or not address.get("b"):
        return plain(choices(store))
    protocol = load().protocol
    given = {name: address.get(name) or "" for name in ("a", "b", "arm", "model", "judge")}
    found = shown.diff(
        store,
        Asked(**given, scale=address.get("scale") or "full"),
        exclude_degraded=protocol.exclude_degraded,
        confidence=protocol.confidence,
    )
    told = shown.told(found, _limit(address))
    told["texts"] = {
        pair[side]["trial_id"]: one.texts[pair[side]["trial_id"]]
        for one, arm in zip(found.compared, told["arms"], strict=True)
        for pair in arm["changed"]
        for side in "ab"
        if pair[side]["trial_id"] in one.texts
    }
    return plain(told)


def _limit(address: Address) -> int:
    text = address.get("limit") or str(LIMIT)
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= MOST):
        raise DataError(f"the address asks for limit={text[:40]}; it should be a number from 1 to {MOST}")
    return int(text)


def choices(store: Store) -> dict[str, Any]:
    """Arms, and runs, newest first, with the presets that they were made with."""
    arms, every = store.sql(ARMS).to_pylist(), Names(store, "full").runs
    runs = [
        {key: run[key] for key in ("run_id", "name", "experiment", "model", "scale", "judge", "started_at", "status")}
        for run in every
        if run["hidden"] is not True
    ]
    return {"arms": [{key: row[key] for key in ("arm", "against", "model", "judge", "scale")} for row in arms], "runs": runs}


def copied(store: Store, experiments: Sequence[str]) -> Iterator[tuple[Address, Any]]:
    """What can be held against what, and each arm against the one that it is compared with."""
    every = choices(store)
    arms = [row for row in every["arms"] if not experiments or row["arm"].split("/")[0] in experiments]
    yield {}, plain({**every, "arms": arms, "runs": []})
    graded = {(row["arm"], row["model"], row["judge"], row["scale"]) for row in every["arms"]}
    addresses = [
        _address(row) for row in arms if row["against"] and (row["against"], row["model"], row["judge"], row["scale"]) in graded
    ]
    for address in sorted(addresses, key=lambda one: "&".join(f"{name}={value}" for name, value in sorted(one.items()))):
        if address["a"] != address["b"]:
            yield address, diff(store, address)


def _address(row: Mapping[str, Any]) -> dict[str, str]:
    """As the page's links write it: the scale where it is not the full one."""
    told = {"a": row["arm"], "b": row["against"], "model": row["model"], "judge": row["judge"]}
    return told if row["scale"] == "full" else {**told, "scale": row["scale"]}
