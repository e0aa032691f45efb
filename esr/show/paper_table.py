"""The table `paper | ours`: one line an experiment, model and metric that was run, as Markdown.

`python -m esr.show.paper_table` writes it for all exports of full scale in the store to figures/table.md: a smoke run tries the
machinery and its numbers mean nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from esr import params
from esr.count.metrics import Difference
from esr.show import recorded, words
from esr.show.counted import Counted, arms
from esr.show.paper import reported
from esr.show.recorded import Recorded

SHOWN = ("first_score_mean", "multi_attempt_rate", "improvement_rate", "esr_rate")
HEADER = (
    "experiment",
    "model",
    "scale",
    "judge",
    "arm",
    "metric",
    "paper",
    "ours",
    "95 % interval",
    "n",
    "minus baseline, in pairs",
)
NOTE = f"{words.NOTE} `{words.NOTHING}`: not reported as a number, no interval, or the denominator is 0."


def table(folders: Sequence[Path], *, metrics: Sequence[str] = SHOWN) -> str:
    """Of these exports; nothing that was not run is in it."""
    rows = [row for folder in folders for row in _rows(recorded.read(folder), metrics)]
    lines = [HEADER, tuple("---" for _ in HEADER), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{NOTE}\n"


def _rows(found: Recorded, metrics: Sequence[str]) -> list[tuple[str, ...]]:
    own = [one for one in arms(found) if one.arm.experiment == found.experiment] if "outcomes" in found.tables else []
    return [_row(found, one, metric) for one in own for metric in metrics]


def _row(found: Recorded, one: Counted, metric: str) -> tuple[str, ...]:
    e, d = one.estimates[metric], one.differences.get(metric)
    span = e.interval
    return (
        found.experiment,
        found.title,
        found.about["scale"],
        found.about["judge"],
        one.name,
        words.NAMES.get(metric, metric),
        words.value(metric, reported(one.arm, found.model, metric)),
        words.value(metric, e.value),
        f"{words.value(metric, span.low)} to {words.value(metric, span.high)}" if span and e.value is not None else words.NOTHING,
        f"{e.n:,}",
        _signed(d),
    )


def _signed(d: Difference | None) -> str:
    told = words.difference(d)
    return told.replace(" [", " (").replace(", ", " to ").replace("]", ")")


def main() -> None:
    root = params.store()
    file = root / "figures" / "table.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    folders = sorted(path.parent for path in (root / "export").glob("*/*/about.json"))
    text = table([folder for folder in folders if recorded.scale(folder) == "full"])
    recorded.replace(file, text.encode())


if __name__ == "__main__":
    main()
