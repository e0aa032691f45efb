"""The table that closes a run: each arm's n, missing, rates with their intervals, and what differs from the baseline in pairs."""

from dataclasses import dataclass, replace

from esr.experiment import Experiment, Selection
from esr.params import Params
from esr.show import words
from esr.show.counted import Counted, arms
from esr.show.recorded import recorded
from esr.show.tables import where
from esr.store import Store
from esr.types import BASELINE

FIRST = "first_score_mean"
NAMES = {
    FIRST: ("first score", "first score"),
    "multi_attempt_rate": ("multi-attempt", "multi"),
    "improvement_rate": ("improvement", "improvement"),
    "esr_rate": ("ESR", "ESR"),
}
NOTE = words.NOTE


def header(shown: tuple[str, ...]) -> tuple[str, ...]:
    """The columns, where an experiment shows these metrics."""
    values = [NAMES[name][0] for name in dict.fromkeys((FIRST, *shown))]
    against = "baseline" if shown == SHOWN else "its pair"
    return ("arm", "n", "missing", *values, *(f"{NAMES[name][1]} − {against}" for name in shown))


SHOWN = ("multi_attempt_rate", "esr_rate")
"""Of most experiments, whose arms are held against the baseline."""
HEADER = header(SHOWN)


@dataclass(frozen=True, slots=True)
class Line:
    """One arm; without a graded trial it has no numbers."""

    key: str
    missing: int
    counted: Counted | None
    shown: tuple[str, ...] = SHOWN

    def cells(self) -> list[str]:
        one = self.counted
        held = one.differences if one else {}
        known = one.estimates if one else {}
        return [
            self.key,
            f"{one.n if one else 0:,}",
            f"{self.missing:,}",
            *(words.estimate(known.get(name)) for name in dict.fromkeys((FIRST, *self.shown))),
            *(words.difference(held.get(name)) for name in self.shown),
        ]


def lines(store: Store, params: Params, experiment: Experiment, chosen: Selection) -> list[Line]:
    """The baseline and the experiment's arms, in their order."""
    beside = tuple(dict.fromkeys((BASELINE.key, *chosen.beside))) if chosen.experiment != BASELINE.experiment else chosen.beside
    wide = replace(chosen, beside=beside[:1])
    found = {one.arm.key: one for one in arms(recorded(store, params, experiment, wide))} if _graded(store, wide) else {}
    condition, asked = where(wide)
    rows = store.sql(
        "select s.experiment || '/' || s.arm as key, s.n_missing from summary s join current_arms a using (experiment, model, arm, scale) "
        f"where {condition} order by key != '{BASELINE.key}', s.experiment, a.kind, a.place, s.arm",
        asked,
    ).to_pylist()
    return [Line(row["key"], int(row["n_missing"]), found.get(row["key"]), experiment.shown) for row in rows]


def _graded(store: Store, chosen: Selection) -> bool:
    condition, asked = where(chosen, own_alone=True)
    return bool(store.sql(f"select 1 from outcomes where {condition} limit 1", asked).num_rows)


def markdown(found: list[Line]) -> str:
    names = header(found[0].shown) if found else HEADER
    rows = [names, tuple("---" for _ in names), *(line.cells() for line in found)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n{NOTE}"
