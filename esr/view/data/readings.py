"""What the SAE reads of a reply, token by token, as the page of a trial draws it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from esr.store import Ask

READ = """
select trial_id, model, sae, layer, steering, stage, selection, latents, positions, "values", listed, n_positions from activations
where trial_id in (select unnest(?)) and pooling = 'token' order by trial_id, sae, layer, selection, steering, stage, part
"""
LARGEST = 12
"""Latents told of each token where the largest were read."""
DIGITS = 3


@dataclass
class Reading:
    """One list of latents, or the largest, under one protocol."""

    told: dict[str, Any]
    first: int
    """Position of the reply's first token."""
    length: int
    """Tokens of the reply that were read."""
    values: dict[int, dict[int, float]] = field(default_factory=dict)
    """By latent, then token of the reply; 0 where there is none."""
    listed: set[int] | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        for latent, position, value in zip(row["latents"], row["positions"], row["values"], strict=True):
            if position >= self.first:
                self.values.setdefault(latent, {})[position - self.first] = value
        if row["listed"] is not None:
            self.listed = (self.listed or set()) | set(row["listed"])

    def rows(self) -> dict[str, Any]:
        """A list latent by latent; the largest token by token, as [latent, value]."""
        if self.listed is None:
            return {**self.told, "largest": self._largest()}
        active = {latent: some for latent, some in self.values.items() if any(some.values())}
        series = [{"latent": latent, "values": self._series(active[latent])} for latent in sorted(active)]
        return {**self.told, "series": series, "silent": sorted(self.listed - set(active))}

    def _series(self, some: Mapping[int, float]) -> list[float]:
        out = np.zeros(self.length)
        for token, value in some.items():
            if token < self.length:
                out[token] = value
        return [round(float(value), DIGITS) for value in out]

    def _largest(self) -> list[list[list[float]]]:
        tokens: list[list[tuple[float, int]]] = [[] for _ in range(self.length)]
        for latent, some in self.values.items():
            for token, value in some.items():
                if token < self.length and value:
                    tokens[token].append((value, latent))
        return [[[latent, round(value, DIGITS)] for value, latent in sorted(some, reverse=True)[:LARGEST]] for some in tokens]


def readings(ask: Ask, prompts: Mapping[str, int | None]) -> dict[str, list[dict[str, Any]]]:
    """By trial; `prompts`: tokens of each trial's prompt."""
    found: dict[str, dict[tuple[object, ...], Reading]] = {}
    for row in ask(READ, [list(prompts)]).to_pylist():
        first = prompts[row["trial_id"]]
        if first is None or row["positions"] is None:
            continue
        named = {name: row[name] for name in ("sae", "layer", "steering", "stage", "selection")}
        own = found.setdefault(row["trial_id"], {})
        key = tuple(named.values())
        if key not in own:
            own[key] = Reading(named, first, max((row["n_positions"] or first) - first, 0))
        own[key].add(row)
    return {trial: [one.rows() for one in own.values()] for trial, own in found.items()}


ROLES = """
select 'detectors' as kind, latent from detectors where model = ? and kind = 'detector'
union select kind, unnest(latents) as latent from watched where model = ?
"""


def roles(ask: Ask, model: str) -> dict[str, Sequence[int]]:
    """Latents that are watched, by why."""
    out: dict[str, list[int]] = {}
    for row in ask(ROLES, [model, model]).to_pylist():
        out.setdefault(row["kind"], []).append(row["latent"])
    return {kind: sorted(some) for kind, some in sorted(out.items())}
