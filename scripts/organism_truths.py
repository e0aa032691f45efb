"""What the shipped models promise, measured: every goal of docs/organism.md with its value, interval and whether it is met.

    python scripts/organism_truths.py                 full scale, root seed of params.yaml, the vLLM engine, judge lexical
    python scripts/organism_truths.py --seed 1        the same study from another root seed
    ESR_ENGINE=hf python scripts/organism_truths.py --scale smoke

It plans the very trials that the flows plan, with the same library calls, so a store that a flow has filled is not asked for
again and `python -m flows exp03 tiny` on this store finds everything done. Intervals: 95 % percentiles over resampled latents.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from esr.study.bench import Bench, backend

from esr import params as parameters
from esr.count.metrics import Difference, Estimate, differences, estimates
from esr.engine import Capture, Request
from esr.prompts import evaluation
from esr.store import Store
from esr.study.calibrate import BITES
from esr.study.detect import Detector
from esr.study.plan import ablated, ladder, plan, relative_levels, replay, suffixed, unsteered
from esr.types import BASELINE, Arm, Latent, Member, Sampling, content_id

HOME = Path(__file__).resolve().parent.parent
JUDGE = "lexical"
READ = Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=1)
seconds: dict[str, float] = {}


@dataclass(frozen=True)
class Goal:
    goal: str
    asked: str
    measured: str
    interval: str
    n: int
    met: bool


@contextmanager
def stage(name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - start, 1)
    print(f"{name}: {seconds[name]} s", file=sys.stderr, flush=True)


class Study:
    """One model's trials, made and graded, and its outcomes by arm."""

    def __init__(self, model: str, store: Store, scale: str, seed: int | None, go_on: Callable[[], None] = lambda: None) -> None:
        params = parameters.load(model, scale)
        self.params = params if seed is None else params.model_copy(update={"seed": seed})
        self.model, self.bench = model, Bench(self.params, model, store, go_on=go_on)
        self.latents: list[Latent] = []
        self.found: list[dict[str, object]] = []

    def carry_out(self, members: Sequence[Member]) -> None:
        self.bench.store.put_members(members)
        self.bench.replies([m.trial for m in members])
        self.bench.grades(members, JUDGE)

    def calibrate(self) -> None:
        self.latents = self.bench.latents()
        self.found = self.bench.thresholds(self.latents)
        self.bench.store.put_thresholds(self.found)

    @property
    def biting(self) -> list[dict]:
        return [row for row in self.found if row["status"] in BITES]

    def planned(self, arm: Arm, rows: Sequence[dict], each: int) -> list[Member]:
        return plan(
            self.params, arm=arm, model=self.model, weights=self.bench.weights, meaning=self.bench.meaning, trials_per_latent=each,
            latents=[Latent(row["latent"], row["label"]) for row in rows],
            thresholds={row["latent"]: row["threshold"] for row in rows}, questions=evaluation(),
        )  # fmt: skip

    @cache  # noqa: B019  (two studies a process; they live as long as it)
    def outcomes(self, experiment: str, arm: str) -> pd.DataFrame:
        """Asked for when every arm is done."""
        return self.bench.store.sql(
            "select * from outcomes where experiment = ? and arm = ? and model = ? and scale = ? and judge = ?",
            [experiment, arm, self.model, self.params.scale, JUDGE],
        ).to_pandas()

    def estimates(self, experiment: str, arm: str) -> dict[str, Estimate]:
        return estimates(self.outcomes(experiment, arm), draws=self.params.protocol.bootstrap_draws)

    def has(self, experiment: str, arm: str) -> bool:
        return len(self.outcomes(experiment, arm)) > 0

    def against_baseline(self, experiment: str, arm: str) -> dict[str, Difference]:
        draws = self.params.protocol.bootstrap_draws
        return differences(self.outcomes(experiment, arm), self.outcomes("exp01", "baseline"), draws=draws)


class OutOfTime(Exception):
    """The minutes given are over; what is there is counted."""


def deadline(minutes: float | None) -> Callable[[], None]:
    end = time.monotonic() + 60 * minutes if minutes else float("inf")

    def go_on() -> None:
        if time.monotonic() > end:
            raise OutOfTime

    return go_on


