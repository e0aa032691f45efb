"""How often the interval of a difference at equal first scores holds the truth: the very code that prints it, on studies whose truth is known.

python scripts/difficulty_coverage.py --studies 1000     docs/benchmarks/difficulty.json
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import special

from esr.count import difficulty
from esr.count.clusters import Clusters
from esr.count.metrics import METRICS

OUT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "difficulty.json"
RATIO = METRICS["multi_attempt_rate"]
QUESTIONS = 38


@dataclass(frozen=True)
class Design:
    """Restarts follow the first score; the arm shifts first scores, scales the odds of a restart at a given score, or neither."""

    name: str
    latents: int
    trials: int
    rate: float
    """Logit of a restart at a first score of 30."""
    shift: float = 0.0
    """Of the arm's first scores, in points."""
    odds: float = 0.0
    """Added to the arm's logits at a given first score."""
    redrawn: float = 1.0
    """Share of pairs whose reply in the arm is another draw; the others are the baseline's reply."""


DESIGNS = (
    Design("alike", 48, 24, -1.5),
    Design("harder, alike at equal score", 48, 24, -1.5, shift=-9),
    Design("harder, halved at equal score", 48, 24, -1.5, shift=-9, odds=-0.9),
    Design("harder, fewer by five at equal score", 48, 24, -1.5, shift=-9, odds=-1.9),
    Design("easier, twice at equal score", 48, 24, -1.5, shift=4, odds=0.8),
    Design("one pair in twenty redrawn", 48, 24, -1.5, shift=-4, redrawn=0.05),
    Design("rare", 48, 24, -4.5, shift=-9, odds=-0.7),
    Design("12 latents", 12, 24, -1.5, shift=-9, odds=-0.9),
    Design("500 × 5, few restarts", 500, 5, -3.0, shift=-9, odds=-0.4),
)


def draw(design: Design, studies: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Restarts and first scores of the arm and the baseline, [studies, trials]."""
    latent = np.repeat(np.arange(design.latents), design.trials)
    level, tendency = rng.normal(0, 10, (studies, design.latents)), rng.normal(0, 1, (studies, design.latents))
    asked = rng.normal(0, 0.5, (studies, QUESTIONS))[:, questions(design)]
    shape = (studies, latent.size)

    def one(shift: float, odds: float) -> tuple[np.ndarray, np.ndarray]:
        low = rng.random(shape) < 0.55  # near-bimodal, as judges score
        first = np.where(low, rng.gamma(1.2, 6, shape), rng.normal(55, 14, shape)) + level[:, latent] + shift
        first = first.clip(0, 100)
        logit = design.rate + tendency[:, latent] + asked + 0.02 * (first - 30) + odds
        return (rng.random(shape) < special.expit(logit)).astype(float), first

    y, of_y = one(0.0, 0.0)
    x, of_x = one(design.shift, design.odds)
    same = rng.random(shape) >= design.redrawn
    return np.where(same, y, x), y, np.where(same, of_y, of_x), of_y


def questions(design: Design) -> np.ndarray:
    return np.concatenate([np.random.default_rng(i).permutation(QUESTIONS)[: design.trials] for i in range(design.latents)])


def cover(design: Design, studies: int) -> dict[str, object]:
    rng = np.random.default_rng([20260206, len(design.name), design.latents])
    latent = np.repeat(np.arange(design.latents), design.trials)
    clusters = Clusters.of(latent, questions(design))
    chunk, truths, raws = max(1, 200_000 // latent.size), [], []
    for _ in range(max(1, 3_000_000 // (chunk * latent.size))):
        x, y, of_x, of_y = draw(design, chunk, rng)
        whole = Clusters.of(np.zeros(x.size, dtype=int))
        flat = [values.reshape(1, -1) for values in (x, y, of_x, of_y)]
        truths.append(difficulty.shifted(*flat[:2], *(difficulty.stratum(first) for first in flat[2:]), whole).value[0])
        raws.append(x.mean() - y.mean())
    truth, held, above, told, width = float(np.mean(truths)), 0, 0, 0, 0.0
    for start in range(0, studies, chunk):
        x, y, of_x, of_y = draw(design, min(chunk, studies - start), rng)
        found, _ = difficulty.difference(RATIO, x, y, of_x, of_y, clusters)
        low, high = found.interval(0.95)
        seen = found.told
        held += int((seen & (low <= truth) & (truth <= high)).sum())
        above += int((seen & (low > truth)).sum())
        told += int(seen.sum())
        width += float(np.where(seen, high - low, 0).sum())
    return {
        **asdict(design),
        "truth": round(truth, 5),
        "raw": round(float(np.mean(raws)), 5),
        "told": told,
        "coverage": round(held / max(told, 1), 4),
        "above": round(above / max(told, 1), 4),
        "width": round(width / max(told, 1), 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    found = [cover(design, asked.studies) for design in DESIGNS]
    for row in found:
        print(
            f"{row['name']:<40} truth {row['truth']:+.4f} raw {row['raw']:+.4f} coverage {row['coverage']:.3f} told {row['told']}"
        )
    asked.out.write_text(
        json.dumps({"studies": asked.studies, "confidence": 0.95, "designs": found}, indent=1, ensure_ascii=False) + "\n"
    )


if __name__ == "__main__":
    main()
