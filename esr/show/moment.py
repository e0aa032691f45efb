"""A store at one moment, for what is shown of it in many questions.

Shards are looked for and views are made once, which takes longer than most answers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import pyarrow as pa

from esr.store import Ask, Store


class Moment(Store):
    """Reads as the store does. For one thread and a short while: who asks the store itself meanwhile waits, and reads the shards."""

    def __init__(self, of: Store, ask: Ask) -> None:
        super().__init__(of.root)
        self._ask = ask

    def sql(self, query: str, params: Sequence[object] = (), *, as_of: datetime | None = None) -> pa.Table:
        """`as_of`: of the store itself."""
        return self._ask(query, params) if as_of is None else super().sql(query, params, as_of=as_of)

    @contextmanager
    def asking(self) -> Iterator[Ask]:
        yield self._ask


@contextmanager
def moment(store: Store) -> Iterator[Moment]:
    """The store as it is now, asked with as much memory and as many threads as single questions have."""
    with store.asking() as ask:
        ask("SET memory_limit = '-1'")
        ask("RESET threads")
        yield Moment(store, ask)