def run(tiny: Study, plain: Study) -> dict:
    """Every arm; what cannot be read off the store afterwards is returned."""
    p, found = tiny.params, {"detectors": [], "controls": {}, "regions": pd.DataFrame()}
    try:
        with stage("open the engine of tiny"):
            _ = tiny.bench.engine
        with stage("choose and calibrate tiny"):
            tiny.calibrate()
        baseline = tiny.planned(BASELINE, tiny.biting, p.exp01.trials_per_latent)
        with stage("exp01 tiny"):
            tiny.carry_out(baseline)
        with stage("exp08 no steering"):
            tiny.carry_out(replay(baseline, Arm("exp08", "no-steering"), unsteered))
        with stage("exp05 self_monitor"):
            tiny.carry_out(replay(baseline, Arm("exp05", "self_monitor"), suffixed("self_monitor")))
        ablate(tiny, baseline, found)
        steer_plain(plain)
        with stage("exp02 sweep"):
            some = tiny.planned(Arm("exp02", "threshold"), tiny.biting[: p.exp02.latents], p.exp02.trials_per_latent)
            levels = relative_levels([row["threshold"] for row in tiny.biting], p.exp02.relative)
            tiny.carry_out(ladder(p, some, "exp02", levels))
    except OutOfTime:
        print("out of time; counting what is there", file=sys.stderr)
    return found


def ablate(tiny: Study, baseline: Sequence[Member], found: dict) -> None:
    p = tiny.params
    with stage("find detectors"):
        seen = tiny.bench.activations()
        detectors = found["detectors"] = tiny.bench.detected(seen)
        tiny.bench.put_detectors({"detectors": [asdict(d) for d in detectors]})
    if not detectors:
        return
    with stage("detectors in off-topic regions"):
        found["regions"] = off_topic_regions(tiny, [d.latent for d in detectors])
    with stage("exp03 detectors clamped"):
        change = ablated(p, "tiny", [d.latent for d in detectors])
        tiny.carry_out(replay(baseline, Arm("exp03", "detectors"), change))
    sets = tiny.bench.controls(seen, [latent.index for latent in tiny.latents])
    found["controls"] = {name: rows for name, rows in sets.items() if name.startswith("matched")}
    for name, rows in found["controls"].items():
        with stage(f"exp10 {name} clamped"):
            change = ablated(p, "tiny", [d.latent for d in rows])
            tiny.carry_out(replay(baseline, Arm("exp10", name), change))


def steer_plain(plain: Study) -> None:
    with stage("open the engine of tiny-plain"):
        _ = plain.bench.engine
    with stage("choose and calibrate tiny-plain"):
        plain.calibrate()
    baseline = plain.planned(BASELINE, plain.biting, plain.params.exp01.trials_per_latent)
    with stage("exp01 tiny-plain"):
        plain.carry_out(baseline)
    with stage("exp08 tiny-plain"):
        plain.carry_out(replay(baseline, Arm("exp08", "no-steering"), unsteered))


def recorded(tiny: Study, plain: Study) -> dict:
    """What flows have left in the store, without a trial being made; only the detectors' activations are read anew."""
    for study in (tiny, plain):
        rows = study.bench.store.sql("select * from thresholds where model = ?", [study.model]).to_pylist()
        protocol = study.params.protocol.model_dump(mode="json")
        study.found = [
            r for r in rows if r["calibration_id"] == content_id("calibration", study.bench.weights, protocol, r["latent"])
        ]
    rows = tiny.bench.store.sql(
        "select * from detectors where model = 'tiny' and kind in ('detector', 'matched') order by set_id, rank"
    ).to_pylist()
    sets = {set_id: [r for r in rows if r["set_id"] == set_id] for set_id in {r["set_id"] for r in rows}}
    names = ["detectors", *(f"matched-{i}" for i in range(tiny.params.exp10.sets))]
    by_name = {
        name: some for name in names for set_id, some in sets.items()
        if set_id == content_id(tiny.bench.weights, name, [r["latent"] for r in some], length=16)
    }  # fmt: skip
    detectors = [Detector(**{f.name: r[f.name] for f in fields(Detector)}) for r in by_name.pop("detectors", [])]
    with stage("detectors in off-topic regions"):
        regions = off_topic_regions(tiny, [d.latent for d in detectors]) if detectors else pd.DataFrame()
    return {"detectors": detectors, "controls": by_name, "regions": regions}


