"""What was read of the episodes of experiment 9, put together from the store: series by reply, regions, and what is held against what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from esr.errors import DataError
from esr.experiment import Selection
from esr.params import load
from esr.store import Store
from esr.study.episodes import Episode, Watching, episodes
from esr.study.regions import PROMPT
from esr.study.watch import ASTRAY, EPISODES, UNSTEERED

Floats = NDArray[np.float64]
Regions = Mapping[str, tuple[int, int]]
"""Start and end by kind, counted from the first token of the reply."""


@dataclass(frozen=True, slots=True)
class List:
    """Latents that are watched together."""

    kind: str
    latents: tuple[int, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    store: Store
    chosen: Selection
    settings: Watching
    episodes: tuple[Episode, ...]
    unsteered: Mapping[tuple[int, str, int], str]
    """Trial by latent, question and seed."""
    lists: tuple[List, ...]
    selection: str
    """Under which the lists were read."""

    @cached_property
    def confidence(self) -> float:
        return load(self.chosen.model, self.chosen.scale).protocol.confidence

    def quiet(self, one: Episode) -> str | None:
        return self.unsteered.get((one.latent, one.question, one.seed))

    def trials(self) -> list[str]:
        every = [key for one in self.episodes for key in (one.trial_id, one.control, self.quiet(one)) if key]
        return list(dict.fromkeys(every))

    @cached_property
    def latents(self) -> tuple[int, ...]:
        return tuple(sorted({latent for some in self.lists for latent in some.latents}))

    @cached_property
    def prompts(self) -> Mapping[str, int]:
        """Tokens of each reply's prompt."""
        rows = self.store.sql("select trial_id, n_prompt_tokens from replies where trial_id in (select unnest(?))", [self.trials()])
        return {row["trial_id"]: row["n_prompt_tokens"] for row in rows.to_pylist()}

    @cached_property
    def regions(self) -> Mapping[str, Regions]:
        """Of each reply by the source that counts: what a judge quoted where that is asked and there, else by rule."""
        rows = self.store.sql(
            "select * from regions where trial_id in (select unnest(?)) order by all", [self.trials()]
        ).to_pylist()
        out: dict[str, dict[str, tuple[int, int]]] = {}
        for by in ("rule/", "judge/") if self.settings.marked_by == "judge" else ("rule/",):
            for key, of in sources(rows, by, self.prompts).items():
                out[key] = of
        return out

    def series(self, steering: str) -> dict[str, Floats]:
        """Of each reply that was read so: [latents, tokens of the reply], in the order of `latents`."""
        return arrays(self.store, self.trials(), self.prompts, self.selection, steering, self.settings.stage, self.latents)

    def columns(self, some: List) -> list[int]:
        """Rows of a series that belong to a list."""
        return [self.latents.index(latent) for latent in some.latents]


def sources(rows: Sequence[Mapping[str, Any]], by: str, prompts: Mapping[str, int]) -> dict[str, dict[str, tuple[int, int]]]:
    out: dict[str, dict[str, tuple[int, int]]] = {}
    for row in rows:
        if row["source"].startswith(by) and row["kind"] != PROMPT and row["token_start"] is not None:
            first = prompts[row["trial_id"]]
            out.setdefault(row["trial_id"], {})[row["kind"]] = (row["token_start"] - first, row["token_end"] - first)
    return out


def seen(store: Store, chosen: Selection) -> Seen:
    params = load(chosen.model, chosen.scale)
    settings = params.of(Watching)
    asked = [EPISODES.experiment, chosen.model, chosen.scale, chosen.judge]
    rows = store.sql(
        "select arm, trial_id, latent, question, seed from outcomes where experiment = ? and model = ? and scale = ? and judge = ?",
        asked,
    ).to_pylist()
    own = {row["trial_id"] for row in rows if row["arm"] in (EPISODES.name, ASTRAY.name)}
    some = [one for one in episodes(store, chosen.model, chosen.scale, chosen.judge, settings) if one.trial_id in own]
    lists = store.sql("select * from watched where experiment = ? and model = ? and scale = ? order by kind", asked[:3]).to_pylist()
    if not some or not lists:
        raise DataError(f"no episodes of {chosen.model!r} at scale {chosen.scale!r} by {chosen.judge!r} were read; run exp09 first")
    quiet = {(row["latent"], row["question"], row["seed"]): row["trial_id"] for row in rows if row["arm"] == UNSTEERED.name}
    known = [
        List(row["kind"], tuple(row["latents"]), tuple(row["labels"]))
        for row in sorted(lists, key=lambda row: row["kind"], reverse=True)
    ]
    return Seen(store, chosen, settings, tuple(some), quiet, tuple(one for one in known if one.latents), lists[0]["selection"])


READ = """
select trial_id, latents, positions, "values", n_positions from activations
where trial_id in (select unnest(?)) and model = ? and selection = ? and steering = ? and stage = ? and pooling = 'token' order by trial_id, part
"""


def arrays(
    store: Store,
    trials: Sequence[str],
    prompts: Mapping[str, int],
    selection: str,
    steering: str,
    stage: str,
    latents: Sequence[int],
) -> dict[str, Floats]:
    """Values [latents, tokens of the reply]; where nothing was stored the latent is silent."""
    model = store.sql("select any_value(model) as model from trials where trial_id in (select unnest(?))", [list(trials)])["model"][
        0
    ].as_py()
    table = store.sql(READ, [list(trials), model, selection, steering, stage])
    order = np.array(sorted(latents), np.int64)
    out: dict[str, Floats] = {}
    for batch in table.to_batches(max_chunksize=256):
        for i in range(batch.num_rows):
            key = batch["trial_id"][i].as_py()
            first = prompts[key]
            if key not in out:
                out[key] = np.zeros((len(order), max(batch["n_positions"][i].as_py() - first, 0)))
            which, at, values = (_numpy(batch[name], i) for name in ("latents", "positions", "values"))
            inside = at >= first
            out[key][np.searchsorted(order, which[inside]), at[inside] - first] = values[inside]
    return out


def _numpy(column: pa.ListArray, i: int) -> NDArray[Any]:
    found: NDArray[Any] = column[i].values.to_numpy(zero_copy_only=False)
    return found
