"""The table of experiment 6: a row a token of each episode that is shown, with its text, its region and what is watched there."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from esr.count.aligned import smoothed
from esr.errors import DataError
from esr.experiment import Selection, Table
from esr.params import load
from esr.show.seen import arrays
from esr.store import Store
from esr.study.episodes import Watching, episodes
from esr.study.regions import PROMPT
from esr.study.traces import PUBLISHED, SHOWN, Traces, shown
from esr.study.watch import EPISODES

Row = dict[str, Any]
DISTRACTOR = "distractor"


def tokens(store: Store, chosen: Selection) -> pd.DataFrame:
    params = load(chosen.model, chosen.scale)
    settings, watching = params.of(Traces), params.of(Watching)
    order = [one.trial_id for one in shown(episodes(store, chosen.model, chosen.scale, chosen.judge, watching), settings)]
    arms = store.sql(
        "select arm, trial_id from current_members where experiment = ? and model = ? and scale = ?",
        [SHOWN.experiment, chosen.model, chosen.scale],
    ).to_pylist()
    published = [row["trial_id"] for row in arms if row["arm"] == PUBLISHED.name]
    trials = [key for key in order if key in {row["trial_id"] for row in arms}] + published
    lists = store.sql(
        "select * from watched where experiment = ? and model = ? and scale = ? order by kind desc",
        [EPISODES.experiment, chosen.model, chosen.scale],
    ).to_pylist()
    if not trials or not lists:
        raise DataError(f"no episodes of {chosen.model!r} at scale {chosen.scale!r} are laid out to be shown; run exp06 first")
    rows: list[Row] = []
    steering, stage = watching.steering[0], watching.stage
    about = {row["trial_id"]: row for row in store.sql(ABOUT, [trials, chosen.judge]).to_pylist()}
    every = sorted({latent for row in lists for latent in row["latents"]})
    zero = dict.fromkeys(trials, 0)  # the prompt's tokens are shown too
    seen = arrays(store, trials, zero, lists[0]["selection"], steering, stage, every)
    for place, key in enumerate(trials):
        if key not in seen or key not in about:
            continue
        told = about[key]
        own = arrays(store, [key], zero, DISTRACTOR, steering, stage, [told["latent"]]).get(key, np.zeros((1, seen[key].shape[1])))[
            0
        ]
        series = {
            row["kind"]: seen[key][[every.index(latent) for latent in row["latents"]]].sum(axis=0)
            for row in lists
            if row["latents"]
        }
        series[DISTRACTOR] = own
        rows += list(_rows(store, place, told, series, settings.smoothing))
    return pd.DataFrame(rows)


ABOUT = """
select m.trial_id, any_value(m.latent) as latent, any_value(m.latent_label) as label, any_value(m.question) as question, any_value(m.boost) as boost,
    any_value(t.seed) as seed, any_value(r.text) as text, any_value(r.n_prompt_tokens) as n_prompt, any_value(k.char_starts) as starts,
    any_value(k.char_ends) as ends, any_value(o.first_score) as first_score, any_value(o.last_score) as last_score
from current_members m join trials t using (trial_id) join replies r using (trial_id) join tokens k using (trial_id)
left join outcomes o on o.trial_id = m.trial_id and o.latent = m.latent and o.judge = $2
where m.experiment = 'exp06' and m.trial_id in (select unnest($1)) group by m.trial_id
"""


def _rows(store: Store, place: int, told: Mapping[str, Any], series: Mapping[str, np.ndarray], alpha: float) -> list[Row]:
    regions = store.sql(
        "select kind, token_start, token_end from regions where trial_id = ? and source like 'rule/%' order by place desc",
        [told["trial_id"]],
    ).to_pylist()
    n, first = len(next(iter(series.values()))), told["n_prompt"]
    kinds = [next((r["kind"] for r in regions if r["token_start"] <= t < r["token_end"]), "") for t in range(n)]
    soft = {name: smoothed(values, alpha) for name, values in series.items()}
    names = ("trial_id", "latent", "label", "question", "boost", "seed", "first_score", "last_score")
    about = {name: told[name] for name in names}
    last = (-1, -1)
    rows = []
    for t in range(n):
        text = ""
        if t >= first:
            span = (told["starts"][t - first], told["ends"][t - first])
            text = told["text"][slice(*span)] if span != last else ""  # tokens that share a character show it once
            last = span
        row: Row = {
            "place": place,
            **about,
            "token": t,
            "in_reply": t - first,
            "text": text,
            "region": kinds[t] or (PROMPT if t < first else ""),
        }
        row |= {name: float(values[t]) for name, values in series.items()}
        rows.append(row | {f"{name} smoothed": float(values[t]) for name, values in soft.items()})
    return rows


TOKENS = Table("tokens", tokens)
