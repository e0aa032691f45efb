"""How often the intervals hold the truth: the very code that prints them, on studies whose truth is known."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from esr.count import agreement, intervals, judged, ratios, studies
from esr.count.clusters import Clusters
from esr.count.judged import Panel
from esr.count.metrics import METRICS
from esr.count.ratios import Found, Ratio
from esr.count.studies import Design, Effect, Trials

Floats = NDArray[np.float64]
AT_ONCE = 200_000
"""Trials held in memory together."""
WITHIN = "multi_attempt_rate within latents"
"""Wilson's interval at n, which is not about other latents."""
SINGLE = "Δ multi_attempt_rate by single pairs"
"""McNemar's exact test, which knows what is true only where no latent reacts: that pairs are won and lost as coins fall."""


@dataclass(slots=True)
class Tally:
    """One statistic in one design."""

    truth: float
    studies: int = 0
    told: int = 0
    """Studies with an interval."""
    held: int = 0
    """Of those, how many intervals hold the truth."""
    above: int = 0
    """How many lie wholly above it."""
    width: float = 0.0
    """Sum of the intervals' widths."""
    values: list[Floats] = field(default_factory=list)
    """The statistic in each of these studies."""

    def add(self, low: Floats, high: Floats, told: NDArray[np.bool_], value: Floats) -> None:
        close = 1e-9 * max(1.0, abs(self.truth))
        above, below = low > self.truth + close, high < self.truth - close
        self.studies += told.size
        self.told += int(told.sum())
        self.held += int((told & ~above & ~below).sum())
        self.above += int((told & above).sum())
        self.width += float(np.where(told, high - low, 0.0).sum())
        self.values.append(value[told])

    def row(self) -> dict[str, float | int | None]:
        return {
            "truth": float(f"{self.truth:.6g}"),
            "studies": self.studies,
            "told": self.told,
            "coverage": round(self.held / self.told, 4) if self.told else None,
            "above": round(self.above / self.told, 4) if self.told else None,
            "width": float(f"{self.width / self.told:.4g}") if self.told else None,
            "least": round(least(np.concatenate(self.values)), 4) if self.told else None,
        }


def least(values: Floats, confidence: float = 0.95) -> float:
    """How often an interval holds the truth that knows how the value is distributed and errs in at most 2.5 % of studies on each side:
    no interval made of this value, and as sure on both sides, can hold it less often. More than 95 % where the value comes in steps."""
    _, counts = np.unique(np.round(values, 9), return_counts=True)
    share = counts / counts.sum()
    sides = [np.cumsum(way)[np.cumsum(way) <= (1 - confidence) / 2 + 1e-12] for way in (share, share[::-1])]
    return float(1 - sum(side[-1] if len(side) else 0.0 for side in sides))


@dataclass(slots=True)
class Tallies:
    """Every statistic of one design and effect."""

    rows: dict[str, Tally] = field(default_factory=dict)

    def at(self, name: str, truth: float) -> Tally:
        return self.rows.setdefault(name, Tally(truth))

    def add(self, name: str, truth: float, found: Found, confidence: float) -> None:
        bounds = found.interval(confidence)
        self.at(name, truth).add(bounds.low, bounds.high, found.told, found.value)


