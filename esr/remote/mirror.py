"""This machine's copy of a bucket's files: what others wrote is fetched before it is asked for, what is written here is sent at once.

Files never change once written, so a copy is the bucket's or it is not there. `mirror.json` says whose copy a folder is,
`mirror.shared` which files both have had: one of them that the bucket has no more was taken away there, any other one is still to be
sent. While the bucket does not answer, work goes on here, and what was kept is sent as soon as it does.
"""

import hashlib
import json
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from esr import params
from esr.errors import StoreError
from esr.remote.bucket import Bucket, Unreachable
from esr.whole import place

log = logging.getLogger(__name__)

FOLDER = "shards"
"""Of a store, with files that never change."""
FRESH, SHARE = 1.0, 10.0
"""Seconds for which a copy is new enough, and at least so many times as long as it took to look."""
PAUSE = 10.0
"""Seconds until a bucket that did not answer is asked again."""
AT_ONCE = 8

_open: dict[tuple[str, Path], "Mirror"] = {}
_opening = threading.Lock()


def of(root: Path) -> "Mirror | None":
    """The copy that this folder is; None: results are nowhere else."""
    url = params.remote()
    if url is None or root != params.store():
        return None
    with _opening:
        if (url, root) not in _open:
            _open[url, root] = Mirror(root, Bucket(url))
        return _open[url, root]


def refresh(root: Path, *, at_once: bool = False) -> None:
    """What others have written is here, of a second ago or, `at_once`, of now."""
    if (mirror := of(root)) is not None:
        mirror.refresh(at_once=at_once)


def send(root: Path, path: Path) -> None:
    """What was written here, durable there before this returns unless the bucket does not answer."""
    if (mirror := of(root)) is not None:
        mirror.send(path)


def settle(root: Path) -> None:
    """Everything here is there too, or a StoreError says what is not."""
    if (mirror := of(root)) is not None:
        mirror.settle()


class Mirror:
    def __init__(self, root: Path, bucket: Bucket) -> None:
        self.root, self.bucket = root, bucket
        self._note, self._list = root / "mirror.json", root / "mirror.shared"
        self._shared, self._read = set[str](), 0
        self._until, self._silent, self._ever = 0.0, False, False
        self._lock = threading.RLock()
        self._claim()

    def _claim(self) -> None:
        """A folder becomes a copy when it holds nothing of its own."""
        try:
            whose = json.loads(self._note.read_text())["of"] if self._note.is_file() else None
        except (ValueError, KeyError):
            whose = "another store, by a note that cannot be read"
        if whose == self.bucket.url:
            return
        if whose is not None or any(self._here()):
            raise StoreError(
                f"{str(self.root)!r} holds results of {whose or 'its own'} and cannot be the copy of {self.bucket.url}; set ESR_MIRROR "
                f"to a new folder, and `python -m esr take {self.root}` hands on what is here"
            )
        self.bucket.check()
        self.root.mkdir(parents=True, exist_ok=True)
        place(self._note, json.dumps({"of": self.bucket.url}).encode())

    def refresh(self, *, at_once: bool = False) -> None:
        with self._lock:
            if not at_once and time.monotonic() < self._until:
                return
            began = time.monotonic()
            try:
                self._bring_up_to_date()
            except Unreachable as error:
                self._quiet(error)
                return
            if self._silent:
                log.warning("%s answers again", self.bucket.url)
            self._silent, self._ever = False, True
            self._until = time.monotonic() + max(FRESH, SHARE * (time.monotonic() - began))

    def send(self, path: Path) -> None:
        with self._lock:
            if self._silent and time.monotonic() < self._until:
                return
        try:
            self._sent(path.relative_to(self.root).as_posix())
        except Unreachable as error:
            with self._lock:
                self._quiet(error)

    def settle(self) -> None:
        self.refresh(at_once=True)
        if left := sorted(set(self._here()) - self._known()):
            raise StoreError(
                f"{len(left)} files of results lie in {str(self.root)!r} and not yet in {self.bucket.url}, which does not answer; "
                "nothing is lost, the same line sends them"
            )

    def _quiet(self, error: Unreachable) -> None:
        """A bucket that never answered is a mistake in its name; one that ceased to is waited for."""
        if not self._ever:
            raise error
        if not self._silent:
            log.warning("%s; work goes on, results are kept in %s and sent when it answers", error, self.root)
        self._silent, self._until = True, time.monotonic() + PAUSE

    def _bring_up_to_date(self) -> None:
        shared = set(self._known())  # before looking there: what is in it and is not seen there is gone
        there = self.bucket.objects(f"{FOLDER}/")
        here = set(self._here())
        for name in sorted((here & shared) - set(there)):
            self._withdraw(name)
        lacking = sorted(name for name in there if name not in here and _plain(name))
        unsure = sorted((here & set(there)) - shared)
        unsent = sorted(here - set(there) - shared)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._fetch, lacking))
            list(pool.map(lambda name: self._agree(name, there[name].etag), unsure))
            list(pool.map(self._sent, unsent))

    def _here(self) -> list[str]:
        try:
            tables = [entry for entry in os.scandir(self.root / FOLDER) if entry.is_dir()]
        except FileNotFoundError:
            return []
        names = (f"{FOLDER}/{table.name}/{entry.name}" for table in tables for entry in os.scandir(table.path) if entry.is_file())
        return [name for name in names if _plain(name)]

    def _known(self) -> set[str]:
        """Of every process of this machine."""
        with self._lock, suppress(FileNotFoundError), self._list.open("rb") as file:
            file.seek(self._read)
            if end := (new := file.read()).rfind(b"\n") + 1:
                self._shared |= set(new[:end].decode().splitlines())
                self._read += end
        return self._shared

    def _share(self, name: str) -> None:
        with self._list.open("ab", buffering=0) as file:
            file.write(f"{name}\n".encode())

    def _fetch(self, name: str) -> None:
        try:
            content = self.bucket.read(name)
        except FileNotFoundError:  # taken away since
            return
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        place(path, content)
        self._share(name)

    def _sent(self, name: str) -> None:
        try:
            content = (self.root / name).read_bytes()
        except FileNotFoundError:  # withdrawn since
            return
        if self.bucket.new(name, content) is not None:
            self._share(name)
        elif (found := self.bucket.find(name)) is not None:
            self._agree(name, found.etag)

    def _agree(self, name: str, etag: str) -> None:
        """The bucket's stands. Another of the same name here was written while the bucket did not answer."""
        path = self.root / name
        with suppress(FileNotFoundError):  # withdrawn since, here or there
            ours = path.read_bytes()
            if etag.strip('"') != hashlib.md5(ours, usedforsecurity=False).hexdigest():
                content = self.bucket.read(name)
                if content != ours:
                    place(path, content)
                    (self.root / "esr.duckdb").unlink(missing_ok=True)  # it may have taken in the other
            self._share(name)

    def _withdraw(self, name: str) -> None:
        """Somebody took it out of the bucket; here it is kept where nobody reads it."""
        away = self.root / "withdrawn" / name
        away.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.replace(self.root / name, away)
            log.warning("%s is no longer in %s; it is kept in %s and not read", name, self.bucket.url, away)


def _plain(name: str) -> bool:
    """A file of a table, whatever else lies in a bucket."""
    parts = name.split("/")
    return len(parts) == 3 and not any(part.startswith(".") or not part for part in parts)
