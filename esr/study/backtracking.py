"""Backtracking latents: those that go with the words of a correction, by what they are said to stand for or by what they do.

By label the rules of the authors' search hold: patterns with weights, and patterns that put a label out. By contrast a latent is
active in the corrections of most episodes and nearly silent elsewhere in them, and is found on the episodes of one half of the
distractors so that it can be tested on the other.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from esr.store import Store
from esr.study.episodes import Watching
from esr.study.regions import CORRECTION
from esr.types import Latent

WEIGHTS: Mapping[str, int] = {
    r"self-correct": 3, r"backtrack": 3, r"correct a": 3, r"correcting": 3, r"made a mistake": 3, r"acknowledge.*error": 3,
    r"apologize": 3, r"apolog": 3, r"mistake": 2, r"incorrect": 2, r"revise": 2, r"reconsider": 2, r"take back": 2,
    r"taking ownership": 2, r"responsibility for": 2, r"error": 1, r"wrong": 1, r"acknowledge": 1, r"careful and precise": 1,
    r"realiz": 1,
}  # fmt: skip
"""Each adds its weight to a label that it is found in."""
OUT = re.compile(
    "|".join((
        "HTTP", "stack trace", "encoding error", "Python type", "array index", "bounds check", "error handling", "error message",
        "try-catch", "exception", "Unicode", "replacement character", "syntax error", "compilation", "debug", "line number", "error code",
        "API error", "network error", "file.*error", "database", "SQL", "validation error", "input validation", "security",
        "authentication", "password", "permission", "access denied", "timeout", "connection", "404|500|403|401", "await.*async", "loop",
    )),
    re.IGNORECASE,
)  # fmt: skip
"""Errors of programs are not the model's own."""


def label_score(label: str) -> int:
    """How far a label speaks of taking something back; 0 for what is about programs."""
    if OUT.search(label):
        return 0
    return sum(weight for pattern, weight in WEIGHTS.items() if re.search(pattern, label.lower()))


def by_label(labels: Sequence[Latent], least: float) -> list[Latent]:
    """The highest score first, then by index."""
    scored = [(label_score(latent.label), latent) for latent in labels]
    return [latent for score, latent in sorted(scored, key=lambda one: (-one[0], one[1].index)) if score >= least]


@dataclass(frozen=True, slots=True)
class Contrasted:
    """A latent over one half of the episodes."""

    latent: int
    corrections: float
    """Share of episodes in whose correction it is active at some token."""
    elsewhere: float
    """Share of the other tokens of the replies at which it is active."""


def halves(distractors: Sequence[int]) -> tuple[frozenset[int], frozenset[int]]:
    """Of distractors, every other one: those that latents are found on, and those that they are tested on."""
    known = sorted(set(distractors))
    return frozenset(known[::2]), frozenset(known[1::2])


CONTRAST = f"""
with chosen as (select unnest($1) as trial_id, unnest($2) as source),
part as (
    select r.trial_id, min(r.token_start) filter (r.kind = '{CORRECTION}') as low, max(r.token_end) filter (r.kind = '{CORRECTION}') as high,
        max(r.token_end) filter (r.kind = 'prompt') as prompt, max(r.token_end) as finish
    from regions r join chosen using (trial_id, source) group by r.trial_id
), fired as (
    select a.trial_id, a.latent, bool_or(a."position" >= p.low and a."position" < p.high) as inside,
        count(*) filter (a."position" < p.low or a."position" >= p.high) as outside
    from token_activations a join part p using (trial_id)
    where a.model = $3 and a.sae = $4 and a.layer = $5 and a.selection = $6 and a.stage = $7 and a.steering = $8
        and a."value" > $9 and a."position" >= p.prompt
    group by a.trial_id, a.latent
)
select latent, count(*) filter (inside) / (select count(*) from part where high > low) as corrections,
    sum(outside) / (select sum(finish - prompt - (high - low)) from part) as elsewhere
from fired group by latent order by latent
"""


def contrast(store: Store, marked: Mapping[str, str], *, model: str, sae: str, layer: int, settings: Watching) -> list[Contrasted]:
    """From the largest latents of each token; `marked`: the source of each episode's regions. Best first."""
    if not marked:
        return []
    read = [f"top-{settings.largest}", settings.stage, settings.steering[0], settings.contrast_active]
    rows = store.sql(CONTRAST, [list(marked), list(marked.values()), model, sae, layer, *read]).to_pylist()
    found = [Contrasted(int(row["latent"]), float(row["corrections"] or 0.0), float(row["elsewhere"] or 0.0)) for row in rows]
    kept = [one for one in found if one.corrections >= settings.contrast_share and one.elsewhere <= settings.contrast_elsewhere]
    return sorted(kept, key=lambda one: (one.elsewhere - one.corrections, one.latent))[: settings.contrast_latents]
