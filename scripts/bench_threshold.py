"""Error, replies, coverage and mean score of the threshold search under simulated judges. Writes docs/benchmarks/threshold.json.

Nine curves (one width for all latents, widths that differ, and a skewed shape outside the family; each steep, middling and flat) under
three judges (about 20 or about 85, 0 or 100, graded). Truth is where a latent's mean meets the target. Three searches: the authors' with
50 replies; ours of one latent alone, one reply a step; ours of latents in shards, which learn from one another. Beside them an oracle:
what a search reaches that is told everything but the latent's own place (scripts/threshold_oracle.py).

    OPENBLAS_NUM_THREADS=1 python scripts/bench_threshold.py [processes] [shards of 50 latents a cell]
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm
from threshold_oracle import Knowledge, reached

from esr import params
from esr.threshold import Found, Score, Search
from esr.threshold.bisection import Bisection

TARGET, SHARD, CAP = 0.3, 50, 40
SHARDS = int(sys.argv[2]) if len(sys.argv) > 2 else 2
ALONE = 12
MARKS = (17, 25, 30, 35, 40)
"""Replies after which the search together is looked at; the first two are a third and a half of the reference's 50."""
RESAMPLED = 1_000
BOUNDS = params.Search(lower=0.0, upper=100.0, prior_mean=7.0, prior_std=5.0)
WIDTHS = {"steep": 0.3, "middling": 1.0, "flat": 2.5}
JUDGES = {"20 or 85": (0.2, 0.85), "0 or 100": (0.0, 1.0), "graded": (0.1, 0.9)}
Floats = NDArray[np.float64]


def skewed(z: Floats) -> Floats:
    return np.asarray(0.97 * -np.expm1(-np.exp(-z)))


SHAPES: dict[str, Callable[[Floats], Floats]] = {"same": lambda z: expit(-z), "mixed": lambda z: expit(-z), "skewed": skewed}


@dataclass(frozen=True)
class World:
    """Latents and their judge."""

    shape: str
    judge: str
    scale: float
    """Width of a latent's curve, or the median where widths differ."""
    width: Floats
    center: Floats
    rng: np.random.Generator

    @classmethod
    def drawn(cls, shape: str, width: float, judge: str, latents: int, seed: int) -> "World":
        rng = np.random.default_rng(seed)
        if shape == "mixed":
            return cls(
                shape,
                judge,
                width,
                width * np.exp(0.5 * rng.normal(size=latents)),
                np.clip(rng.normal(8, 3, latents), 1, None),
                rng,
            )
        return cls(shape, judge, width, np.full(latents, width), rng.uniform(3, 12, latents), rng)

    def curve(self, boosts: Floats, center: Floats, width: Floats) -> Floats:
        low, high = JUDGES[self.judge]
        return np.asarray(low + (high - low) * SHAPES[self.shape](np.clip((boosts - center) / width, -40, 40)))

    def means(self, latents: NDArray[np.int_], boosts: Floats) -> Floats:
        return self.curve(boosts, self.center[latents], self.width[latents])

    def root(self, center: Floats, width: Floats) -> Floats:
        low, high = JUDGES[self.judge]
        z = brentq(lambda z: float(SHAPES[self.shape](np.array(z))) - (TARGET - low) / (high - low), -20, 20)
        return center + width * z

    def roots(self) -> Floats:
        return self.root(self.center, self.width)

    def known(self) -> Knowledge:
        """How the latents of such a world are distributed."""
        q, nine = (np.arange(400) + 0.5) / 400, (np.arange(9) + 0.5) / 9
        if self.shape == "mixed":
            grid = np.meshgrid(np.clip(norm.ppf(q, 8, 3), 1, None), self.scale * np.exp(0.5 * norm.ppf(nine)))
        else:
            grid = np.meshgrid(3 + 9 * q, [self.scale])
        center, width = (x.ravel() for x in grid)
        return Knowledge(center, width, self.root(center, width))

    def score(self, latents: NDArray[np.int_], boosts: Floats, n: int) -> Floats:
        means = np.repeat(self.means(latents, boosts)[:, None], n, axis=1)
        low, high = JUDGES[self.judge]
        if self.judge == "graded":
            return self.rng.beta(8 * means, 8 * (1 - means)).mean(axis=1)
        value = np.where(self.rng.random(means.shape) < (means - low) / (high - low), high, low)
        noise = 0.07 * self.rng.normal(size=means.shape) if self.judge == "20 or 85" else 0.0
        return np.clip(value + noise, 0, 1).mean(axis=1)


