"""Measures how often planted latents are found as what they are: one leads restarts by 8 tokens, one follows off-topic text, one is noise.

python scripts/planted_detectors.py --studies 500     # docs/benchmarks/planted_detectors.json
"""

import argparse
import json
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esr.count.timing import Timing, Watched, timing
from esr.params import HOME

Floats = NDArray[np.float64]
LEAD, SOON, HOLD, WINDOW, ERROR = 8, 12, 3, 40, 0.05
TRUTH = {"leader": "leads", "follower": "follows", "noise": "neither"}


def study(rng: np.random.Generator, latents: int = 30, most: int = 8) -> dict[str, Watched]:
    """Episodes of so many distractors, each with a restart-free reply steered by the same one; distractors differ in how much they
    rouse every latent, and values wander (AR 0.7)."""
    rows: dict[str, dict[str, list[Any]]] = {name: {key: [] for key in ("off", "on", "before", "control")} for name in TRUTH}
    codes, questions = [], []
    for latent in range(latents):
        loud, hum = rng.lognormal(0, 0.5), rng.lognormal(0, 0.5)
        for _ in range(int(rng.integers(1, most + 1))):
            codes.append(latent)
            questions.append(int(rng.integers(38)))
            off, on = int(rng.integers(20, 61)), int(rng.integers(15, 61))
            lead = int(rng.binomial(2 * LEAD, 0.5))
            for name, of in rows.items():
                episode, control = _wander(rng, off + on, hum), _wander(rng, off, hum)
                if name == "leader":
                    episode[max(off - lead, 0) : off] += 4 * loud + 4
                if name == "follower":
                    episode[:off] += loud
                    control += loud
                of["off"].append(episode[:off].mean())
                of["on"].append(episode[off:].mean())
                of["before"].append(episode[max(off - WINDOW, 0) : off])
                of["control"].append(control[-WINDOW:])
    return {
        name: Watched(np.array(of["off"]), np.array(of["on"]), of["before"], of["control"], np.array(codes), np.array(questions))
        for name, of in rows.items()
    }


def _wander(rng: np.random.Generator, n: int, hum: float) -> Floats:
    steps = rng.normal(0, 1, n)
    for t in range(1, n):
        steps[t] = 0.7 * steps[t - 1] + np.sqrt(1 - 0.7**2) * steps[t]
    out: Floats = np.maximum(hum + 0.5 * steps, 0)
    return out


def found(planted: dict[str, Watched]) -> dict[str, Timing]:
    return {name: timing(seen, soon=SOON, hold=HOLD, error=ERROR) for name, seen in planted.items()}


def tally(studies: int, seed: int) -> dict[str, Any]:
    kinds: dict[str, Counter[str]] = {name: Counter() for name in TRUTH}
    never: dict[str, list[float]] = {name: [] for name in TRUTH}
    held, onsets, apart = 0, [], Counter[str]()
    for i in range(studies):
        told = found(study(np.random.default_rng([seed, i])))
        for name, one in told.items():
            kinds[name][one.kind] += 1
            never[name].append(one.never.value or 0.0)
            apart[f"{name} now"] += (one.now.p or 1) < ERROR
            apart[f"{name} soon"] += (one.soon.p or 1) < ERROR
        span = told["leader"].onset.interval
        held += span is not None and span.low <= LEAD <= span.high
        onsets.append(told["leader"].onset.value or np.nan)
    share = {name: kinds[name][TRUTH[name]] / studies for name in TRUTH}
    return {
        "studies": studies, "error": ERROR, "found_as_what_it_is": share, "kinds": {name: dict(of) for name, of in kinds.items()},
        "p_below_error": {name: n / studies for name, n in sorted(apart.items())},
        "onset_of_leader": {"planted": LEAD, "mean": float(np.nanmean(onsets)), "interval_holds_it": held / studies},
        "never": {name: float(np.mean(of)) for name, of in never.items()},
    }  # fmt: skip


def main() -> None:
    ask = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ask.add_argument("--studies", type=int, default=500)
    ask.add_argument("--seed", type=int, default=20260206)
    given = ask.parse_args()
    began = time.perf_counter()
    out = tally(given.studies, given.seed) | {"seed": given.seed, "design": {"latents": 30, "episodes_per_latent": "1 to 8", "lead": LEAD,
          "soon": SOON, "hold": HOLD, "window": WINDOW}}  # fmt: skip
    (HOME / "docs" / "benchmarks" / "planted_detectors.json").write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(out | {"seconds": round(time.perf_counter() - began, 1)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
