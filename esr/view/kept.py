"""Answers that were given, kept for as long as the store stays as it is."""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from esr.store import Store

LIMIT = 96 << 20
"""Bytes of answers that are kept."""


def stamp(store: Store) -> str:
    """Changes whenever something is written to the store: the times of its folders of shards, which new shards are renamed into."""
    times = []
    for folder in (store.root / "shards", store.root / "figures"):
        if folder.is_dir():
            times.append(folder.stat().st_mtime_ns)
            times += [one.stat().st_mtime_ns for one in sorted(folder.iterdir()) if one.is_dir()]
    return f"{hash(tuple(times)) & (1 << 64) - 1:016x}"


class Kept:
    """JSON by page and address. Each is worked out once, whoever asks for it at the same time."""

    def __init__(self, store: Store, pages: Mapping[str, Any]) -> None:
        self.store, self.pages = store, pages
        self._answers: OrderedDict[tuple[str, tuple[tuple[str, str], ...]], tuple[str, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self._working = threading.Lock()

    def answer(self, name: str, address: Mapping[str, str]) -> bytes:
        key, now = (name, tuple(sorted(address.items()))), stamp(self.store)
        if (found := self._get(key, now)) is not None:
            return found
        with self._working:
            if (found := self._get(key, now)) is not None:
                return found
            told = encoded(self.pages[name](self.store, address))
            self._put(key, now, told)
            return told

    def _get(self, key: tuple[str, tuple[tuple[str, str], ...]], now: str) -> bytes | None:
        with self._lock:
            at, told = self._answers.get(key, ("", b""))
            if at != now:
                return None
            self._answers.move_to_end(key)
            return told

    def _put(self, key: tuple[str, tuple[tuple[str, str], ...]], now: str, told: bytes) -> None:
        with self._lock:
            self._answers[key] = now, told
            while len(self._answers) > 1 and sum(len(told) for _, told in self._answers.values()) > LIMIT:
                self._answers.popitem(last=False)


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")
