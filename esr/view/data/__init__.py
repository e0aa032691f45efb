"""The data of every page, by the page's name."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from esr.store import Store
from esr.view.data.choice import Address
from esr.view.data.diff import bundled as bundled_diffs
from esr.view.data.diff import diff
from esr.view.data.runs import runs

Told: TypeAlias = Callable[[Store, Address], Any]
"""From the store and what the address says to what JSON can say."""
Answers: TypeAlias = Iterator[tuple[Address, Any]]
"""Addresses, in the order of their text, with what is told at each."""

PAGES: dict[str, Told] = {
    "diff": diff,
    "runs": runs,
}
"""A page may ask for several of them; `/api/NAME?…` gives each."""


def at(page: Told, addresses: Callable[[Store, Sequence[str]], Sequence[Address]]) -> Callable[[Store, Sequence[str]], Answers]:
    """One answer after the other."""
    return lambda store, experiments: ((one, page(store, one)) for one in addresses(store, experiments))


BUNDLED: dict[str, Callable[[Store, Sequence[str]], Answers]] = {
    "diff": bundled_diffs,
    "runs": at(runs, lambda _store, _experiments: [{}]),
}
"""What a bundle of these experiments (none: all) holds of each page."""
