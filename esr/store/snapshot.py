"""A store that many questions are put to and that changes rarely: the views that cost most are worked out once for each state of it."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from esr.remote import mirror
from esr.store import Store
from esr.store.query import Ask, asking

VIEWS = ("current_members", "current_arms", "outcomes", "summary")
PATIENCE = 4.0
"""A state is shown for so many times as long as it took to work out, while others write."""


class Snapshot(Store):
    """Reads as any store does, of a state that may be some seconds old while a run writes."""

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root)
        self._known: dict[str, pa.Table] = {}
        self._state, self._until = "", 0.0
        self._making = threading.Lock()
        self._held: Ask | None = None

    def sql(self, query: str, params: Sequence[object] = (), *, as_of: datetime | None = None) -> pa.Table:
        """`as_of`: of the store itself; what was worked out once is as of now."""
        if as_of is not None:
            return super().sql(query, params, as_of=as_of)
        with self.asking() as ask:
            return ask(query, params)

    @contextmanager
    def asking(self) -> Iterator[Ask]:
        """Several questions to one state."""
        if self._held is not None:
            yield self._held
            return
        with asking(self.root, self._current()) as ask:
            yield ask

    @contextmanager
    def held(self) -> Iterator[None]:
        """All questions until the end, of one thread, are put to the state of now, without looking again what the store holds."""
        with asking(self.root, self._current()) as self._held:
            try:
                yield
            finally:
                self._held = None

    def state(self) -> str:
        """Changes when what is shown does."""
        now = stamp(self.root)
        return now if not self._state or time.monotonic() >= self._until else self._state

    def _current(self) -> dict[str, pa.Table]:
        with self._making:
            if (now := self.state()) != self._state:
                began = time.monotonic()
                with asking(self.root) as ask:
                    self._known = {view: _compact(ask(f'from "{view}"')) for view in VIEWS}
                took = time.monotonic() - began
                self._state, self._until = now, time.monotonic() + PATIENCE * took
            return self._known


def stamp(root: Path) -> str:
    """Changes whenever something is written: the times of the folders into which new shards and figures are renamed."""
    mirror.refresh(root)
    times = []
    for folder in (root / "shards", root / "figures"):
        if folder.is_dir():
            times.append(folder.stat().st_mtime_ns)
            times += [one.stat().st_mtime_ns for one in sorted(folder.iterdir()) if one.is_dir()]
    return f"{hash(tuple(times)) & (1 << 64) - 1:016x}"


def _compact(table: pa.Table) -> pa.Table:
    """Texts that are the same in many rows are kept once."""
    columns = [
        column.combine_chunks().dictionary_encode() if pa.types.is_string(column.type) and name != "trial_id" else column
        for name, column in zip(table.schema.names, table.columns, strict=True)
    ]
    return pa.table(columns, names=table.schema.names)
