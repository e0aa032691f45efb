"""How often a rate corrected by people's labels has the truth in its interval: the very code that prints it, on studies whose truth is known.

python scripts/audit_coverage.py --studies 2000     docs/benchmarks/audit.json
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from esr.count import audit
from esr.count.clusters import Clusters

OUT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "audit.json"
QUESTIONS = 38


@dataclass(frozen=True)
class Design:
    name: str
    latents: int
    trials: int
    rate: float
    """Mean ESR rate of all latents that there could be."""
    spread: float
    """Correlation of two trials of one latent."""
    sensitivity: float = 0.9
    specificity: float = 0.985
    detected: float = 0.9
    """Share of corrections that the restart detector sees, whatever the judge says."""
    alarms: float = 0.01
    """Share of other replies in which it sees one."""
    labels: int = 200


DESIGNS = (
    Design("500 × 10, ESR 3.8 %", 500, 10, 0.038, 0.1),
    Design("500 × 10, ESR 7.4 %", 500, 10, 0.074, 0.1),
    Design("48 × 24, ESR 11.7 % (as tiny)", 48, 24, 0.117, 0.2),
    Design("100 × 24, ESR 5 %, no detector", 100, 24, 0.05, 0.1, detected=0.0, alarms=0.0),
    Design("500 × 10, ESR 3.8 %, 100 labels", 500, 10, 0.038, 0.1, labels=100),
)


def study(design: Design, rng: np.random.Generator) -> dict[str, audit.Share]:
    """One study judged, audited and corrected."""
    latent = np.repeat(np.arange(design.latents), design.trials)
    size = (1 - design.spread) / design.spread
    rate = rng.beta(design.rate * size, (1 - design.rate) * size, design.latents)[latent]
    truth = rng.random(latent.size) < rate
    said = np.where(truth, rng.random(latent.size) < design.sensitivity, rng.random(latent.size) >= design.specificity)
    seen = np.where(truth, rng.random(latent.size) < design.detected, rng.random(latent.size) < design.alarms)
    code = 2 * said.astype(int) + seen
    names = [audit.stratum(bool(k // 2), bool(k // 2), bool(k % 2)) for k in range(4)]
    sizes = {names[k]: int(n) for k, n in enumerate(np.bincount(code, minlength=4)) if n}
    given = np.zeros(latent.size, dtype=bool)
    for name, n in audit.allocation(sizes, design.labels).items():
        given[rng.choice(np.flatnonzero(code == names.index(name)), n, replace=False)] = True
    random = np.zeros(latent.size, dtype=bool)
    random[rng.choice(latent.size, design.labels, replace=False)] = True
    clusters = Clusters.of(latent)
    compact = np.unique(code, return_inverse=True)[1].ravel()
    told = audit._audited("esr_rate", truth * 1.0, said * 1.0, given, compact, clusters, 0.95)
    alone = audit._tuned(truth * 1.0, np.zeros(latent.size), random * (latent.size / design.labels), clusters, 0.95)
    judge = audit._share(said * 1.0, np.ones(latent.size), clusters, 0.95, 0)
    return {"post-stratified": told.post_stratified, "PPI++": told.ppi, "as many labels at random, alone": alone, "judge": judge}


def cover(design: Design, studies: int) -> dict[str, object]:
    rng = np.random.default_rng([20260206, design.latents, design.labels, int(1000 * design.rate)])
    found: dict[str, dict[str, float]] = {}
    for _ in range(studies):
        for name, share in study(design, rng).items():
            row = found.setdefault(name, {"told": 0, "held": 0, "above": 0, "width": 0.0, "error": 0.0})
            row["error"] += ((share.value or 0.0) - design.rate) ** 2
            if share.interval is not None:
                row["told"] += 1
                row["held"] += share.interval.low <= design.rate <= share.interval.high
                row["above"] += share.interval.low > design.rate
                row["width"] += share.interval.high - share.interval.low
    rows = {
        name: {
            "told": int(row["told"]),
            "coverage": round(row["held"] / max(row["told"], 1), 4),
            "above": round(row["above"] / max(row["told"], 1), 4),
            "width": round(row["width"] / max(row["told"], 1), 5),
            "error": round((row["error"] / studies) ** 0.5, 5),
        }
        for name, row in found.items()
    }
    return {**asdict(design), "estimators": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=OUT)
    asked, found = parser.parse_args(), []
    for design in DESIGNS:
        found.append(cover(design, asked.studies))
        for name, row in found[-1]["estimators"].items():
            print(
                f"{design.name:<34}{name:<34}coverage {row['coverage']:.3f} width {row['width']:.4f} error {row['error']:.4f}",
                flush=True,
            )
    asked.out.write_text(
        json.dumps({"studies": asked.studies, "confidence": 0.95, "designs": found}, indent=1, ensure_ascii=False) + "\n"
    )


if __name__ == "__main__":
    main()