def off_topic_regions(tiny: Study, latents: Sequence[int]) -> pd.DataFrame:
    """For each reply with a correction: the detectors' mean activation in its off-topic first attempt, in the correction, in its
    last attempt, and over the unsteered reply to the same question with the same seed. Read without steering."""
    engine, fmt = tiny.bench.engine, tiny.params.protocol.prompt_format
    query = """
        with corrected as (select * from outcomes where experiment = 'exp01' and arm = 'baseline' and model = ? and scale = ? and judge = ? and corrected),
             quiet as (select * from outcomes where experiment = 'exp08' and arm = 'no-steering' and model = ? and scale = ? and judge = ?)
        select c.latent, c.prompt, r.text, u.text as quiet, j.attempts
        from corrected c join replies r using (trial_id)
        join judged j on j.trial_id = c.trial_id and j.latent = c.latent and j.experiment = 'exp01' and j.arm = 'baseline' and j.judge = c.judge and j.scale = c.scale
        join quiet q on q.latent = c.latent and q.question = c.question and q.seed = c.seed join replies u on u.trial_id = q.trial_id"""
    who = [tiny.model, tiny.params.scale, JUDGE]
    rows = tiny.bench.store.sql(query, who * 2).to_pylist()
    m = tiny.params.model(tiny.model)
    capture = Capture(layer=m.read_layer, sae=m.sae, mode="latents", latents=tuple(sorted(latents)))

    def request(prompt: str, text: str) -> Request:
        return Request(prompt=prompt, prompt_format=fmt, prefill=text, sampling=READ, capture=capture)

    readings = engine.read([request(r["prompt"], text) for r in rows for text in (r["text"], r["quiet"])])
    out = []
    for row, said, quiet in zip(rows, readings[::2], readings[1::2], strict=True):
        start = len(engine.render(row["prompt"], fmt))
        spans = engine.offsets(engine.render(row["prompt"], fmt, row["text"])[start:])
        values, (first, last) = said.values[start:].mean(axis=1), (row["attempts"][0], row["attempts"][-1])

        def mean(lo: int, hi: int, values: np.ndarray = values, spans: list[tuple[int, int]] = spans) -> float:
            inside = [i for i, (a, b) in enumerate(spans) if a < hi and b > lo and i < len(values)]
            return float(values[inside].mean()) if inside else float("nan")

        calm = quiet.values[start:].mean(axis=1)
        out.append(
            {
                "latent": row["latent"],
                "off": mean(first["start"], first["end"]),
                "correction": mean(first["end"], row["attempts"][1]["start"]),
                "on": mean(last["start"], last["end"]),
                "unsteered": float(calm.mean()),
            }
        )
    return pd.DataFrame(out)


