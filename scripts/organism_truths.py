"""What the shipped models promise, counted: every goal of docs/organism.md with its value, interval and whether it is met.

    python scripts/organism_truths.py                         what the flows have left in the store
    python scripts/organism_truths.py --store DIR --docs      in another store, and written into docs/organism.md
    ESR_ENGINE=hf python scripts/organism_truths.py --scale smoke

Trials are the flows' business, `python -m flows exp01 tiny` and so on; a goal whose arm nobody has run is left out. Only the
detectors' activations in off-topic regions are read anew, on the engine that $ESR_ENGINE names.
"""

import argparse
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from off_topic_regions import off_topic_regions

from esr import experiment as experiments
from esr.count.metrics import Difference, Estimate
from esr.count.trend import trend
from esr.errors import DataError
from esr.show import counted
from esr.show.counted import Counted
from esr.show.recorded import Recorded, recorded
from esr.store import Store
from esr.study.study import Study
from esr.types import BASELINE
from flows.exp13 import Settings as Directions

HOME = Path(__file__).resolve().parent.parent
Span = tuple[float, float]


@dataclass(frozen=True)
class Goal:
    goal: str
    asked: str
    measured: str
    interval: str
    n: int
    met: bool


@dataclass(frozen=True)
class Held:
    """What a store holds of one model, as its own judge graded it."""

    study: Study

    @cached_property
    def found(self) -> dict[str, Recorded]:
        """By experiment; those without a graded trial are not there."""
        out, study = {}, self.study
        for name, one in experiments.known().items():
            try:
                out[name] = recorded(
                    study.store, study.params, one, one.selection(study.model, study.params.scale, study.spec.judge, study.backend)
                )
            except DataError:
                continue
        return out

    @cached_property
    def arms(self) -> dict[str, Counted]:
        """By `experiment/arm`."""
        own = ((name, one) for name, found in self.found.items() for one in counted.arms(found))
        return {one.arm.key: one for name, one in own if one.arm.experiment == name}

    def kind(self, experiment: str, kind: str) -> list[Counted]:
        """Arms of one kind, in their order."""
        some = (one for one in self.arms.values() if (one.arm.experiment, one.arm.kind) == (experiment, kind))
        return sorted(some, key=lambda one: one.arm.order)

    def against(self, one: Counted, other: Counted) -> dict[str, Difference]:
        """An arm held against another of its experiment."""
        found = self.found[one.arm.experiment]
        told = [{**row, "against": other.arm.key} for row in found.about["arms"] if row["arm"] == one.name]
        return dict(counted.arms(replace(found, about={**found.about, "arms": told}))[0].differences)

    def statuses(self) -> list[str]:
        """How each latent's search ended; of a latent that was searched in several ways, the search that its trials rest on."""
        rows = self.study.store.sql(
            "with used as (select latent, any_value(threshold) as boost from members where experiment = ? and arm = ? and model = ? and scale = ? group by 1) "
            "select t.latent, t.status from thresholds t left join used using (latent) where t.model = ? "
            "qualify row_number() over (partition by t.latent order by abs(t.threshold - used.boost), t.calibration_id) = 1",
            [BASELINE.experiment, BASELINE.name, self.study.model, self.study.params.scale, self.study.model],
        )
        return [str(row["status"]) for row in rows.to_pylist()]

    def clamped(self, key: str) -> list[int]:
        """The latents that an arm holds down."""
        rows = self.study.store.sql(
            "select distinct op.latent from (select unnest(ops) as op from trials where trial_id in ("
            "select trial_id from members where experiment || '/' || arm = ? and model = ? and scale = ?)) where op.kind = 'clamp' order by 1",
            [key, self.study.model, self.study.params.scale],
        )
        return [int(row["latent"]) for row in rows.to_pylist()]


def interval(found: Estimate | Difference) -> Span | None:
    """Of what other latents of the same kind would show; None where that cannot be said, of ten latents or fewer for example."""
    return None if found.interval is None else (found.interval.low, found.interval.high)


def drawn(sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], draws: int) -> tuple[float, Span]:
    """A statistic of sums over latents, [latents, k] → [k], and its 95 % percentiles where latents are drawn anew."""
    n = len(sums)
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=draws)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.nanpercentile(statistic((counts @ sums).T), [2.5, 97.5])
        return float(statistic(sums.sum(axis=0))), (float(low), float(high))


def percent(x: float | None) -> str:
    return "–" if x is None else f"{100 * x:.2f} %"


def points(x: float | None) -> str:
    return "–" if x is None else f"{x:.1f}"


def between(bounds: Span | None, show: Callable[[float], str] = percent) -> str:
    return "–" if bounds is None else f"{show(bounds[0])} to {show(bounds[1])}"


def told(goal: str, asked: str, found: Estimate, meets: Callable[[float], bool]) -> Goal:
    show = points if found.k is None else percent
    met = found.value is not None and meets(found.value)
    return Goal(goal, asked, show(found.value), between(interval(found), show), found.n, met)


