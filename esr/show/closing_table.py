"""The table that closes a run: each arm's n, missing, rates with their intervals, and what differs from the baseline in pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from esr.experiment import Experiment, Selection
from esr.params import Params
from esr.show import words
from esr.show.counted import Counted, arms
from esr.show.recorded import recorded
from esr.show.tables import where
from esr.store import Store
from esr.types import BASELINE

SHOWN = ("multi_attempt_rate", "esr_rate")
HEADER = ("arm", "n", "missing", "first score", "multi-attempt", "ESR", "multi − baseline", "ESR − baseline")
NOTE = words.NOTE


@dataclass(frozen=True, slots=True)
class Line:
    """One arm; without a graded trial it has no numbers."""

    key: str
    missing: int
    counted: Counted | None

    def cells(self) -> list[str]:
        one = self.counted
        held = one.differences if one else {}
        known = one.estimates if one else {}
        return [
            self.key,
            f"{one.n if one else 0:,}",
            f"{self.missing:,}",
            words.estimate(known.get("first_score_mean")),
            *(words.estimate(known.get(name)) for name in SHOWN),
            *(words.difference(held.get(name)) for name in SHOWN),
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
    return [Line(row["key"], int(row["n_missing"]), found.get(row["key"])) for row in rows]


def _graded(store: Store, chosen: Selection) -> bool:
    condition, asked = where(chosen, own_alone=True)
    return bool(store.sql(f"select 1 from outcomes where {condition} limit 1", asked).num_rows)


HELD = len(HEADER) - len(SHOWN)
"""Where the columns of differences begin."""


def markdown(found: list[Line]) -> str:
    """Two tables, rates and then differences: in one, the last columns would be cut on a page of usual width."""
    cells = [line.cells() for line in found]
    rates = [row[:HELD] for row in cells]
    held = [[row[0], *row[HELD:]] for row in cells if any(row[HELD:])]
    tables = [(HEADER[:HELD], rates), ((HEADER[0], *HEADER[HELD:]), held)]
    return "\n\n".join([*(_table(header, rows) for header, rows in tables if rows), NOTE])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    marks = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, marks, *rows))