def clustered(frame: pd.DataFrame, statistic: Callable[[pd.DataFrame], float], draws: int = 2000) -> tuple[float, float]:
    """95 % percentiles of a statistic over resampled latents."""
    groups = [group for _, group in frame.groupby("latent")]
    rng = np.random.default_rng(0)
    values = [statistic(pd.concat([groups[i] for i in rng.integers(len(groups), size=len(groups))])) for _ in range(draws)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def ratio_interval(a: pd.DataFrame, b: pd.DataFrame, column: str, draws: int = 4000) -> tuple[float, float, float]:
    """Rate of a over rate of b with 95 % percentiles, latents of both drawn together."""
    sums = [f.groupby("latent")[column].agg(["sum", "count"]).astype(float) for f in (a, b)]
    both = sums[0].join(sums[1].add_suffix("_b"), how="inner").to_numpy()
    counts = np.random.default_rng(0).multinomial(len(both), np.full(len(both), 1 / len(both)), size=draws) @ both
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = (counts[:, 0] / counts[:, 1]) / (counts[:, 2] / counts[:, 3])
        total = both.sum(axis=0)
        value = (total[0] / total[1]) / (total[2] / total[3])
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(value), float(low), float(high)


def percent(x: float | None) -> str:
    return "–" if x is None else f"{100 * x:.2f} %"


def between(bounds: Sequence[float] | None, show: Callable[[float], str] = percent) -> str:
    return "–" if bounds is None else f"{show(bounds[0])} to {show(bounds[1])}"


def points(x: float | None) -> str:
    return "–" if x is None else f"{x:.1f}"


def scored(goal: str, asked: str, first: Estimate, met: bool) -> Goal:
    return Goal(goal, asked, points(first.value), between(first.bootstrap, points), first.n, met)


def rated(goal: str, asked: str, rate: Estimate, bounds: Sequence[float] | None, met: bool) -> Goal:
    return Goal(goal, asked, percent(rate.value), between(bounds), rate.n, met)


def rate_goals(tiny: Study, plain: Study) -> Iterator[Goal]:
    for name, study in (("tiny", tiny), ("tiny-plain", plain)):
        if not study.has("exp08", "no-steering"):
            continue
        e = study.estimates("exp08", "no-steering")
        first, multi = e["first_score_mean"], e["multi_attempt_rate"]
        yield scored(f"{name}, unsteered: first-attempt mean", "≥ 85", first, first.value >= 85)
        yield Goal(
            f"{name}, unsteered: multi-attempt replies",
            "0",
            str(multi.k),
            f"at most {percent(multi.wilson[1])}",
            multi.n,
            multi.k == 0,
        )
    e = tiny.estimates("exp01", "baseline")
    first, multi, esr = e["first_score_mean"], e["multi_attempt_rate"], e["esr_rate"]
    done = [row for row in tiny.found if row["status"] == "converged"]
    asked = len(tiny.found)
    yield Goal("tiny: latents steered", "≥ 40", str(multi.clusters), "", asked, multi.clusters >= 40)
    yield Goal("tiny: latents whose search converges", "≥ 80 %", percent(len(done) / asked), "", asked, len(done) >= 0.8 * asked)
    yield scored("tiny at threshold: first-attempt mean", "30 ± 5", first, abs(first.value - 30) <= 5)
    yield rated("tiny at threshold: multi-attempt rate", "≥ 5 %", multi, multi.bootstrap, multi.value >= 0.05)
    yield rated("tiny at threshold: ESR rate", "≥ 2 %", esr, esr.bootstrap, esr.value >= 0.02)
    if not plain.has("exp01", "baseline"):
        return
    p = plain.estimates("exp01", "baseline")
    pm, pf = p["multi_attempt_rate"], p["first_score_mean"]
    yield scored("tiny-plain at threshold: first-attempt mean", "30 ± 5", pf, abs(pf.value - 30) <= 5)
    yield rated("tiny-plain at threshold: multi-attempt rate", "< 1 %", pm, pm.wilson, pm.value < 0.01)


def sweep_goals(tiny: Study) -> Iterator[Goal]:
    arms = [f"relative-{value:.6g}" for value in sorted(set(tiny.params.exp02.relative))]
    arms = [arm for arm in arms if tiny.has("exp02", arm)]
    if len(arms) < 3:
        return
    frames = {arm: tiny.outcomes("exp02", arm) for arm in arms}
    draws = tiny.params.protocol.bootstrap_draws
    at = {arm: estimates(frame, draws=draws) for arm, frame in frames.items()}
    curve = ", ".join(f"{arm.split('-')[1]}: {percent(at[arm]['multi_attempt_rate'].value)}" for arm in arms)
    peak = max(arms, key=lambda arm: at[arm]["multi_attempt_rate"].value or 0.0)
    ends = [differences(frames[peak], frames[end], draws=draws)["multi_attempt_rate"] for end in (arms[0], arms[-1])]
    inside = peak not in (arms[0], arms[-1])
    met = inside and all(d.bootstrap is not None and d.bootstrap[0] > 0 for d in ends)
    shown = "; ".join(between(d.bootstrap) for d in ends)
    yield Goal(
        "sweep: multi-attempt rate rises and falls", "peak inside, above both ends", curve, f"peak − ends: {shown}", ends[0].n, met
    )
    steps = [differences(frames[b], frames[a], draws=draws)["first_score_mean"] for a, b in pairwise(arms)]
    rising = [d for d in steps if d.bootstrap is not None and d.bootstrap[0] > 0]
    firsts = ", ".join(points(at[arm]["first_score_mean"].value) for arm in arms)
    yield Goal(
        "sweep: first scores fall",
        "no step rises beyond noise",
        firsts,
        f"{len(rising)} rising of {len(steps)}",
        steps[0].n,
        not rising,
    )


def detector_goals(tiny: Study, found: dict) -> Iterator[Goal]:
    detectors, controls, regions = found["detectors"], found["controls"], found["regions"]
    yield Goal("detectors found on discovery questions", "≥ 1", str(len(detectors)), "", len(detectors), bool(detectors))
    if not tiny.has("exp03", "detectors"):
        return
    d = tiny.against_baseline("exp03", "detectors")["multi_attempt_rate"]
    yield Goal(
        "detectors clamped: multi-attempt rate, paired", "below 0", percent(d.value), between(d.bootstrap), d.n, d.bootstrap[1] < 0
    )
    for name in (name for name in controls if tiny.has("exp10", name)):
        c = tiny.against_baseline("exp10", name)["multi_attempt_rate"]
        yield Goal(
            f"{name} controls clamped: multi-attempt rate, paired",
            "not below 0",
            percent(c.value),
            between(c.bootstrap),
            c.n,
            not c.bootstrap[1] < 0,
        )
    if len(regions):
        use = regions.dropna()
        low, high = clustered(use, lambda f: (f["off"] - f["unsteered"]).mean())
        means = ", ".join(f"{name} {use[name].mean():.4f}" for name in ("off", "correction", "on", "unsteered"))
        yield Goal("detectors, off-topic region − unsteered reply", "above 0", means, f"{low:.4f} to {high:.4f}", len(use), low > 0)


def told_goal(tiny: Study) -> Iterator[Goal]:
    if not tiny.has("exp05", "self_monitor"):
        return
    a, b = tiny.outcomes("exp05", "self_monitor"), tiny.outcomes("exp01", "baseline")
    value, low, high = ratio_interval(a, b, "multi")
    yield Goal(
        "self-monitoring suffix: multi-attempt rate, ratio",
        "≥ 1.5",
        f"{value:.2f}",
        f"{low:.2f} to {high:.2f}",
        len(a),
        value >= 1.5,
    )


def table(goals: Sequence[Goal]) -> str:
    rows = [f"| {g.goal} | {g.asked} | {g.measured} | {g.interval} | {g.n} | {'yes' if g.met else '**no**'} |" for g in goals]
    return "\n".join(["| goal | asked | measured | 95 % interval | n | met |", "|---|---|---|---|---|---|", *rows])


def write_into(page: Path, text: str) -> None:
    """Between the marks `<!-- truths -->` and `<!-- /truths -->`."""
    before, rest = page.read_text(encoding="utf-8").split("<!-- truths -->")
    after = rest.split("<!-- /truths -->")[1]
    page.write_text(f"{before}<!-- truths -->\n{text}\n<!-- /truths -->{after}", encoding="utf-8")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--store", type=Path, help="results folder; a fresh temporary one if left out")
    ask.add_argument("--scale", default="full")
    ask.add_argument("--docs", action="store_true", help="write the table into docs/organism.md too")
    ask.add_argument("--recorded", action="store_true", help="count what flows have left in --store and make no trial")
    ask.add_argument("--minutes", type=float, help="stop after so many and count what is there; the same --store goes on from it")
    ask.add_argument("--seed", type=int, help="root seed in place of params.yaml's")
    ask.add_argument("--out", type=Path, default=HOME / "docs" / "benchmarks" / "organism_truths.json")
    given = ask.parse_args()
    logging.basicConfig(level=logging.WARNING)
    start = time.monotonic()
    store = Store(given.store or Path(tempfile.mkdtemp(prefix="esr-truths-")))
    go_on = deadline(given.minutes)
    tiny, plain = (Study(model, store, given.scale, given.seed, go_on) for model in ("tiny", "tiny-plain"))
    found = recorded(tiny, plain) if given.recorded else run(tiny, plain)
    with stage("count"):
        goals = [*rate_goals(tiny, plain), *sweep_goals(tiny), *told_goal(tiny), *detector_goals(tiny, found)]
    total = time.monotonic() - start
    if not given.recorded:
        goals.append(Goal("all of the above in one command", "≤ 600 s", f"{total:.0f} s", "", len(goals), total <= 600))
    record = {
        "engine": backend(), "judge": tiny.bench.judge(JUDGE).prompt_hash, "scale": given.scale, "seed": tiny.params.seed,
        "weights": {s.model: s.bench.weights for s in (tiny, plain)}, "seconds": seconds, "goals": [asdict(g) for g in goals],
        "detectors": [asdict(d) for d in found["detectors"]],
    }  # fmt: skip
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(goals))
    if given.docs:
        write_into(HOME / "docs" / "organism.md", table(goals))
    print(
        f"\n{sum(g.met for g in goals)} of {len(goals)} met in {total:.0f} s; engine {backend()}, root seed {tiny.params.seed}, results in {store.root}"
    )


if __name__ == "__main__":
    main()
