"""The authors' result files, read into rows. docs/reference-import.md says what becomes of every case.

for path in found(folder):
    file = File(folder, path, names)        # what it is, from one pass over it
    for rows in file.batches(): …           # {table: rows}, from a second; memory stays bounded
    file.problems                           # what could not be used, and why

A file that is not JSON, or not of these kinds, raises DataError from `File` and gives no rows.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from esr.errors import DataError
from esr.reference import archive, others, places, stream
from esr.reference import names as naming
from esr.reference.names import Names
from esr.reference.results import Context, Rows, feature_rows
from esr.reference.scores import Row, number, whole, words

__all__ = ["Batch", "File", "Names", "found"]

Batch = dict[str, list[Row]]
"""Rows by table."""

ROWS = 4000
"""Rows of a batch, at least; a latent's rows stay together."""

KEPT = (
    "experiment_config", "experiment_metadata", "boost_levels", "n_boost_levels", "boost_range_std", "threshold_cache_stats",
    "ablated_latents", "rejudge_history",
)  # fmt: skip
"""What result files say of themselves; kept in `findings`."""


def found(folder: Path) -> list[Path]:
    """Every file below `folder`, or the file itself, sorted; hidden ones are passed over."""
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise DataError(f"asked to import {str(folder)!r} and there is no such folder; give the one that holds the result files")
    out = []
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        out += [Path(at) / name for name in files if not name.startswith(".")]
    return sorted(path for path in out if path.is_file())


class File:
    """One of the authors' files."""

    def __init__(self, folder: Path, path: Path, names: Names, scale: str = "full") -> None:
        self.path, self.names, self.scale = path, names, scale
        self.name = words(str(path.relative_to(folder)) if path != folder else path.name)
        """Path below the folder; what is not UTF-8 in it becomes the replacement character."""
        self.cut: str | None = None
        """Why only its whole entries are taken; None: it is whole."""
        self.n = 0
        """Entries of its long lists."""
        try:
            with path.open("rb") as file:
                self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            self.kind, head = self._survey()
        except OSError as error:
            raise DataError(f"it cannot be read: {error.strerror or error}") from None
        self.about = self._context(head)
        self._head = head

    @property
    def problems(self) -> list[str]:
        told = [f"{what} ({n})" if n > 1 else what for what, n in self.about.problems.items()]
        place = self.about.place
        if self.kind == "results" and place.why:
            told.insert(0, f"its trials stand under {place.experiment}/{place.arm}: {place.why}")
        return [self.cut, *told] if self.cut else told

    def _survey(self) -> tuple[str, dict[str, Any]]:
        """What the file is, and all of it but its long list."""
        if self.path.suffix == ".npz":
            if "activation_stats" not in self.path.parts:
                raise DataError("it is not one of the authors' files: an archive outside activation_stats")
            return "episode_activations", {}
        if self.path.suffix != ".json":
            raise DataError("it is not a JSON file")
        head: dict[str, Any] = {}
        try:
            for key, value in stream.entries(self.path):
                if head.get(key) is stream.LIST:
                    self.n += 1
                else:
                    head[key] = value
        except stream.NotJson as error:
            self._cut_or_foreign(error, head)
        kind = others.kind(self._place, head)
        if kind is None:
            raise DataError("it is JSON and not one of the authors' result files")
        return kind, head

    def _cut_or_foreign(self, error: stream.NotJson, head: Mapping[str, Any]) -> None:
        """A run that hit its time limit may leave a file cut off: its whole latents are taken, when the name says so."""
        if not (error.cut and "TIMEOUT" in self.path.stem and self.n and "experiment_config" in head):
            raise DataError(f"it is not JSON: {error}") from None
        self.cut = f"the file is cut off ({error}): its {self.n} whole latents are taken and the rest is lost"

    @property
    def _place(self) -> PurePath:
        return PurePath(words(str(self.path.absolute())))

    def _context(self, head: Mapping[str, Any]) -> Context:
        path = self._place
        config = head.get("experiment_config")
        config = config if isinstance(config, Mapping) else {}
        told = naming.judge_folder(path) or naming.folded(str(config.get("judge_model_name") or "unknown"))
        judge = others.regrader(path, head, self.names) if self.kind == "regraded" else self.names.judge(told)
        ablated = head.get("ablated_latents")
        latents = [k for item in ablated if (k := whole(item)) is not None] if isinstance(ablated, list) else []
        return Context(
            sha256=self.sha256,
            place=places.place(path, head, self.names, places.beside(self.path)),
            judge=judge,
            scale=self.scale,
            written=naming.written(path),
            ablated=sorted(set(latents)),
            target=number(config.get("target_score_normalized")),
            names=self.names,
        )

    def batches(self) -> Iterator[Batch]:
        """All rows, in batches."""
        batch: Batch = {}
        n = 0
        for rows in self._groups():
            for table, row in rows:
                batch.setdefault(table, []).append(row)
                n += 1
            if n >= ROWS:
                yield batch
                batch, n = {}, 0
        if batch:
            yield batch

    def _groups(self) -> Iterator[Rows]:
        """Rows that belong together, one latent or one entry at a time."""
        about, head = self.about, self._head
        if self.kind == "results":
            yield others.findings(about, "results", {key: head[key] for key in KEPT if head.get(key) is not None})
            for i, feature in enumerate(self._items("results_by_feature")):
                yield feature_rows(about, i, feature)
        elif self.kind == "regraded":
            yield others.findings(about, "regraded", {key: value for key, value in head.items() if value is not stream.LIST})
            for i, item in enumerate(self._items("results")):
                yield others.regraded(about, self._place, i, item)
        else:
            yield self._small()

    def _small(self) -> Rows:
        about, head, path = self.about, self._head, self.path
        if self.kind == "threshold_cache":
            return others.threshold_cache(about, self._place, head)
        if self.kind == "detectors":
            return others.detectors(about, self._place, head)
        if self.kind == "sequential_activations":
            return others.sequential(about, head)
        if self.kind == "episode_activations":
            return archive.rows(about, path, self._place.stem)
        if self.kind == "episodes":
            return others.findings(about, self._place.stem, others.episodes(self._items("")))
        whole_head = {key: list(self._items(key)) if value is stream.LIST else value for key, value in head.items()}
        return others.findings(about, self.kind if self.kind != "activation_stats" else self._place.stem, whole_head)

    def _items(self, wanted: str) -> Iterator[object]:
        return (value for key, value in self._entries() if key == wanted and value is not stream.LIST)

    def _entries(self) -> Iterable[tuple[str, object]]:
        try:
            yield from stream.entries(self.path)
        except stream.NotJson:
            if not self.cut:
                raise DataError(f"{self.name} changed while it was read; import it again") from None
