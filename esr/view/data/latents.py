"""Latents that a model was steered along: labels, thresholds with their searches, rates, and where they fire."""

from collections.abc import Mapping, Sequence
from typing import Any

from esr.count.statistics import wilson
from esr.errors import DataError, EsrError
from esr.params import load
from esr.sae.labels import labels_file, read_labels, read_ratings
from esr.show.plain import plain
from esr.store import Ask, Store
from esr.view.data.choice import Address, Choice, choice, need

SEARCHES = """
select latent, label, threshold, low, high, status, target, verified_score, asks, clamped from thresholds where model = ? {also}
order by latent, clamped is not null, status, calibration_id
"""
RATES = """
select latent, any_value(latent_label) as label, experiment || '/' || arm as arm, count(*) as n, sum(multi::int)::int as multi, sum(corrected::int)::int as corrected,
  avg(first_score) as first, any_value(boost) as boost, any_value(threshold) as threshold
from outcomes where model = ? and scale = ? and judge = ? {also} group by latent, experiment, arm order by experiment, arm
"""


def latents(store: Store, address: Address) -> Any:
    """Every latent with a threshold or a graded trial; its rates are those of experiment 1's baseline."""
    with store.asking() as ask:
        chosen = choice(ask, address)
        searches = ask(SEARCHES.format(also="and clamped is null"), [chosen.model]).to_pylist()
        rates = ask(
            RATES.format(also="and experiment = 'exp01' and arm = 'baseline'"), [chosen.model, chosen.scale, chosen.judge]
        ).to_pylist()
    labels, by_latent = known_labels(store, chosen), {row["latent"]: row for row in rates}
    found: dict[int, dict[str, Any]] = {}
    for row in searches:
        found.setdefault(row["latent"], {**row, "searches": 0})["searches"] += 1
    for latent in by_latent:
        found.setdefault(latent, {"latent": latent, "searches": 0})
    return plain(
        {
            "judge": chosen.judge,
            "latents": [
                {**row, "label": row.get("label") or (by_latent.get(latent) or {}).get("label") or labels.get(latent, ""), "rates": by_latent.get(latent)}
                for latent, row in sorted(found.items())
            ],
        }
    )  # fmt: skip


def latent(store: Store, address: Address) -> Any:
    """One of them, whole."""
    try:
        index = int(need(address, "latent"))
    except ValueError:
        raise DataError(f"latent={address['latent']!r} is no number of a latent") from None
    with store.asking() as ask:
        chosen = choice(ask, address)
        searches = ask(SEARCHES.format(also="and latent = ?"), [chosen.model, index]).to_pylist()
        rates = ask(RATES.format(also="and latent = ?"), [chosen.model, chosen.scale, chosen.judge, index]).to_pylist()
        roles = ask(
            "select distinct kind, set_id, rank from detectors where model = ? and latent = ?", [chosen.model, index]
        ).to_pylist()
        examples = firing(ask, chosen, index)
    named = [row["label"] for row in (*searches, *rates) if row["label"]]
    labels = known_labels(store, chosen)
    if not named and not searches and index not in labels:
        raise DataError(f"the store holds nothing of latent {index} of {chosen.model!r}")
    for row in rates:
        row["multi_within"], row["corrected_within"] = (
            list(span) if (span := wilson(row[name], row["n"], 0.95)) else None for name in ("multi", "corrected")
        )
    return plain(
        {
            "latent": index,
            "label": named[0] if named else labels.get(index, ""),
            "concreteness": ratings(store, chosen).get(index),
            "sae": sae_of(chosen.model),
            "searches": searches,
            "arms": rates,
            "roles": roles,
            "examples": examples,
        }
    )


FIRING = """
with fired as (
  select a.trial_id, a.steering, a.stage, unnest(a.latents) as latent, unnest(a.positions) as position, unnest(a."values") as value
  from activations a where a.model = ? and a.pooling = 'token' and a.steering = 'off' and list_contains(a.latents, ?)
), own as (
  select f.trial_id, f.position, max(f.value) as value from fired f where f.latent = ? and f.value > 0 group by all
), peaks as (
  select * from own qualify row_number() over (partition by trial_id order by value desc, position) = 1 order by value desc limit ?
)
select p.trial_id as trial, p.value, p.position - r.n_prompt_tokens as token, r.text, k.char_starts[p.position - r.n_prompt_tokens + 1] as start,
  k.char_ends[p.position - r.n_prompt_tokens + 1] as "end"
from peaks p join replies r using (trial_id) join tokens k using (trial_id) where p.position >= r.n_prompt_tokens order by p.value desc
"""
AROUND = 160
"""Characters shown on either side of where it fires."""
EXAMPLES = 12


def firing(ask: Ask, chosen: Choice, index: int) -> list[dict[str, Any]]:
    """Where in stored readings without steering it is most active, the strongest place of each reply."""
    out = []
    for row in ask(FIRING, [chosen.model, index, index, EXAMPLES]).to_pylist():
        if row["start"] is None:
            continue
        left = max(0, row["start"] - AROUND)
        parts = (
            row["text"][left : row["start"]],
            row["text"][row["start"] : row["end"]],
            row["text"][row["end"] : row["end"] + AROUND],
        )
        out.append(
            {
                "trial": row["trial"],
                "value": row["value"],
                "parts": parts,
                "cut": left > 0,
                "more": len(row["text"]) > row["end"] + AROUND,
            }
        )
    return out


def sae_of(model: str) -> dict[str, Any] | None:
    """Name, layer and size of the SAE that params.yaml gives the model."""
    try:
        params = load(model)
        name = params.model(model).sae
        return {"name": name, "layer": params.sae(name).layer}
    except EsrError:
        return None


def known_labels(store: Store, chosen: Choice) -> Mapping[int, str]:
    """Of the model's SAE, where its labels are here."""
    try:
        params = load(chosen.model)
        named = params.sae(params.model(chosen.model).sae).labels
        return {one.index: one.label for one in read_labels(labels_file(store.root, named))} if named else {}
    except EsrError:
        return {}


def ratings(store: Store, chosen: Choice) -> Mapping[int, float]:
    try:
        params = load(chosen.model)
        named = params.sae(params.model(chosen.model).sae).labels
        return read_ratings(labels_file(store.root, named)) if named else {}
    except EsrError:
        return {}


def indices(store: Store, model: str) -> Sequence[int]:
    """Latents that have a page."""
    found: list[int] = store.sql(
        "select latent from thresholds where model = ? union select latent from current_members where model = ? and latent >= 0 order by 1",
        [model, model],
    )["latent"].to_pylist()
    return found
