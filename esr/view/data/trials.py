"""All trials of a study as columns, which a browser filters and sorts by itself; and their texts."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from esr.errors import DataError
from esr.show.lacking import NO_REPLY, NOT_ASKED, ungraded
from esr.store import Ask, Store
from esr.view.data.choice import Address, Choice, choice, need

ROWS = """
select m.experiment || '/' || m.arm as arm, m.trial_id as trial, m.latent, m.latent_label, m.question, t.seed, m.boost,
  o.n_attempts as attempts, o.first_score as first, o.last_score as last, o.corrected, r.degraded, r.finish_reason = 'length' as cut,
  r.trial_id is not null as replied
from current_members m join trials t using (trial_id)
left join outcomes o on o.experiment = m.experiment and o.model = m.model and o.arm = m.arm and o.scale = m.scale and o.trial_id = m.trial_id
  and o.latent = m.latent and o.judge = ?
left join replies r on r.trial_id = m.trial_id
left join current_arms a on a.experiment = m.experiment and a.model = m.model and a.arm = m.arm and a.scale = m.scale
where {where} order by m.experiment, a.kind, a.place, m.arm, m.latent, m.question, t.seed, m.trial_id
"""
WHY = f"""
select experiment || '/' || arm as arm, trial_id as trial, latent, {ungraded("judged")} as missing
from judged where judge = ? and {{where}} and (missing is not null or len(located) = 0)
"""
OTHERS = """
select o.experiment || '/' || o.arm as arm, o.trial_id as trial, o.latent, list(o.judge order by o.judge) as judges,
  bool_or(o.multi <> mine.multi or o.corrected <> mine.corrected) as differ
from outcomes o join outcomes mine using (experiment, model, arm, scale, trial_id, latent) where o.judge <> mine.judge and mine.judge = ? and {where} group by all
"""
MOST = 400_000
"""Rows that a browser is given at once."""
Key = tuple[str, str, int]


def trials(store: Store, address: Address) -> Any:
    """Of an experiment, or without one of every experiment on the model; numbers instead of names that recur."""
    with store.asking() as ask:
        chosen = choice(ask, address)
        where, asked = chosen.where("m")
        table = ask(ROWS.format(where=where), [chosen.judge, *asked])
        if len(table) > MOST:
            raise DataError(f"{len(table):,} trials are more than a page can hold ({MOST:,}); choose an experiment")
        missing = _missing(ask, chosen, table)
        differ = _differing(ask, chosen)
    keys: list[Key] = list(zip(*(table[name].to_pylist() for name in ("arm", "trial", "latent")), strict=True))
    replied = table["replied"].to_pylist()
    graded = [value is not None for value in table["attempts"].to_pylist()]
    reasons = [
        "" if done else missing.get(key, NOT_ASKED if there else NO_REPLY)
        for key, done, there in zip(keys, graded, replied, strict=True)
    ]
    labels = dict(zip(table["latent"].to_pylist(), table["latent_label"].to_pylist(), strict=True))
    return {
        "n": len(table),
        "judge": chosen.judge,
        "labels": {str(latent): label or "" for latent, label in labels.items()},
        "arm": coded(table["arm"].to_pylist()),
        "question": coded([question or "" for question in table["question"].to_pylist()]),
        "missing": coded(reasons),
        "trial": table["trial"].to_pylist(),
        **{name: table[name].to_pylist() for name in ("latent", "seed", "attempts")},
        **{
            name: [None if x is None or x != x else round(x, 2) for x in table[name].to_pylist()]
            for name in ("boost", "first", "last")
        },
        **{name: [None if x is None else int(x) for x in table[name].to_pylist()] for name in ("corrected", "degraded", "cut")},
        "differ": [differ.get(key) for key in keys],
    }


def _missing(ask: Ask, chosen: Choice, table: pa.Table) -> dict[Key, str]:
    if not table["attempts"].null_count:
        return {}
    where, asked = chosen.where()
    return {
        (r["arm"], r["trial"], r["latent"]): r["missing"] for r in ask(WHY.format(where=where), [chosen.judge, *asked]).to_pylist()
    }


def _differing(ask: Ask, chosen: Choice) -> dict[Key, int]:
    """1: another judge sees another outcome; 0: all that have graded it see the same."""
    where, asked = chosen.where("mine")
    return {
        (r["arm"], r["trial"], r["latent"]): int(r["differ"])
        for r in ask(OTHERS.format(where=where), [chosen.judge, *asked]).to_pylist()
    }


def coded(values: Sequence[str]) -> dict[str, Any]:
    """Each value once, and its place in that list for every row."""
    names = list(dict.fromkeys(values))
    place = {name: i for i, name in enumerate(names)}
    return {"names": names, "of": [place[value] for value in values]}


FOUND = """
select distinct m.trial_id as trial from current_members m join replies r using (trial_id) join trials t using (trial_id)
where {where} and (contains(lower(r.text), lower(?)) or contains(lower(t.prompt), lower(?)))
"""


def search(store: Store, address: Address) -> Any:
    """Trials whose reply or prompt holds a text, whatever its case."""
    said = need(address, "q")
    with store.asking() as ask:
        where, asked = choice(ask, address).where("m")
        return ask(FOUND.format(where=where), [*asked, said, said])["trial"].to_pylist()


TEXTS = """
select distinct m.trial_id as trial, r.text, t.prompt from current_members m join replies r using (trial_id) join trials t using (trial_id)
where {where} order by 1
"""


def texts(store: Store, address: Address) -> Any:
    """Replies and prompts of a study: what a bundle searches in."""
    with store.asking() as ask:
        where, asked = choice(ask, address).where("m")
        table = ask(TEXTS.format(where=where), asked)
    return {"trial": table["trial"].to_pylist(), "text": table["text"].to_pylist(), "prompt": coded(table["prompt"].to_pylist())}
