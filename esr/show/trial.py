"""Everything that the store holds of one trial, and the lines that make it again."""

from collections.abc import Mapping, Sequence
from typing import Any

from esr.errors import DataError
from esr.store import Ask, Store

PLACES = "select experiment, arm, scale, latent, latent_label, boost, threshold, question from current_members where trial_id = ? order by all"


def gathered(store: Store, beginning: str) -> dict[str, Any]:
    """Everything that the store holds of the one trial whose id begins so."""
    try:
        of = [whole_id(store.sql, beginning)]
    except DataError as error:
        raise DataError(f'{error}; `python -m esr sql "select trial_id from outcomes"` lists them') from None
    [trial] = store.sql("select * from trials where trial_id = ?", of).to_pylist()
    replies = store.sql("select * from replies where trial_id = ?", of).to_pylist()
    places = store.sql(PLACES, of).to_pylist()
    grades = store.sql("select * from grades where trial_id = ? order by judge, latent, graded_at", of).to_pylist()
    return {"trial": trial, "reply": replies[0] if replies else None, "members": places, "grades": grades}


def whole_id(ask: Ask, beginning: str) -> str:
    """Of the one trial whose id begins so."""
    found: list[str] = ask("select trial_id from trials where starts_with(trial_id, ?) limit 2", [beginning])[
        "trial_id"
    ].to_pylist()
    if len(found) != 1:
        raise DataError(f"{'several trials have' if found else 'no trial has'} an id that begins with {beginning[:80]!r}")
    return found[0]


def again(trial: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines that plan this trial; each generates only what the store lacks."""
    lines = [f"python -m flows {m['experiment']} {trial['model']} --scale {m['scale']}" for m in members]
    return list(dict.fromkeys(lines)) or ["it is part of a threshold search; the line of any experiment on this model makes it"]
