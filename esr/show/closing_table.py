"""The table that closes a run: each arm's n, missing, rates with their intervals, and what differs from the baseline in pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from esr.experiment import Experiment, Selection
from esr.params import Params
from esr.show import dosed, words
from esr.show.counted import Counted, arms
from esr.show.dosed import Dose
from esr.show.recorded import recorded
from esr.show.tables import OUTCOMES, where
from esr.store import Store
from esr.types import BASELINE

FIRST = "first_score_mean"
NAMES = {
    FIRST: ("first score", "first score"),
    "multi_attempt_rate": ("multi-attempt", "multi"),
    "improvement_rate": ("improvement", "improvement"),
    "esr_rate": ("ESR", "ESR"),
}
SHOWN = ("multi_attempt_rate", "esr_rate")
"""Of most experiments, whose arms are held against the baseline."""
NOTE = f"{words.NOTE} {words.EQUAL}"


def header(shown: tuple[str, ...], *, dose: bool = False) -> tuple[str, ...]:
    """The columns, where an experiment shows these metrics; `dose`: where it is known."""
    against = "baseline" if shown == SHOWN else "its pair"
    values, alike = [NAMES[name][0] for name in _values(shown)], [f"{NAMES[name][1]}, equal score" for name in _alike(shown)]
    told = ("dose",) if dose else ()
    return ("arm", "n", "missing", *told, *values, *(f"{NAMES[name][1]} − {against}" for name in shown), *alike)


def _values(shown: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((FIRST, *shown)))


def _alike(shown: tuple[str, ...]) -> tuple[str, ...]:
    """What is also held against the baseline at equal first scores."""
    return shown if shown == SHOWN else ()


HEADER = header(SHOWN)


@dataclass(frozen=True, slots=True)
class Line:
    """One arm; without a graded trial it has no numbers."""

    key: str
    missing: int
    counted: Counted | None
    shown: tuple[str, ...] = SHOWN
    dose: Dose | None = None
    """None: not measured."""

    def cells(self, *, dose: bool = False) -> list[str]:
        """Under `header`."""
        one = self.counted
        held = one.differences if one else {}
        alike = one.standardised if one else {}
        known = one.estimates if one else {}
        return [
            self.key,
            f"{one.n if one else 0:,}",
            f"{self.missing:,}",
            *([str(self.dose or words.NOTHING)] if dose else []),
            *(words.estimate(known.get(name)) for name in _values(self.shown)),
            *(words.difference(held.get(name)) for name in self.shown),
            *(words.standardised(alike.get(name)) for name in _alike(self.shown)),
        ]


def lines(store: Store, params: Params, experiment: Experiment, chosen: Selection) -> list[Line]:
    """The baseline and the experiment's arms, in their order."""
    beside = tuple(dict.fromkeys((BASELINE.key, *chosen.beside))) if chosen.experiment != BASELINE.experiment else chosen.beside
    wide = replace(chosen, beside=beside[:1])
    alone = replace(experiment, tables=tuple(one for one in experiment.tables if one.name == OUTCOMES.name))
    found = {one.arm.key: one for one in arms(recorded(store, params, alone, wide))} if _graded(store, wide) else {}
    condition, asked = where(wide)
    rows = store.sql(
        "select s.experiment || '/' || s.arm as key, s.n_missing from summary s join current_arms a using (experiment, model, arm, scale) "
        f"where {condition} order by key != '{BASELINE.key}', s.experiment, a.kind, a.place, s.arm",
        asked,
    ).to_pylist()
    if not any(row["key"].startswith(f"{chosen.experiment}/") for row in rows):
        return []  # it has no arm of its own, so there is nothing to hold against others
    doses = dosed.doses(store, wide, [row["key"] for row in rows])
    return [Line(row["key"], int(row["n_missing"]), found.get(row["key"]), experiment.shown, doses.get(row["key"])) for row in rows]


def known(found: Sequence[Line]) -> bool:
    """Whether any arm's dose has been measured."""
    return any(line.dose is not None for line in found)


def note(store: Store, chosen: Selection, found: Sequence[Line]) -> str:
    """What stands under the table."""
    stream = dosed.said(dosed.streams(store, chosen, [line.key for line in found])) if known(found) else ""
    return f"{NOTE} {stream}".rstrip()


def _graded(store: Store, chosen: Selection) -> bool:
    condition, asked = where(chosen, own_alone=True)
    return bool(store.sql(f"select 1 from outcomes where {condition} limit 1", asked).num_rows)


def markdown(found: list[Line], note: str = NOTE) -> str:
    """Two tables, rates and then doses and differences: in one, the last columns would be cut on a page of usual width."""
    shown = found[0].shown if found else SHOWN
    dose = known(found)
    names, rows = header(shown, dose=dose), [line.cells(dose=dose) for line in found]
    held = 3 + dose + len(_values(shown))
    rates, beside = [*range(3), *range(3 + dose, held)], [0, *range(3, 3 + dose), *range(held, len(names))]
    apart = [row for row in rows if any(row[i] for i in beside[1:])]
    tables = [([names[i] for i in at], [[row[i] for i in at] for row in some]) for at, some in ((rates, rows), (beside, apart))]
    return "\n\n".join([*(table(head, some) for head, some in tables if some), note])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """As Markdown, its first column words and the others numbers."""
    marks = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, marks, *rows))
