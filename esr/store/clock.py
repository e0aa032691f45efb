"""Times that only grow within a store: what is recorded now is newer than all that is durable, whatever the machine's clock says."""

import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from esr.store import shards

log = logging.getLogger(__name__)

TICK = timedelta(microseconds=1)
LAST = datetime.max.replace(tzinfo=UTC) - timedelta(days=365)
"""A later time is none."""
AHEAD = timedelta(minutes=1)
"""How far the store may be ahead of the machine's clock before it is said."""


def _machine() -> datetime:
    return datetime.now(UTC)


class Clock:
    """By table, the time of what is recorded next: the machine's, or just after the newest shard's where that lies ahead."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[str, set[str]] = {}
        self._newest: dict[str, datetime] = {}
        self._said = False
        self._lock = threading.Lock()

    def now(self, table: str) -> datetime:
        with self._lock:
            read = self._read.setdefault(table, set())
            for name, path in shards.files(self.root, table).items():
                if name not in read:
                    read.add(name)
                    shard = shards.inspect(table, path)
                    if shard is not None and (at := _time(shard.written)) is not None:
                        self._newest[table] = max(at, self._newest.get(table, at))
            at, newest = _machine(), self._newest.get(table)
            if newest is not None and newest >= at:
                self._say(table, newest, at)
                at = newest + TICK
            self._newest[table] = at
            return at

    def _say(self, table: str, newest: datetime, at: datetime) -> None:
        if newest - at > AHEAD and not self._said:
            self._said = True
            log.warning(
                "%s of the store were recorded at %s and this machine's clock says %s; what is recorded now counts as newer and bears a "
                "time just after that, so set the clock right",
                table,
                newest.isoformat(timespec="seconds"),
                at.isoformat(timespec="seconds"),
            )


def _time(written: str) -> datetime | None:
    """None also for the end of all calendars, after which nothing could be recorded."""
    try:
        at = datetime.fromisoformat(written)
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        return at if at < LAST else None
    except (ValueError, OverflowError):
        return None
