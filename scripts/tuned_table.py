"""docs/finetuning.md's table of experiment 4 from the recorded exports: every number with its n and its interval.

python scripts/tuned_table.py            write it between the page's marks
python scripts/tuned_table.py --show     print it
"""

import sys
from functools import cache
from pathlib import Path

from esr.count import trainings
from esr.count.metrics import Difference, Estimate
from esr.count.trainings import Pooled
from esr.show import recorded, words
from esr.show.counted import Counted, arms
from esr.show.figures.tuned import pooled

HOME = Path(__file__).resolve().parent.parent
PAGE = HOME / "docs" / "finetuning.md"
MARKS = "<!-- results -->", "<!-- /results -->"
MULTI, IMPROVED, ESR = "multi_attempt_rate", "improvement_rate", "esr_rate"
HEAD = "| | second attempts | above base, in pairs | corrected (ESR) | above base | better, of second attempts | n | not steered: second attempts | n |"


def told(one: Pooled) -> str:
    return words.estimate(
        Estimate(one.metric, one.value, one.n, None, one.interval, one.method, one.method, one.latents, None, None)
    )


def difference(one: Pooled) -> str:
    return words.difference(
        Difference(one.metric, one.value, one.n, one.interval, one.method, one.method, one.latents, None, None, None)
    )


def single(name: str, one: Counted, quiet: Counted | None) -> str:
    """An arm that no training is behind."""
    e, d = one.estimates, one.differences
    alarms = [words.estimate(quiet.estimates[MULTI]), f"{quiet.estimates[MULTI].n:,}"] if quiet else [words.NOTHING, ""]
    cells = [
        words.estimate(e[MULTI]), words.difference(d.get(MULTI)), words.estimate(e[ESR]), words.difference(d.get(ESR)), words.estimate(e[IMPROVED]),
        f"{e[MULTI].n:,}", *alarms,
    ]  # fmt: skip
    return f"| {name} | {' | '.join(cells)} |"


@cache
def counted(model: str) -> list[Counted]:
    return arms(recorded.read(HOME / "store" / "export" / "exp04" / model))


def table(model: str) -> str:
    found = counted(model)
    named = {one.name: one for one in found}
    base = named["base"].rows
    lines = [HEAD, "|" + "---|" * 9, single(f"`{model}`", named["base"], named.get("base-unsteered"))]
    lines.append(single("told to watch itself (`self_monitor`)", named["self_monitor"], None))
    for kind, says in (("tuned", "{:g} % masked"), ("tuned-live", "{:g} % masked, trained under live steering")):
        quiet = pooled(found, {"tuned": "unsteered", "tuned-live": "unsteered-live"}[kind])
        for ratio, rows in pooled(found, kind).items():
            rate = {metric: trainings.rate(rows, metric) for metric in (MULTI, IMPROVED, ESR)}
            above = {metric: trainings.above(rows, base, metric) for metric in (MULTI, ESR)}
            alarms = trainings.rate(quiet[ratio], MULTI)
            cells = [
                told(rate[MULTI]), difference(above[MULTI]), told(rate[ESR]), difference(above[ESR]), told(rate[IMPROVED]), f"{rate[MULTI].n:,}",
                told(alarms), f"{alarms.n:,}",
            ]  # fmt: skip
            lines.append(f"| {says.format(ratio)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def models() -> list[str]:
    """Those whose run is recorded."""
    there = sorted(folder.name for folder in (HOME / "store" / "export" / "exp04").iterdir() if folder.is_dir())
    return [model for model in there if not model.endswith("-smoke")]


def tables() -> str:
    return "\n\n".join(table(model) for model in models())


def remark(ratio: float = 50) -> str:
    """For README: what checkpoints of one ratio make more of than their base, of every model."""
    above = dict[str, list[str]]()
    for kind in ("tuned", "tuned-live"):
        for model in models():
            found = counted(model)
            base = next(one.rows for one in found if one.name == "base")
            more = trainings.above(pooled(found, kind)[ratio], base, MULTI)
            above.setdefault(kind, []).append(f"`{model}` {difference(more)} (n {more.n:,})")
    return (
        f"Second attempts of models fine-tuned to correct themselves, {ratio:g} % of the rows masked (experiment 4), less those of their base, in points and pairs: "
        f"{', '.join(above['tuned'])}; trained under live steering {', '.join(above['tuned-live'])}. docs/finetuning.md has every ratio, and how many of them are false alarms."
    )


def page() -> str:
    before, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
    return f"{before}{MARKS[0]}\n{tables()}\n{MARKS[1]}{rest.split(MARKS[1])[1]}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--show"]:
        sys.stdout.write(tables() + "\n")
    else:
        PAGE.write_text(page(), encoding="utf-8")