@dataclass(frozen=True)
class Ended:
    estimate: float
    low: float
    high: float
    replies: int
    status: str


def together(world: World, mode: str, steps: int, samples: int, early: float, marks: tuple[int, ...]) -> dict[int, list[Ended]]:
    """What shards of latents had found after each of `marks` steps (0: at the end)."""
    protocol = params.load("70b").protocol.model_copy(
        update={"target": TARGET, "search_mode": mode, "search_steps": steps, "samples_per_step": samples, "early_stop": early}
    )
    out: dict[int, list[Ended]] = {mark: [] for mark in marks}
    for first in range(0, len(world.center), SHARD):
        search, step = Search(range(first, min(first + SHARD, len(world.center))), BOUNDS, protocol), 0
        while True:
            if step in marks and step:
                out[step] += map(ended, search.results().values())
            asks = search.ask()
            if not asks:
                break
            latents, boosts = np.array([a[0] for a in asks]), np.array([a[1] for a in asks])
            scores = world.score(latents, boosts, samples)
            search.tell({latent: Score(float(s), samples) for (latent, _), s in zip(asks, scores, strict=True)})
            step += 1
        if 0 in marks:
            out[0] += map(ended, search.results().values())
    return out


def ended(found: Found) -> Ended:
    return Ended(found.threshold, found.low, found.high, sum(max(ask.n, 5 * (ask.n == 0)) for ask in found.asks), found.status)


def alone(world: World, steps: int, early: float) -> list[Ended]:
    out = []
    for latent in range(len(world.center)):
        search = Bisection(BOUNDS.lower, BOUNDS.upper, BOUNDS.prior_mean, BOUNDS.prior_std, TARGET)
        while len(search.asks) < steps and not search.done(early):
            boost = search.ask()
            search.tell(float(world.score(np.array([latent]), np.array([boost]), 1)[0]), 1, boost=boost)
        interval = search.interval()
        out.append(Ended(search.estimate(), interval.low, interval.high, len(search.asks), search.status))
    return out


def oracle(world: World) -> dict[int, tuple[Floats, Floats]]:
    """Errors of the threshold, and of the score at it, after a third and half of the reference's replies, and after all."""
    n, ends = len(world.center), JUDGES[world.judge]
    found = reached(
        world.known(), world.curve, lambda latents, boosts: world.score(latents, boosts, 1), ends,
        graded=world.judge == "graded", latents=n, target=TARGET, marks=(*MARKS[:2], 50),
    )  # fmt: skip
    return {
        mark: (one.estimates - world.roots(), 100 * (world.means(np.arange(n), one.points) - TARGET)) for mark, one in found.items()
    }


def errors(world: World, found: list[Ended]) -> tuple[Floats, Floats]:
    """Of the threshold, and of the score at it in points."""
    estimates = np.array([f.estimate for f in found])
    return estimates - world.roots()[: len(found)], 100 * (world.means(np.arange(len(found)), estimates) - TARGET)


def against(mine: Floats, reference: Floats) -> list[float]:
    """Root mean square of one over that of the other, and its 95 % interval, latents resampled."""
    rng, n = np.random.default_rng(0), len(mine)
    chosen = rng.integers(0, n, (RESAMPLED, n))
    ratio = np.sqrt((mine[chosen] ** 2).mean(axis=1) / (reference[chosen] ** 2).mean(axis=1))
    whole = float(np.sqrt((mine**2).mean() / (reference**2).mean()))
    return [round(x, 2) for x in (whole, *(float(q) for q in np.quantile(ratio, [0.025, 0.975])))]


