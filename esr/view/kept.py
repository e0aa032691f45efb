"""Answers that were given, kept for as long as the store stays as it is."""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias

from esr.store.snapshot import Snapshot

Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
LIMIT = 96 << 20
"""Bytes of answers that are kept."""


class Kept:
    """JSON by page and address. Each is worked out once, whoever asks for it at the same time, and two at once."""

    def __init__(self, store: Snapshot, pages: Mapping[str, Any]) -> None:
        self.store, self.pages = store, pages
        self._answers: OrderedDict[Key, tuple[str, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self._working: dict[Key, threading.Lock] = {}
        self._two = threading.Semaphore(2)

    def answer(self, name: str, address: Mapping[str, str]) -> bytes:
        key, now = (name, tuple(sorted(address.items()))), self.store.state()
        if (found := self._get(key, now)) is not None:
            return found
        with self._lock:
            mine = self._working.setdefault(key, threading.Lock())
        with mine:
            if (found := self._get(key, now)) is not None:
                return found
            with self._two:
                told = encoded(self.pages[name](self.store, address))
            self._put(key, now, told)
        with self._lock:
            self._working.pop(key, None)
        return told

    def _get(self, key: Key, now: str) -> bytes | None:
        with self._lock:
            at, told = self._answers.get(key, ("", b""))
            if at != now:
                return None
            self._answers.move_to_end(key)
            return told

    def _put(self, key: Key, now: str, told: bytes) -> None:
        with self._lock:
            self._answers[key] = now, told
            while len(self._answers) > 1 and sum(len(told) for _, told in self._answers.values()) > LIMIT:
                self._answers.popitem(last=False)


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")
