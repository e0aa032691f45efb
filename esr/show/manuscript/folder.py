"""The folder: figures, tables, numbers.tex, numbers.md, numbers.json, and index.html over them; from exported files alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from esr.errors import DataError
from esr.show import detector_table, figures, recorded
from esr.show.manuscript import detectors, page, written
from esr.show.manuscript import tables as closing
from esr.show.manuscript.exported import Exported, absent, every
from esr.show.manuscript.numbers import Number, of_arms, of_drawing, of_table

NAME = "paper"
"""Of the folder, in the store."""


@dataclass
class Gathered:
    """What stands in the folder, by its path there."""

    files: dict[str, bytes] = field(default_factory=dict)
    numbers: list[Number] = field(default_factory=list)
    shown: list[page.Shown] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def write(root: Path, into: Path | None = None, left: Mapping[str, str] = MappingProxyType({})) -> Path:
    """Of everything exported in the store at `root`; the page. `left` could not be exported. What an earlier writing made and this one
    does not, goes."""
    into = into or root / NAME
    found = every(root)
    if not found:
        raise DataError(
            f"no experiment of full scale is exported in {str(root / 'export')!r}; `python -m flows exp01 tiny` runs one, or correct ESR_STORE"
        )
    gathered = Gathered(left_out=dict(left))
    for one in found:
        try:
            _one(one, root, gathered)
        except DataError as error:
            gathered.left_out[f"{one.experiment.name} on {one.title}"] = str(error)
    _together(found, root, gathered)
    gathered.left_out |= absent(found, root)
    told, without = gathered.numbers, gathered.left_out
    gathered.files["numbers.tex"] = written.tex(written.macros(told)).encode()
    gathered.files["numbers.md"] = written.markdown(told, without).encode()
    gathered.files["index.html"] = page.html(gathered.shown, told, without).encode()
    gathered.files["numbers.json"] = written.as_json(told, without, list(gathered.files)).encode()
    _put(into, gathered.files)
    return into / "index.html"


def _one(one: Exported, root: Path, gathered: Gathered) -> None:
    """An experiment on a model: its figures, its numbers, its tables."""
    drawn = figures.redraw([one.folder], root / "figures", ordered=False)
    files = {f"figures/{file.name}": file.read_bytes() for file in drawn}
    place, title = (one.experiment.name, one.title), one.title
    own: list[Number] = []
    if (table := root / "figures" / f"{one.stem(one.experiment.name)}.csv") in drawn:
        own += of_arms(table.read_text(encoding="utf-8"), one.about, title)
    pictures = []
    for name in one.experiment.drawings():
        data = json.loads(files[f"figures/{one.stem(name)}.json"])
        own += of_drawing(data, place)
        pictures.append(page.Picture(data["title"], f"figures/{one.stem(name)}", one.drawn_by()))
    extra = _extra(one)
    gathered.left_out |= {f"{name} of {one.experiment.name} on {title}": why for name, why in _lacking(one, extra).items()}
    for name, kept in extra.items():
        own += of_table(kept, (*place, name))
        files[f"tables/{one.experiment.name}-{title}-{name}.csv"] = kept.to_csv(
            index=False, float_format="%.9g", lineterminator="\n"
        ).encode()
    found = detectors.rows(extra[detectors.NAME]) if detectors.NAME in extra else []
    if found:
        own += detectors.numbers(found, (*place, detectors.NAME))
        stem = f"tables/{one.experiment.name}-{title}-{detectors.NAME}"
        files[f"{stem}.md"] = f"{detector_table.markdown(found)}\n{detectors.caption(found)}\n".encode()
        files[f"{stem}.tex"] = detector_table.latex(found).encode()
    rows = closing.rows(own)
    if rows:
        files[f"tables/{one.experiment.name}-{title}.md"] = closing.markdown(rows).encode()
        files[f"tables/{one.experiment.name}-{title}.tex"] = closing.tex(rows).encode()
    gathered.files |= files
    gathered.numbers += own
    tables = [name for name in files if name.startswith("tables/")] + [
        name for name in files if name.endswith(".csv") and name[0] == "f"
    ]
    captioned = ((detectors.caption(found), detector_table.cells(found)),) if found else ()
    gathered.shown.append(page.Shown(one, tuple(pictures), rows, tuple(tables), captioned=captioned))


def _extra(one: Exported) -> dict[str, pd.DataFrame]:
    """Its exported tables beside the outcomes, as far as they hold anything."""
    return {name: rows for name, rows in recorded.read(one.folder).tables.items() if name != "outcomes" and len(rows)}


def _lacking(one: Exported, extra: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Its tables that are not there, each with the reason."""
    names = [table.name for table in one.experiment.tables if table.name != "outcomes" and table.name not in extra]
    there = one.about["tables"]
    return {
        name: "none is recorded" if name in there else f"exported before there was such a table; `{one.line()}` exports it"
        for name in names
    }


def _together(found: Sequence[Exported], root: Path, gathered: Gathered) -> None:
    """Models side by side, where an experiment was run on several under the same conditions and has such a figure."""
    for name in dict.fromkeys(one.experiment.name for one in found):
        some = [one for one in found if one.experiment.name == name and one.usual]
        drawings = (
            {stem: figure.several for stem, figure in some[0].experiment.drawings().items() if figure.several} if some else {}
        )
        if len(some) < 2 or not drawings:
            continue
        for file in figures.redraw([one.folder for one in some], root / "figures", ordered=False):
            gathered.files[f"figures/{file.name}"] = file.read_bytes()
        line = f"python -m esr.show.figures draw {name} {' '.join(str(one.about['model']) for one in some)}"
        pictures = []
        for stem in drawings:
            data: dict[str, Any] = json.loads(gathered.files[f"figures/{stem}-models.json"])
            pictures.append(page.Picture(data["title"], f"figures/{stem}-models", line))
        first = next(i for i, one in enumerate(gathered.shown) if one.exported.experiment.name == name)
        gathered.shown.insert(first, page.Shown(some[0], tuple(pictures), [], (), tuple(some)))


def _put(into: Path, files: dict[str, bytes]) -> None:
    before = into / "numbers.json"
    if into.exists() and not before.is_file() and any(into.iterdir()):
        raise DataError(f"{str(into)!r} holds files and is no folder of figures and numbers; name another one, or empty it")
    old = set(json.loads(before.read_text(encoding="utf-8"))["files"]) if before.is_file() else set()
    for name, data in files.items():
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        recorded.replace(into / name, data)
    for name in sorted(old - set(files)):
        (into / name).unlink(missing_ok=True)


def summary(into: Path) -> str:
    """What stands in the folder, counted."""
    told = json.loads((into / "numbers.json").read_text(encoding="utf-8"))
    figures = sum(name.endswith(".pdf") for name in told["files"])
    tables = sum(name.startswith("tables/") for name in told["files"])
    return f"{figures} figures, {tables} tables, {len(told['macros']):,} macros; {len(told['left_out'])} not run or left out"