def cell(
    named: dict[str, str],
    reference: tuple[Floats, Floats],
    together: dict[int, tuple[Floats, Floats]],
    least: dict[int, tuple[Floats, Floats]],
) -> dict[str, Any]:
    """The search together and the oracle, each against the reference's 50 replies of the same latents."""
    out: dict[str, Any] = dict(named)
    for i, what in enumerate(("threshold", "points")):
        ratios = {mark: against(mine[i], reference[i]) for mark, mine in together.items()}
        out[what] = {
            "together": {str(mark): ratio for mark, ratio in ratios.items()},
            "oracle": {str(mark): against(mine[i], reference[i])[0] for mark, mine in least.items()},
            "equal_at": next((mark for mark, ratio in ratios.items() if ratio[0] <= 1), None),
        }
    return out


def row(world: World, found: list[Ended], **named: object) -> dict[str, Any]:
    off, points = errors(world, found)
    covered = [f.low <= root <= f.high for f, root in zip(found, world.roots()[: len(found)], strict=True)]
    return {
        **named,
        "latents": len(found),
        "replies": round(float(np.mean([f.replies for f in found])), 1),
        "bias": round(float(off.mean()), 3),
        "rmse": round(float(np.sqrt((off**2).mean())), 3),
        "median_abs_error": round(float(np.median(np.abs(off))), 3),
        "points_rms": round(float(np.sqrt((points**2).mean())), 2),
        "points_mean_abs": round(float(np.abs(points).mean()), 2),
        "mean_score": round(100 * TARGET + float(points.mean()), 1),
        "coverage_95": round(float(np.mean(covered)), 3),
        "mean_interval_width": round(float(np.mean([f.high - f.low for f in found])), 2),
        "status": dict(sorted(Counter(f.status for f in found).items())),
    }


