"""The figures, drawn from exported results: PDF, PNG, a JSON of every number drawn, and the table of numbers behind it.

figures.draw(store, params, experiment, chosen)              # export, then draw; the paths, PNG first
figures.redraw([Path("store/export/exp01/tiny")], folder)    # from exported files alone, as `dvc repro` does
"""

import json
from collections.abc import Sequence
from pathlib import Path

from esr import experiment as experiments
from esr.errors import DataError
from esr.experiment import Experiment, Figure, Selection
from esr.params import Params
from esr.show import counted, recorded
from esr.show.figures import style
from esr.show.moment import moment
from esr.show.recorded import Recorded, anew
from esr.store import Store

SIZES = ("tiny-plain", "tiny", "gemma-2b", "8b", "gemma-9b", "gemma-27b", "70b")
"""Models from small to large."""


def draw(store: Store, params: Params, experiment: Experiment, chosen: Selection) -> list[Path]:
    """Export what is recorded and draw it, under the store's export/ and figures/; the figures' files, PNG first."""
    folder = export(store, params, experiment, chosen)
    return redraw([folder], store.root / "figures")


def export(store: Store, params: Params, experiment: Experiment, chosen: Selection) -> Path:
    """The folder into which it is written, with the stamp beside."""
    with moment(store) as now:
        found = recorded.recorded(now, params, experiment, chosen)
    folder = recorded.place(store.root, params, chosen)
    recorded.write(found, folder)
    recorded.stamp(found, store.root / "recorded" / f"{chosen.experiment}-{folder.name}.json")
    return folder


def redraw(folders: Sequence[Path], into: Path, *, ordered: bool = True) -> list[Path]:
    """Every figure of one export, or of several models' exports of one experiment; nothing is drawn where nothing changed.

    `ordered`: files that were not written one after the other are drawn anew. DVC puts whole ones in place in an order of its own.
    """
    names = {folder.parent.name for folder in folders}
    if len(names) != 1:
        raise DataError(f"one figure shows one experiment and was given {', '.join(sorted(names)) or 'none'}")
    found = experiments.find(names.pop())
    whose = folders[0].name if len(folders) == 1 else "models"
    drawings = {name: figure for name, figure in found.drawings().items() if len(folders) == 1 or figure.several}
    if not drawings:
        raise DataError(f"{found.name} has no figure of several models; draw one model at a time")
    files = {name: _files(into / f"{name}-{whose}") for name in drawings}
    numbers = _numbers_of(into / f"{found.name}-{whose}") if len(folders) == 1 and _counts(found) else []
    every = [*(file for some in files.values() for file in some), *numbers]
    if _current(every, folders, ordered):
        return every
    results = sorted((recorded.read(folder) for folder in folders), key=lambda r: SIZES.index(r.model) if r.model in SIZES else 99)
    into.mkdir(parents=True, exist_ok=True)
    for name, figure in drawings.items():
        style.save(*_drawn(figure, results), files[name])
    if numbers:
        _numbers(results[0], *numbers)
    return every


def _drawn(figure: Figure, results: Sequence[Recorded]) -> "experiments.Drawing":
    scales = {str(one.about["scale"]) for one in results} - {"full"}
    mark = f" ({', '.join(sorted(scales))})" if scales else ""  # nobody should take a trial of the machinery for a result
    if len(results) == 1:
        return figure.draw(results[0], figure.title.replace("{model}", results[0].title) + mark)
    if figure.several is None:
        raise AssertionError("a figure of one model was asked to show several")
    return figure.several.draw(results, figure.several.title + mark)


def _counts(experiment: Experiment) -> bool:
    return any(table.name == "outcomes" for table in experiment.tables)


def _files(stem: Path) -> list[Path]:
    """What a drawing leaves, in the order in which it is written."""
    return [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf", "json")]


def _numbers_of(stem: Path) -> list[Path]:
    return [stem.with_name(f"{stem.name}.{kind}") for kind in ("csv", "metrics.json")]


def _current(files: Sequence[Path], folders: Sequence[Path], ordered: bool) -> bool:
    """All are there, written one after the other, after the exports and after the code; so a drawing that was cut off is not."""
    library = Path(__file__).parents[2]
    code = [file for part in ("show", "count") for kind in ("*.py", "*.yaml") for file in (library / part).rglob(kind)]
    sources = [*code, *(file for folder in folders for file in folder.glob("*"))]
    try:
        times = [max(source.stat().st_mtime_ns for source in sources), *(file.stat().st_mtime_ns for file in files)]
    except OSError:
        return False
    return times == sorted(times) if ordered else times[0] == min(times)


def _numbers(found: Recorded, table: Path, metrics: Path) -> None:
    """The number table, and the same without intervals for `dvc metrics`."""
    rows = counted.arms(found)
    anew(table, counted.numbers(rows).encode())
    anew(metrics, (json.dumps(counted.headline(rows), indent=1, sort_keys=True) + "\n").encode())
