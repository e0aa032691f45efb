"""README's table `paper | tiny | smollm2` from the recorded exports: every number with its n and its interval.

python scripts/headline.py            write it between README's marks
python scripts/headline.py --show     print it
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tuned_table

from esr.show import recorded, words
from esr.show.counted import Counted, arms

HOME = Path(__file__).resolve().parent.parent
MARKS = "<!-- headline -->", "<!-- /headline -->"


@dataclass(frozen=True)
class Row:
    says: str
    paper: str
    folder: str
    arms: tuple[str, ...]
    metric: str


MULTI, ESR = "multi_attempt_rate", "esr_rate"
ROWS = (
    Row("steered: replies with a second attempt", "7.4 %", "exp01/tiny", ("exp01/baseline",), MULTI),
    Row("steered: corrected (ESR)", "3.8 %", "exp01/tiny", ("exp01/baseline",), ESR),
    Row("not steered: second attempt", "0 of 13,118", "exp08/tiny", ("exp08/no-steering",), MULTI),
    Row("detectors clamped: second attempt", "5.5 %", "exp03/tiny", ("exp03/detectors",), MULTI),
    Row("detectors clamped: corrected", "2.8 %", "exp03/tiny", ("exp03/detectors",), ESR),
    Row("told to watch itself (`self_monitor`): second attempt", "31.7 %", "exp05/tiny", ("exp05/self_monitor",), MULTI),
    Row("told to watch itself: corrected", "14.8 %", "exp05/tiny", ("exp05/self_monitor",), ESR),
    *(
        Row(
            f"other latents clamped, matched set {i}: second attempt",
            "7.9 % (uniform draw)",
            "exp10/tiny",
            (f"exp10/matched-{i}",),
            MULTI,
        )
        for i in range(3)
    ),
    Row(
        "sweep, at 0.75 of each latent's threshold: second attempt",
        "peak 2.7 % at −0.3 σ",
        "exp02/tiny",
        ("exp02/relative-0.75",),
        MULTI,
    ),
    Row("steered `tiny-plain`, which never learnt it: second attempt", "–", "exp01/tiny-plain", ("exp01/baseline",), MULTI),
)


OTHER = "smollm2"


def beside(folder: str) -> str:
    """The same experiment of the other model."""
    return f"{folder.partition('/')[0]}/{OTHER}"


def counted() -> dict[str, dict[str, Counted]]:
    export = HOME / "store" / "export"
    folders = {row.folder for row in ROWS} | {beside(row.folder) for row in ROWS}
    there = sorted(folder for folder in folders if (export / folder).is_dir())
    return {folder: {one.arm.key: one for one in arms(recorded.read(export / folder))} for folder in there}


def table() -> str:
    """Rows whose results are recorded."""
    known = counted()
    lines = [
        f"| | paper (70B) | `tiny` | n | difference to steered, in pairs | `{OTHER}` | n | difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        for key in row.arms:
            own = cells(known[row.folder][key], row.metric)
            other = cells(known.get(beside(row.folder), {}).get(key) if row.folder.endswith("/tiny") else None, row.metric)
            lines.append(f"| {row.says} | {row.paper} | {own} | {other} |")
    return "\n".join(lines) + f"\n\n{remark(known)}\n\n{tuned_table.remark()}\n"


def cells(one: Counted | None, metric: str) -> str:
    if one is None:
        return "– | – | –"
    e = one.estimates[metric]
    return f"{words.estimate(e)} | {e.n:,} | {words.difference(one.differences.get(metric))}"


def remark(known: dict[str, dict[str, Counted]]) -> str:
    """Clamping may make the first attempt harder, and restarts depend on how far astray it is."""
    first = known["exp01/tiny"]["exp01/baseline"].estimates["first_score_mean"]
    clamped = [known["exp03/tiny"]["exp03/detectors"], *(known["exp10/tiny"][f"exp10/matched-{i}"] for i in range(3))]
    moved = "; ".join(f"{one.name} {words.difference(one.differences['first_score_mean'])}" for one in clamped)
    alike = "; ".join(f"{one.name} {words.standardised(one.standardised[MULTI])}" for one in clamped)
    same = ", ".join(one.name for one in known["exp10/tiny"].values() if one.identical)
    return (
        f"First attempts score {words.estimate(first)} when steered; clamped, in pairs, they differ by {moved}: some sets make the first attempt "
        f"harder, and restarts depend on how far astray it is. At equal first scores (docs/statistics.md) second attempts differ by {alike}. {same} equal the baseline reply by reply: what they clamp is never active."
    )


def page() -> str:
    before, rest = (HOME / "README.md").read_text(encoding="utf-8").split(MARKS[0])
    return f"{before}{MARKS[0]}\n{table()}{MARKS[1]}{rest.split(MARKS[1])[1]}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--show"]:
        sys.stdout.write(table())
    else:
        (HOME / "README.md").write_text(page(), encoding="utf-8")
