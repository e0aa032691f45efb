"""What experiment 3 exports beside outcomes: the detectors that its arms clamp, with what they were found by."""

import json

import pandas as pd

from esr import prompts
from esr.experiment import Selection, Table
from esr.store import Store
from esr.study.detect import Detection

CLAMPED = """
select distinct list_sort([op.latent for op in ops if op.kind = 'clamp']) as latents
from current_members m join trials using (trial_id) where experiment = ? and m.model = ? and scale = ? and plan <> 'reference'
"""
SETS = """
select set_id, list_sort(list(latent)) as latents, any_value(try_cast(f.content as bigint)) as questions, any_value(p.sha256) as imported
from detectors d left join provenance p on p.relation = 'detectors' and p.id = d.set_id
left join findings f on f.sha256 = p.sha256 and f.kind = 'detectors' and f.item = 'num_prompts'
where model = ? and d.kind = 'detector' group by set_id
"""
ROWS = """
select set_id, latent, label, rank, matched_mean, matched_active, mismatched_mean, mismatched_active,
    auc, auc_held_out, auc_low, auc_high,
    cast(null as bigint) as matched_pairs, cast(null as bigint) as mismatched_pairs
from detectors where list_contains(?, set_id) order by set_id, rank
"""
MANIFEST = """
select manifest from runs where experiment = ? and model = ? and scale = ? and status = 'completed'
order by recorded_at desc nulls last, started_at desc limit 1
"""


def detectors(store: Store, chosen: Selection) -> pd.DataFrame:
    """A row a detector: of own trials the sets that they clamp, of imported ones the sets that were imported. None: no row."""
    of = [chosen.experiment, chosen.model, chosen.scale]
    clamped = [row["latents"] for row in store.sql(CLAMPED, of).to_pylist()]
    sets = store.sql(SETS, [chosen.model]).to_pylist()
    kept = [one for one in sets if one["latents"] in clamped] if clamped else [one for one in sets if one["imported"]]
    rows: pd.DataFrame = store.sql(ROWS, [[one["set_id"] for one in kept]]).to_pandas()
    pairs = _pairs(store, of) if clamped else None
    for one in kept:
        found = pairs or (one["questions"],) * 2  # the authors dealt each reply once
        rows.loc[rows["set_id"] == one["set_id"], ["matched_pairs", "mismatched_pairs"]] = found
    return rows.astype({"matched_pairs": "Int64", "mismatched_pairs": "Int64"})


def _pairs(store: Store, of: list[str]) -> tuple[int | None, int | None]:
    """How many pairs the last run read: matched, mismatched. Unknown where its questions were not today's."""
    for row in store.sql(MANIFEST, of).to_pylist():
        manifest = json.loads(row["manifest"])
        settings = manifest["params"]["content"]["experiments"].get(Detection.block)
        if settings and manifest["prompts"].get("discovery") == prompts.digest("discovery"):
            own = len(prompts.discovery()) * settings["replies_per_question"]
            return own, own * settings["derangements"]
    return None, None


DETECTORS = Table("detectors", detectors)
