"""What each arm adds in lengths of the residual stream, and how long that stream is, where both were measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from esr.experiment import Selection
from esr.store import Store


@dataclass(frozen=True, slots=True)
class Dose:
    """Over an arm's trials."""

    median: float
    low: float
    """The smallest."""
    high: float
    """The largest."""

    def __str__(self) -> str:
        """`0.98 (0.61 to 1.60)`"""
        return f"{self.median:.2f}" + (f" ({self.low:.2f} to {self.high:.2f})" if self.low != self.high else "")


ARMS = """
select experiment || '/' || arm as key, median(dose) as median, min(dose) as low, max(dose) as high from doses
where model = ? and scale = ? and experiment || '/' || arm in (select unnest(?)) group by all having count(dose) = count(*)
"""
STREAM = """
select layer, any_value(norm) as norm, any_value(tokens) as tokens, any_value(replies) as replies from doses
where model = ? and scale = ? and experiment || '/' || arm in (select unnest(?)) and norm is not null group by layer order by layer
"""


def doses(store: Store, chosen: Selection, keys: list[str]) -> dict[str, Dose]:
    """Of these arms, `experiment/arm`; an arm of which something has not been measured is left out."""
    rows = store.sql(ARMS, [chosen.model, chosen.scale, keys]).to_pylist()
    return {row["key"]: Dose(row["median"], row["low"], row["high"]) for row in rows}


def streams(store: Store, chosen: Selection, keys: list[str]) -> list[dict[str, Any]]:
    """After each block that these arms are steered behind: the stream's length, over how many tokens of how many replies."""
    return [dict(row) for row in store.sql(STREAM, [chosen.model, chosen.scale, keys]).to_pylist()]


def said(found: Sequence[Mapping[str, Any]]) -> str:
    """`The residual stream is 98.9 long after block 3 (…)`; empty where it has not been measured."""
    each = [
        f"{one['norm']:.4g} long after block {one['layer']} (median over {one['tokens']:,} tokens of {one['replies']} unsteered replies)"
        for one in found
    ]
    return (
        f"The residual stream is {', '.join(each)}; dose: what is added in that length, median (range) over trials." if each else ""
    )