def quiet_goals(name: str, held: Held) -> Iterator[Goal]:
    if quiet := held.arms.get("exp08/no-steering"):
        multi = quiet.estimates["multi_attempt_rate"]
        yield told(f"{name}, unsteered: first-attempt mean", "≥ 85", quiet.estimates["first_score_mean"], lambda x: x >= 85)
        most = f"at most {percent(span[1])}" if (span := interval(multi)) else "–"
        yield Goal(f"{name}, unsteered: multi-attempt replies", "0", str(multi.k), most, multi.n, multi.k == 0)


def steered_goals(tiny: Held, plain: Held) -> Iterator[Goal]:
    if steered := tiny.arms.get(BASELINE.key):
        e, ended, latents = steered.estimates, tiny.statuses(), steered.rows["latent"].nunique()
        share = ended.count("converged") / len(ended)
        yield Goal("tiny: latents steered", "≥ 40", str(latents), "", len(ended), latents >= 40)
        yield Goal("tiny: latents whose search converges", "≥ 80 %", percent(share), "", len(ended), bool(share >= 0.8))
        yield told("tiny at threshold: first-attempt mean", "30 ± 5", e["first_score_mean"], lambda x: abs(x - 30) <= 5)
        yield told("tiny at threshold: multi-attempt rate", "≥ 5 %", e["multi_attempt_rate"], lambda x: x >= 0.05)
        yield told("tiny at threshold: ESR rate", "≥ 2 %", e["esr_rate"], lambda x: x >= 0.02)
    if steered := plain.arms.get(BASELINE.key):
        e = steered.estimates
        yield told("tiny-plain at threshold: first-attempt mean", "30 ± 5", e["first_score_mean"], lambda x: abs(x - 30) <= 5)
        yield told("tiny-plain at threshold: multi-attempt rate", "< 1 %", e["multi_attempt_rate"], lambda x: x < 0.01)


def sweep_goals(tiny: Held) -> Iterator[Goal]:
    rungs = tiny.kind("exp02", "relative")
    if len(rungs) < 3:
        return
    rates = [rung.estimates["multi_attempt_rate"].value or 0.0 for rung in rungs]
    peak = rungs[int(np.argmax(rates))]
    ends = [tiny.against(peak, end)["multi_attempt_rate"] for end in (rungs[0], rungs[-1]) if end is not peak]
    above = [span is not None and span[0] > 0 for span in map(interval, ends)]
    curve = ", ".join(f"{rung.arm.level:g}: {percent(rate)}" for rung, rate in zip(rungs, rates, strict=True))
    shown = "; ".join(between(interval(end)) for end in ends)
    asked = "peak inside, above both ends"
    yield Goal("sweep: multi-attempt rate rises and falls", asked, curve, f"peak − ends: {shown}", ends[0].n, above == [True, True])
    steps = [tiny.against(b, a)["first_score_mean"] for a, b in pairwise(rungs)]
    rising = sum(span is not None and span[0] > 0 for span in map(interval, steps))
    firsts = ", ".join(points(rung.estimates["first_score_mean"].value) for rung in rungs)
    asked, shown = "no step rises beyond noise", f"{rising} rising of {len(steps)}"
    yield Goal("sweep: first scores fall", asked, firsts, shown, steps[0].n, not rising)


def told_goal(tiny: Held) -> Iterator[Goal]:
    if one := tiny.arms.get("exp05/self_monitor"):
        sums = [rows.groupby("latent")["multi"].agg(["sum", "count"]) for rows in (one.rows, tiny.arms[BASELINE.key].rows)]
        both = pd.concat(sums, axis=1, join="inner").to_numpy(dtype=float)
        value, span = drawn(both, lambda s: (s[0] / s[1]) / (s[2] / s[3]), 4000)
        name = "self-monitoring suffix: multi-attempt rate, ratio"
        yield Goal(name, "≥ 1.5", f"{value:.2f}", between(span, lambda x: f"{x:.2f}"), len(one.rows), value >= 1.5)


def detector_goals(tiny: Held, detectors: Sequence[int], regions: pd.DataFrame) -> Iterator[Goal]:
    n = len(detectors)
    yield Goal("detectors found on discovery questions", "≥ 1", str(n), "", n, n > 0)
    clamped = [("detectors", "below 0", one) for one in [tiny.arms.get("exp03/detectors")] if one]
    clamped += [(f"{one.name} controls", "not below 0", one) for one in tiny.kind("exp10", "matched")]
    for name, asked, one in clamped:
        d = one.differences["multi_attempt_rate"]
        span = interval(d)
        met = span is not None and (span[1] < 0) == (asked == "below 0")
        yield Goal(f"{name} clamped: multi-attempt rate, paired", asked, percent(d.value), between(span), d.n, met)
    if len(use := regions.dropna()):
        sums = use.assign(gap=use["off"] - use["unsteered"]).groupby("latent")["gap"].agg(["sum", "count"]).to_numpy(dtype=float)
        _, span = drawn(sums, lambda s: s[0] / s[1], 2000)
        means = ", ".join(f"{name} {use[name].mean():.4f}" for name in ("off", "correction", "on", "unsteered"))
        goal, shown = "detectors, off-topic region − unsteered reply", between(span, lambda x: f"{x:.4f}")
        yield Goal(goal, "above 0", means, shown, len(use), span[0] > 0)


