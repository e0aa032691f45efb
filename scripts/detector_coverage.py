"""What the interval of a detector's area is worth: simulated latents, the best chosen on one half of the questions, told by the other.

    python scripts/detector_coverage.py            # docs/benchmarks/detectors.json, some fifteen seconds of an idle core a design

A latent reads what topic the reply is about, what is asked, both together, and chance; latents differ in how far another's reply
raises it. Truth: the area over pairs that share nothing.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esr.count.pair_areas import areas
from esr.study.detect import dealt, halves

ORDERS, REPLIES, BEST = 10, 4, 26
OUT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "detectors.json"


@dataclass(frozen=True)
class Design:
    """Spreads of what a latent reads, and its mean rise under another's question."""

    topic: float
    asked: float
    both: float
    chance: float
    rise: float
    floor: float
    """Below it nothing is read: ties at 0."""
    questions: int = 20


DESIGNS = {
    "topics": Design(1.0, 0.0, 0.3, 0.3, 0.4, 0.0),
    "topics and questions": Design(1.0, 1.0, 0.3, 0.3, 0.6, 0.0),
    "pairs": Design(0.3, 0.3, 1.0, 0.3, 0.6, 0.5),
    "chance alone": Design(0.0, 0.0, 0.0, 1.0, 0.3, 0.0),
    "mostly silent": Design(1.0, 0.3, 0.3, 0.3, 1.0, 2.5),
    "nearly perfect": Design(0.3, 1.0, 0.3, 0.3, 2.5, 1.0),
    "forty questions": Design(1.0, 0.3, 0.3, 0.3, 0.6, 0.5, 40),
}


def drawn(rng: np.random.Generator, of: Design, rise: np.ndarray, orders: list[list[int]]) -> tuple[np.ndarray, ...]:
    """Values [pairs, latents], the question that each pair asks and the one that its reply answers."""
    n, latents = of.questions, len(rise)
    topic, asked = rng.normal(0, of.topic, (n, latents)), rng.normal(0, of.asked, (n, latents))
    both, told = rng.normal(0, of.both, (n, n, latents)), rng.normal(0, of.chance, (n, REPLIES, latents))
    question = np.concatenate([np.repeat(np.arange(n), REPLIES) for _ in range(1 + len(orders))])
    reply = np.concatenate([np.repeat(np.asarray(order), REPLIES) for order in [list(range(n)), *orders]])
    which = np.tile(np.arange(REPLIES), n * (1 + len(orders)))
    read = topic[reply] + asked[question] + both[question, reply] + told[reply, which] + rng.normal(0, 0.3, (len(reply), latents))
    read += np.where((question != reply)[:, None], rise, 0.0) - of.floor
    return np.maximum(read, 0.0).astype(np.float32), question, reply


def truth(rng: np.random.Generator, of: Design, rise: np.ndarray) -> np.ndarray:
    """P(higher) + ½ P(alike) of a matched and a mismatched pair that share nothing; between forty rises straight lines."""
    n, grid = 20_000, np.linspace(rise.min(), rise.max(), 40)
    deep = np.sqrt(of.topic**2 + of.asked**2 + of.both**2 + of.chance**2 + 0.3**2)
    own, other = rng.normal(0, deep, (2, n))
    own = np.sort(np.maximum(own - of.floor, 0.0))
    out = []
    for one in grid:
        here = np.maximum(other + one - of.floor, 0.0)
        out.append((np.searchsorted(own, here, "left") + np.searchsorted(own, here, "right")).mean() / (2 * n))
    return np.interp(rise, grid, out)


def cover(name: str, *, studies: int, latents: int, seed: int = 1) -> dict[str, Any]:
    """Of all latents on the half that does not choose, and of the best that the other half chose."""
    of, rng = DESIGNS[name], np.random.default_rng([seed, *name.encode()])
    rows: dict[str, list[np.ndarray]] = {"all": [], "chosen": []}
    for study in range(studies):
        rise = np.abs(rng.normal(of.rise, 0.3, latents))
        one, two = halves(of.questions, study)
        values, question, reply = drawn(rng, of, rise, dealt([one, two], ORDERS, study))
        mine = np.isin(question, one)
        choosing = areas(values[mine], question[mine], reply[mine]).value
        told = areas(values[~mine], question[~mine], reply[~mine])
        row = np.stack([choosing, told.value, truth(rng, of, rise), told.low, told.high])
        rows["all"].append(row)
        rows["chosen"].append(row[:, np.argsort(-choosing)[:BEST]])
    return {kind: _told(np.concatenate(some, axis=1)) for kind, some in rows.items()}


def _told(row: np.ndarray) -> dict[str, float]:
    choosing, held_out, is_so, low, high = row
    return {
        "choosing": round(float(choosing.mean()), 4), "held_out": round(float(held_out.mean()), 4), "truth": round(float(is_so.mean()), 4),
        "covered": round(float(((low <= is_so) & (is_so <= high)).mean()), 4), "width": round(float((high - low).mean()), 4),
    }  # fmt: skip


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--studies", type=int, default=24)
    words.add_argument("--latents", type=int, default=200)
    asked = words.parse_args()
    found = {name: {**asdict(of), **cover(name, studies=asked.studies, latents=asked.latents)} for name, of in DESIGNS.items()}
    about = {"studies": asked.studies, "latents": asked.latents, "best": BEST, "replies": REPLIES, "derangements": ORDERS}
    OUT.write_text(json.dumps({**about, "designs": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
