"""The closing numbers of an experiment as a table: each own arm's rates with intervals, and what differs in pairs."""

from collections.abc import Sequence

from esr.show import latex, words
from esr.show.manuscript.numbers import Number

SHOWN = ("first_score_mean", "multi_attempt_rate", "improvement_rate", "esr_rate")
HELD = ("multi_attempt_rate", "esr_rate")


def rows(numbers: Sequence[Number]) -> list[tuple[str, ...]]:
    """A head and a line an arm; empty where the experiment counts no arm."""
    by = {one.place[2:]: one for one in numbers}
    arms = list(dict.fromkeys(place[0] for place in by if len(place) > 1 and place[1] in SHOWN))
    if not arms:
        return []
    held = [metric for metric in HELD if any((arm, metric, "difference") in by for arm in arms)]
    head = (
        "arm",
        "n",
        "missing",
        *(words.NAMES[metric] for metric in SHOWN),
        *(f"{words.NAMES[metric]}, difference" for metric in held),
    )
    lines = [
        (
            arm,
            by[arm, "n"].text(),
            by[arm, "missing"].text(),
            *(_cell(by.get((arm, metric))) for metric in SHOWN),
            *(_cell(by.get((arm, metric, "difference"))) for metric in held),
        )
        for arm in arms
    ]
    return [head, *lines]


def _cell(one: Number | None) -> str:
    if one is None or not one.text():
        return words.NOTHING
    return f"{one.text()}{one.unit} {one.interval() or f'({one.why})'}"


def markdown(found: Sequence[tuple[str, ...]]) -> str:
    marks = ["---", *("---:" for _ in found[0][1:])]
    lines = [[cell.replace("|", r"\|") for cell in row] for row in found]
    return "\n".join(f"| {' | '.join(row)} |" for row in (lines[0], marks, *lines[1:])) + f"\n\n{words.NOTE}\n"


def tex(found: Sequence[tuple[str, ...]]) -> str:
    """For the preamble \\usepackage{booktabs}."""
    head, *body = [" & ".join(latex.number(latex.escaped(cell)).replace(" \\%", r"\,\%") for cell in row) + r" \\" for row in found]
    columns = "l" + "r" * (len(found[0]) - 1)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"