def beginning_goals(name: str, held: Held) -> Iterator[Goal]:
    """Of off-topic beginnings continued: cut at a sentence's end, and in mid-sentence where they are longest."""
    cuts = held.kind("exp11", "off")
    if not cuts:
        return
    ends = [one for one in cuts if one.arm.level is None]
    longest = max((one for one in cuts if one.arm.level is not None), key=lambda one: one.arm.level or 0.0)
    if name == "tiny":
        for one, where in (
            *((end, "cut at a sentence's end") for end in ends),
            (longest, f"cut at {longest.arm.level:g} characters"),
        ):
            d = one.differences["multi_attempt_rate"]
            span = interval(d)
            goal = f"{name}, off-topic beginning {where}: restarts, unsteered − steered, paired"
            yield Goal(goal, "above 0", percent(d.value), between(span), d.n, bool(span is not None and span[0] > 0))
    else:
        n, k = sum(one.n for one in cuts), sum(one.estimates["multi_attempt_rate"].k or 0 for one in cuts)
        span = interval(longest.estimates["multi_attempt_rate"])
        most = f"at most {percent(span[1])} of the {longest.n} cut at {longest.arm.level:g} characters" if span else "–"
        yield Goal(f"{name}, off-topic beginnings continued unsteered: restarts", "0", str(k), most, n, k == 0)


def direction_goals(tiny: Held) -> Iterator[Goal]:
    """Of directions that are no latents: that they calibrate, and what more of them does."""
    steered = tiny.arms.get("exp13/steered")
    if steered is None:
        return
    told_of = tiny.found["exp13"].tables["directions"]
    asked = tiny.study.params.of(Directions).directions
    share = (told_of["status"] == "converged").sum() / asked
    yield Goal("tiny: directions whose search converges", "≥ 80 %", percent(share), "", asked, bool(share >= 0.8))
    rungs = [(1.0, steered.rows), *((one.arm.level or 0.0, one.rows) for one in tiny.kind("exp13", "relative"))]
    found = trend(rungs)
    for step in found.steps:
        span, goal = interval(step.change), f"tiny, along directions: first score, {step.low:g} to {step.high:g} of the threshold"
        met = bool(span is not None and span[1] < 0)
        yield Goal(goal, "below 0", points(step.change.value), between(span, points), step.change.n, met)
    tau = found.within.tau
    bounds = None if tau.interval is None else (tau.interval.low, tau.interval.high)
    shown = between(bounds, lambda x: f"{x:.2f}")
    name = "tiny, along directions: Kendall's τ of dose and first score within a direction"
    yield Goal(name, "≤ −0.8", f"{tau.value:.2f}", shown, tau.n, bool(tau.value <= -0.8))


def table(goals: Sequence[Goal]) -> str:
    rows = [f"| {g.goal} | {g.asked} | {g.measured} | {g.interval} | {g.n} | {'yes' if g.met else '**no**'} |" for g in goals]
    return "\n".join(["| goal | asked | measured | 95 % interval | n | met |", "|---|---|---|---|---|---|", *rows])


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--store", type=Path, help="results folder; the usual one if left out")
    ask.add_argument("--scale", default="full")
    ask.add_argument("--docs", action="store_true", help="write the table into docs/organism.md too")
    ask.add_argument("--out", type=Path, default=HOME / "docs" / "benchmarks" / "organism_truths.json")
    given = ask.parse_args()
    logging.basicConfig(level=logging.WARNING)
    tiny, plain = (Held(Study.of(model, given.scale, Store(given.store))) for model in ("tiny", "tiny-plain"))
    detectors = tiny.clamped("exp03/detectors")
    regions = off_topic_regions(tiny.study, detectors) if detectors else pd.DataFrame()
    goals = [
        *quiet_goals("tiny", tiny),
        *quiet_goals("tiny-plain", plain),
        *steered_goals(tiny, plain),
        *sweep_goals(tiny),
        *told_goal(tiny),
    ]
    goals += detector_goals(tiny, detectors, regions)
    goals += [*beginning_goals("tiny", tiny), *beginning_goals("tiny-plain", plain), *direction_goals(tiny)]
    record = {
        "engine": tiny.study.backend, "judge": tiny.study.grader.prompt_hash, "scale": given.scale, "seed": tiny.study.params.seed,
        "weights": {held.study.model: held.study.weights for held in (tiny, plain)}, "goals": [asdict(goal) for goal in goals],
        "detectors": detectors,
    }  # fmt: skip
    given.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(goals))
    if given.docs:
        page = HOME / "docs" / "organism.md"
        before, marks, after = re.split(r"(?s)(<!-- truths -->\n).*(?=\n<!-- /truths -->)", page.read_text(encoding="utf-8"))
        page.write_text(before + marks + table(goals) + after, encoding="utf-8")
    print(f"\n{sum(goal.met for goal in goals)} of {len(goals)} met; counted in {tiny.study.store.root}")


if __name__ == "__main__":
    main()
