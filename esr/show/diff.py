"""Two runs, arms, models, presets, plans or judges held against each other: what `python -m esr diff` and its page show."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pandas as pd

from esr.count.changes import Change, Changes, changes
from esr.count.metrics import Difference, differences
from esr.errors import DataError
from esr.record.between import Differs, between
from esr.show.sides import Asked, Side, sides, trials
from esr.store import Store

DEGRADED = "degraded, and protocol.exclude_degraded leaves it out"


@dataclass(frozen=True, slots=True)
class Compared:
    """One arm against one."""

    a: Side
    b: Side
    differences: Mapping[str, Difference]
    """The first minus the second."""
    changes: Changes
    texts: Mapping[str, str]
    """Replies by trial."""

    @property
    def pairs(self) -> int:
        return self.changes.a.paired


@dataclass(frozen=True, slots=True)
class Diff:
    kind: str
    asked: Asked
    differs: Sequence[Differs] | None
    """Of two runs, or of presets by their newest: what they were made with. None: of others."""
    compared: Sequence[Compared]


def diff(store: Store, asked: Asked, *, exclude_degraded: bool, confidence: float) -> Diff:
    """Raises DataError where names are not known or no trial has a partner."""
    kind, pairs = sides(store, asked)
    planned = _planned(store, pairs)
    found = [_compared(a, b, one, other, exclude_degraded, confidence) for (a, b), (one, other) in zip(pairs, planned, strict=True)]
    if not any(one.pairs for one in found):
        raise DataError(_alone(kind, asked, found[0].changes))
    runs = [side.run for side in pairs[0]]
    made = between(runs[0], runs[1]) if runs[0] and runs[1] else None
    return Diff(kind, asked, made, found)


Rows = list[dict[str, Any]]


def _then(store: Store, side: Side) -> Rows:
    return trials(partial(store.sql, as_of=side.as_of), side)


def _planned(store: Store, pairs: Sequence[tuple[Side, Side]]) -> list[tuple[Rows, Rows]]:
    """Of sides as they stand now by one connection, of others each as it stood."""
    if any(side.as_of for pair in pairs for side in pair):
        return [(_then(store, a), _then(store, b)) for a, b in pairs]
    with store.asking() as ask:
        return [(trials(ask, a), trials(ask, b)) for a, b in pairs]


def _compared(a: Side, b: Side, one: Rows, other: Rows, exclude_degraded: bool, confidence: float) -> Compared:
    planned = (one, other)
    for row in (row for rows in planned for row in rows):
        if exclude_degraded and not row["lacks"] and row["degraded"]:
            row["lacks"] = DEGRADED
    found = changes(*planned)
    graded = [pd.DataFrame([row for row in rows if not row["lacks"]], columns=list(rows[0]) if rows else None) for rows in planned]
    held = differences(*graded, confidence=confidence) if found.a.paired else {}
    texts = {row["trial_id"]: row["text"] for rows in planned for row in rows if row["text"] is not None}
    return Compared(a, b, held, found, texts)


def _alone(kind: str, asked: Asked, found: Changes) -> str:
    why = next(iter(found.a.lacking), "it has no planned trial")
    return (
        f"{asked.a!r} and {asked.b!r} have no graded trial of one latent, question and seed in common, so nothing can be compared in pairs "
        f"(of {found.a.planned:,} trials of the first most lack this: {why})"
        + ("; models share latents only where they share an SAE" if kind == "model" else "")
    )


def told(found: Diff, limit: int | None = None) -> dict[str, Any]:
    """As JSON holds it; of each arm so many changed trials at most, None for all."""
    return {
        "kind": found.kind,
        **{key: value for key, value in asdict(found.asked).items() if value},
        "differs": None if found.differs is None else [asdict(one) for one in found.differs],
        "arms": [_arm(one, limit) for one in found.compared],
    }


def _arm(one: Compared, limit: int | None) -> dict[str, Any]:
    changed = one.changes.changed
    return {
        "a": _side(one.a),
        "b": _side(one.b),
        "pairs": one.pairs,
        "partners": {"a": asdict(one.changes.a), "b": asdict(one.changes.b)},
        "differences": {name: asdict(d) for name, d in one.differences.items()},
        "outcomes": [{"a": a, "b": b, "n": n} for (a, b), n in sorted(one.changes.outcomes.items())],
        "n_changed": len(changed),
        "n_outcome_changed": sum(pair.a.outcome != pair.b.outcome for pair in changed),
        "n_words_only": sum(pair.what == ("text",) for pair in changed),
        "changed": [change(pair) for pair in changed[:limit]],
    }


def _side(side: Side) -> dict[str, Any]:
    run = None if side.run is None else side.run["run_id"]
    return {
        "name": side.name,
        "told": side.told,
        "arm": side.arm,
        "model": side.model,
        "judge": side.judge,
        "scale": side.scale,
        "run": run,
    }


def change(pair: Change) -> dict[str, Any]:
    return {**asdict(pair), "what": list(pair.what)}
