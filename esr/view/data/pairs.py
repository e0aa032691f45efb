"""The same latent, question and seed in every arm: what became of a trial where one thing was changed."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from esr.errors import DataError
from esr.show.plain import plain
from esr.store import Store
from esr.view.data.choice import Address, need

NAMES = ("latent", "model", "question", "scale", "seed")
"""What a pair has in common."""
PAIRS = """
select m.model, m.scale, m.latent, m.question, t.seed, m.experiment || '/' || m.arm as arm, a.kind, m.trial_id as trial, m.boost, r.degraded,
  o.judge, o.scores, o.corrected
from current_members m join trials t using (trial_id) left join replies r using (trial_id)
left join current_arms a on a.experiment = m.experiment and a.model = m.model and a.arm = m.arm and a.scale = m.scale
left join outcomes o on o.experiment = m.experiment and o.model = m.model and o.arm = m.arm and o.scale = m.scale and o.trial_id = m.trial_id and o.latent = m.latent
where {where} order by m.model, m.scale, m.latent, m.question, t.seed, m.experiment, a.kind, a.place, m.arm, o.judge
"""


def pairs(store: Store, address: Address) -> Any:
    """One an arm, with each judge's outcome."""
    try:
        asked = [
            need(address, "model"),
            need(address, "scale"),
            int(need(address, "latent")),
            address.get("question") or "",
            int(need(address, "seed")),
        ]
    except ValueError:
        raise DataError("latent and seed of an address are numbers") from None
    where = "m.model = ? and m.scale = ? and m.latent = ? and coalesce(m.question, '') = ? and t.seed = ?"
    with store.asking() as ask:
        return plain(_arms(ask(PAIRS.format(where=where), asked).to_pylist()))


def every(store: Store, experiments: Sequence[str]) -> Iterator[tuple[Address, Any]]:
    """Of all trials of the experiments (none: all)."""
    where = "len(?) = 0 or m.experiment in (select unnest(?))"
    with store.asking() as ask:
        rows = ask(PAIRS.format(where=where), [list(experiments), list(experiments)]).to_pylist()
    for key, some in groupby(rows, key=lambda row: tuple(row[name] for name in NAMES)):
        yield {name: "" if value is None else str(value) for name, value in zip(NAMES, key, strict=True)}, plain(_arms(list(some)))


def _arms(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    out: dict[tuple[object, ...], dict[str, Any]] = {}
    for row in rows:
        told = {name: row[name] for name in ("arm", "kind", "trial", "boost", "degraded")}
        one = out.setdefault((row["arm"], row["trial"]), {**told, "by": {}})
        if row["judge"] is not None:
            one["by"][row["judge"]] = {"scores": row["scores"], "corrected": row["corrected"]}
    return list(out.values())