def rows(shape: str, steepness: str, judge: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    named = {"curve": f"{shape} {steepness}", "judge": judge}
    world = partial(World.drawn, shape, WIDTHS[steepness], judge)
    seed = 100 * list(product(SHAPES, WIDTHS, JUDGES)).index((shape, steepness, judge))
    out = []
    w = world(SHARDS * SHARD, seed)
    reference = together(w, "reference", 10, 5, 0.0, (0,))[0]
    of_reference = errors(w, reference)
    out.append(row(w, reference, **named, search="reference"))
    w = world(ALONE, seed)
    out.append(row(w, alone(w, 25, 0.0), **named, search="alone"))
    w = world(ALONE, seed)
    out.append(row(w, alone(w, CAP, 0.5), **named, search="alone, early_stop 0.5"))
    w = world(SHARDS * SHARD, seed)
    of_ours = dict[int, tuple[Floats, Floats]]()
    for mark, found in together(w, "adaptive", MARKS[-1], 1, 0.0, (*MARKS[:-1], 0)).items():
        of_ours[mark or MARKS[-1]] = errors(w, found)
        if mark in MARKS[:2]:
            out.append(row(w, found, **named, search=f"together, {mark} replies"))
    w = world(SHARD, seed)
    out.append(row(w, together(w, "adaptive", CAP, 1, 0.5, (0,))[0], **named, search="together, early_stop 0.5"))
    for line in out:
        print(json.dumps(line), file=sys.stderr, flush=True)
    w = world(SHARDS * SHARD, seed)
    return out, cell(named, of_reference, dict(sorted(of_ours.items())), oracle(w))


def edges() -> list[dict[str, Any]]:
    """Latents whose score never moves, among twenty whose curves fall."""
    curves = [(0.95, "never"), (0.6, "never"), (0.1, "always"), (0.02, "always")]
    rng, protocol = np.random.default_rng(7), params.load("70b").protocol
    protocol = protocol.model_copy(update={"target": TARGET, "search_steps": CAP, "samples_per_step": 1, "early_stop": 0.5})
    world = World.drawn("same", 1.0, "0 or 100", 20, 7)
    search = Search(range(20 + len(curves)), BOUNDS, protocol)
    while not search.done:
        told = {}
        for latent, boost in search.ask():
            falls = latent < 20
            mean = float(world.means(np.array([latent]), np.array([boost]))[0]) if falls else curves[latent - 20][0]
            told[latent] = Score(float(rng.random() < mean), 1)
        search.tell(told)
    found = search.results()
    return [
        {"constant_score": score, "bites": bites, "status": found[20 + i].status, "replies": len(found[20 + i].asks)}
        for i, (score, bites) in enumerate(curves)
    ]


def seconds_per_step(latents: int) -> float:
    """Processor time of the tenth step: learning, placing and asking."""
    protocol = params.load("70b").protocol.model_copy(update={"search_steps": 10, "samples_per_step": 1})
    world, search = World.drawn("same", 1.0, "0 or 100", latents, 8), Search(range(latents), BOUNDS, protocol)
    took = 0.0
    while True:
        began = time.process_time()
        asks = search.ask()
        if not asks:
            return round(took, 2)
        took = time.process_time() - began
        scores = world.score(np.array([a[0] for a in asks]), np.array([a[1] for a in asks]), 1)
        search.tell({latent: Score(float(s), 1) for (latent, _), s in zip(asks, scores, strict=True)})


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each search over the 27 cells, against the reference's 50 replies in the same cell."""
    base = {(r["curve"], r["judge"]): r for r in found if r["search"] == "reference"}
    out = []
    for search in dict.fromkeys(str(r["search"]) for r in found):
        mine = [r for r in found if r["search"] == search]
        ratio = {key: [float(r[key]) / float(base[r["curve"], r["judge"]][key]) for r in mine] for key in ("rmse", "points_rms")}
        coverage = [float(r["coverage_95"]) for r in mine]
        means = [float(r["mean_score"]) for r in mine]
        out.append(
            {
                "search": search,
                "replies": round(float(np.mean([r["replies"] for r in mine])), 1),
                "rmse_to_reference_median": round(float(np.median(ratio["rmse"])), 2),
                "rmse_at_most_reference": f"{sum(x <= 1 for x in ratio['rmse'])} of {len(mine)}",
                "points_to_reference_median": round(float(np.median(ratio["points_rms"])), 2),
                "points_at_most_reference": f"{sum(x <= 1 for x in ratio['points_rms'])} of {len(mine)}",
                "coverage_95": [min(coverage), round(float(np.mean(coverage)), 3), max(coverage)],
                "mean_score": [min(means), max(means)],
            }
        )
    return out


def halves(compared: list[dict[str, Any]], what: str, mark: int) -> dict[str, int]:
    """Cells by how the error after so many replies compares with the reference's after 50."""
    ratios = [(*c[what]["together"][str(mark)], c[what]["oracle"][str(mark)]) for c in compared]
    return {
        "cells": len(ratios),
        "at most the reference's": sum(ratio <= 1 for ratio, *_ in ratios),
        "surely at most": sum(high <= 1 for _, _, high, _ in ratios),
        "surely above": sum(low > 1 for _, low, _, _ in ratios),
        "above, and the oracle too": sum(ratio > 1 and least >= 1 for ratio, _, _, least in ratios),
    }


def main() -> None:
    began = time.process_time()
    cells = list(product(SHAPES, WIDTHS, JUDGES))
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    with ProcessPoolExecutor(workers) as pool:
        parts = list(pool.map(rows, *zip(*cells, strict=True)))
    found, compared = [r for part, _ in parts for r in part], [one for _, one in parts]
    written = {
        "setting": f"bounds 0 to 100, prior 7 ± 5, target 0.30; {SHARDS} × {SHARD} latents a cell ({SHARD} with an early stop, {ALONE} for the"
        f" search of one alone); points: score at the threshold found less the target; at most {CAP} replies with an early stop",
        "summary": summary(found),
        "half": {what: halves(compared, what, MARKS[1]) for what in ("threshold", "points")},
        "third_where_steep": {
            what: halves([c for c in compared if "steep" in c["curve"]], what, MARKS[0]) for what in ("threshold", "points")
        },
        "cells": compared,
        "constant_scores": edges(),
        "processor_seconds_per_step": {str(n): seconds_per_step(n) for n in (SHARD, 500)},
        "processor_seconds": round(time.process_time() - began + sum(os.times()[2:4]), 1),
        "rows": found,
    }
    (Path(__file__).parent.parent / "docs" / "benchmarks" / "threshold.json").write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
