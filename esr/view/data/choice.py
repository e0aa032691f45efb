"""What an address says, and whose results are meant by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from esr.errors import DataError
from esr.store import Ask

Address: TypeAlias = Mapping[str, str]
"""What stands behind the `?` of a page's address."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Whose results a page shows."""

    model: str
    scale: str
    judge: str
    experiment: str = ""
    """Empty: every experiment."""

    def where(self, row: str = "") -> tuple[str, list[object]]:
        """A condition over rows with these columns but the judge, which members do not have."""
        asked = {"model": self.model, "scale": self.scale, **({"experiment": self.experiment} if self.experiment else {})}
        prefix = f"{row}." if row else ""
        return " and ".join(f"{prefix}{name} = ?" for name in asked), list(asked.values())


def need(address: Address, name: str) -> str:
    """What the address has to say."""
    if not address.get(name):
        raise DataError(f"the address names no {name}; it should hold {name}=…")
    return address[name]


def choice(ask: Ask, address: Address) -> Choice:
    """From an address that may leave out the scale (full) and the judge (the one with most grades of it)."""
    model, scale, experiment = need(address, "model"), address.get("scale") or "full", address.get("experiment") or ""
    judge = address.get("judge") or ""
    if not judge:
        also = " and experiment = ?" if experiment else ""
        rows = ask(
            f"select judge, count(*) as n from judged where model = ? and scale = ?{also} group by judge order by n desc, judge limit 1",
            [model, scale, *([experiment] if experiment else [])],
        ).to_pylist()
        judge = str(rows[0]["judge"]) if rows else ""
    return Choice(model, scale, judge, experiment)