def cover(
    design: Design, effect: Effect, count: int, *, seed: int = 0, confidence: float = 0.95, single: bool = True
) -> dict[str, dict[str, float | int | None]]:
    """Coverage of every metric (unless not `single`) and of every difference, in that many studies of one design."""
    rng = np.random.default_rng([seed, *f"{design.name}/{effect.name}".encode()])
    plan, quantiles = studies.plan(design, rng), design.rates.quantiles()
    clusters = Clusters.of(plan.latent, plan.question)
    base = studies.truth(design, 1.0, rng)
    arm = base if effect.factor == 1 else studies.truth(design, effect.factor, rng)
    out, left, rejected = Tallies(), count, 0
    while left:
        some = min(left, max(1, AT_ONCE // len(plan.latent)))
        left -= some
        rows, baseline = studies.arms(design, effect, plan, quantiles, some, rng)
        for name, ratio in METRICS.items():
            (x, of_x), (y, of_y) = (_terms(ratio, trials) for trials in (rows, baseline))
            if single:
                out.add(name, base[name], ratios.estimate(ratio, y, of_y, clusters), confidence)
            found = ratios.difference(ratio, x, y, of_x, of_y, clusters)
            out.add(f"Δ {name}", 0.0 if effect.null else arm[name] - base[name], found, confidence)
        rejected += int((exact(rows.multi, baseline.multi) < 1 - confidence).sum())
        if single:
            rate, n = baseline.multi.mean(axis=-1), float(len(plan.latent))
            bounds = intervals.score(rate, np.full(some, n), np.full(some, intervals.quantile(np.array(1e9), confidence)))
            out.at(WITHIN, base["multi_attempt_rate"]).add(bounds.low, bounds.high, np.ones(some, dtype=bool), rate)
    told = {name: tally.row() for name, tally in out.rows.items()}
    if effect.factor == 1 and effect.agreement == 1:
        told[SINGLE] = {"truth": 0.0, "studies": count, "told": count, "coverage": round(1 - rejected / count, 4)}
    return told


def exact(x: Floats, y: Floats) -> Floats:
    """p of McNemar's exact test of each study: of pairs that differ, won and lost are equally likely."""
    won, lost = ((a > b).sum(axis=-1) for a, b in ((x, y), (y, x)))
    out: Floats = np.minimum(2 * special.bdtr(np.minimum(won, lost), won + lost, 0.5), 1.0)
    return out


def _terms(ratio: Ratio, trials: Trials) -> tuple[Floats, Floats]:
    x: Floats = getattr(trials, ratio.numerator)
    return x, trials.multi if ratio.denominator == "multi" else np.ones_like(x)


def cover_agreement(
    panel: Panel, count: int, *, seed: int = 0, confidence: float = 0.95
) -> dict[str, dict[str, float | int | None]]:
    """Coverage of every measure of agreement."""
    rng = np.random.default_rng([seed, *panel.name.encode()])
    whole = agreement.measures(judged.graded(panel, rng, judged.TRUTH), confidence)
    tallies = {name: Tally(m.value or 0.0) for name, m in whole.items()}
    for _ in range(count):
        for name, m in agreement.measures(judged.graded(panel, rng), confidence).items():
            low, high = m.interval or (0.0, 0.0)
            value = np.array([0.0 if m.value is None else m.value])
            tallies[name].add(np.array([low]), np.array([high]), np.array([m.interval is not None]), value)
    return {name: tally.row() for name, tally in tallies.items()}


def run(count: int, out: Path, say: Callable[[str], None]) -> None:
    """Every design, effect and panel (of panels half as many studies); `say` hears one line of each."""
    started, found = time.process_time(), []
    chosen, drawn = studies.designs(), studies.drawn()
    for design in chosen + drawn:
        effects = studies.EFFECTS[1:3] if design.own or design in drawn else studies.EFFECTS
        for effect in effects:
            rows = cover(design, effect, count, single=effect == effects[0])
            about = {"design": design.name, "effect": effect.name, "null": effect.null, "own": design.own, "drawn": design in drawn}
            found.append({**about, "statistics": rows})
            say(f"{design.name}, {effect.name}: {_worst(rows)}")
    panels = []
    for panel in judged.PANELS:
        rows = cover_agreement(panel, max(1, count // 2))
        panels.append({"design": panel.name, "statistics": rows})
        say(f"agreement, {panel.name}: {_worst(rows)}")
    whole = {
        "studies": count,
        "confidence": 0.95,
        "fewest_latents": ratios.LATENTS,
        "cpu_seconds": round(time.process_time() - started),
    }
    out.write_text(json.dumps({**whole, "designs": found, "agreement": panels}, indent=1, ensure_ascii=False) + "\n")


def _worst(rows: dict[str, dict[str, float | int | None]]) -> str:
    printed = {name: row["coverage"] for name, row in rows.items() if row["coverage"] is not None and name not in (WITHIN, SINGLE)}
    name = min(printed, key=lambda name: printed[name] or 0.0)
    return f"lowest {printed[name]:.3f} ({name})"
