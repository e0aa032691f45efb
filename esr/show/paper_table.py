"""The table `paper | ours`: one line an experiment, model and metric that was run, as Markdown.

`python -m esr.show.paper_table` writes it for all exports of the store to figures/table.md.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from esr import params
from esr.count.metrics import METRICS
from esr.show import recorded as export
from esr.show.paper import reported
from esr.show.recorded import Arm, Recorded

SHOWN = ("first_score_mean", "multi_attempt_rate", "improvement_rate", "esr_rate")
WORDS = {
    "first_score_mean": "first-attempt score",
    "multi_attempt_rate": "multi-attempt rate",
    "improvement_rate": "improvement rate",
    "esr_rate": "ESR rate",
}
HEADER = ("experiment", "model", "arm", "metric", "paper", "ours", "95 % interval", "n", "minus baseline, in pairs")
NOTE = (
    "Intervals: Wilson for rates, percentiles over resampled latents for scores and for differences, which are taken over trials of "
    "the same latent, question and seed. `–`: not reported as a number, or the denominator is 0."
)


def table(folders: Sequence[Path], *, metrics: Sequence[str] = SHOWN) -> str:
    """Of these exports; nothing that was not run is in it."""
    rows = [row for folder in folders for row in _rows(export.read(folder), metrics)]
    lines = [HEADER, tuple("---" for _ in HEADER), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{NOTE}\n"


def _rows(found: Recorded, metrics: Sequence[str]) -> list[tuple[str, ...]]:
    own = [arm for arm in export.arms(found) if arm.experiment == found.experiment]
    return [_row(found, arm, metric) for arm in own for metric in metrics]


def _row(found: Recorded, arm: Arm, metric: str) -> tuple[str, ...]:
    e, rate = arm.estimates[metric], METRICS[metric].proportion
    bounds = e.wilson if rate else e.bootstrap
    d = arm.differences.get(metric)
    return (
        arm.experiment,
        found.model,
        arm.name,
        WORDS.get(metric, metric),
        _value(reported(arm.experiment, found.model, arm.name, metric), rate),
        _value(e.value, rate),
        f"{_value(bounds[0], rate)} to {_value(bounds[1], rate)}" if bounds and e.value is not None else "–",
        f"{e.n:,}",
        _signed(d.value, d.bootstrap, rate) if d and d.value is not None else "",
    )


def _value(value: float | None, rate: bool) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if rate else f"{value:.1f}"


def _signed(value: float, bounds: tuple[float, float] | None, rate: bool) -> str:
    scale = 100 if rate else 1
    span = f" ({scale * bounds[0]:+.1f} to {scale * bounds[1]:+.1f})" if bounds else ""
    return f"{scale * value:+.1f}{span}"


def main() -> None:
    root = Path(os.environ.get("ESR_STORE") or params.HOME / "store")
    file = root / "figures" / "table.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(table(sorted(path.parent for path in (root / "export").glob("*/*/about.json"))), encoding="utf-8")


if __name__ == "__main__":
    main()
