"""What latents are said to stand for: a CSV with the columns index_in_sae and label, and perhaps concreteness, 0 to 100."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path

from esr.errors import SaeError
from esr.params import resolve
from esr.types import Latent
from esr.whole import place

COLUMNS = ("index_in_sae", "label")
RATING = "concreteness"


def labels_file(store: Path, labels: str) -> Path:
    """Where the labels lie that params.yaml names: in the store when they are there, else in the checkout."""
    inside = store / labels
    return inside if inside.is_file() else resolve(labels)


def read_labels(path: Path, *, d_sae: int | None = None) -> list[Latent]:
    """Latents in the order of their index; latents without a line or with an empty label are not in it."""
    if not path.is_file():
        raise SaeError(f"no labels at {str(path)!r}; a CSV with the columns {', '.join(COLUMNS)} would do")
    try:
        labels = _read(path, d_sae)
    except UnicodeDecodeError as error:
        raise SaeError(f"{path.name} is not UTF-8 near byte {error.start}; save it as UTF-8") from None
    except csv.Error as error:
        raise SaeError(f"{path.name} cannot be read as CSV: {error}; a quotation mark may be missing") from None
    except OSError as error:
        raise SaeError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
    return [Latent(index, label) for index, label in sorted(labels.items()) if label]


def read_ratings(path: Path) -> dict[int, float]:
    """How concrete the file says its labels are, by latent; none where it has no such column."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if RATING not in (rows.fieldnames or ()):
                return {}
            return {
                _index(row["index_in_sae"], f"{path.name} line {rows.line_num}", None): _rating(
                    row[RATING], f"{path.name} line {rows.line_num}"
                )
                for row in rows
                if (row[RATING] or "").strip()
            }
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}  # what is wrong with the file is said where its labels are read


def _rating(text: str, where: str) -> float:
    try:
        rating = float(text)
    except ValueError:
        rating = -1.0
    if not 0 <= rating <= 100:
        raise SaeError(
            f"{where}: {RATING} is {text!r:.80}, not a number from 0 to 100; leave it empty where nobody has rated the label"
        )
    return rating


def write_labels(path: Path, labels: Mapping[int, str]) -> None:
    place(path, table(COLUMNS, sorted(labels.items())))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """As CSV."""
    text = StringIO(newline="")
    out = csv.writer(text, lineterminator="\n")
    out.writerow(columns)
    out.writerows(rows)
    return text.getvalue()


def _read(path: Path, d_sae: int | None) -> dict[int, str]:
    labels: dict[int, str] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if not set(COLUMNS) <= set(rows.fieldnames or ()):
            raise SaeError(
                f"{path.name} has the columns {', '.join(rows.fieldnames or ()) or 'none'}; it needs {' and '.join(COLUMNS)}"
            )
        for row in rows:
            index, label = _index(row["index_in_sae"], f"{path.name} line {rows.line_num}", d_sae), (row["label"] or "").strip()
            if index in labels and labels[index] != label:
                raise SaeError(f"{path.name} labels latent {index} twice, {labels[index]!r:.80} and {label!r:.80}")
            labels[index] = label
    return labels


def _index(text: str | None, where: str, d_sae: int | None) -> int:
    try:
        index = int(text or "")
    except ValueError:
        raise SaeError(f"{where}: index_in_sae is {text!r:.80}, not a number") from None
    if index < 0 or (d_sae is not None and index >= d_sae):
        raise SaeError(f"{where}: latent {index} is not among the SAE's {d_sae if d_sae is not None else 'non-negative'}")
    return index
