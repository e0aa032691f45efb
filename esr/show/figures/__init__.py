"""The figures, drawn from exported results: PDF, PNG, a JSON of every number drawn, and the table of numbers behind it.

figures.draw(store, params, "exp05", "tiny", "lexical")      # export, then draw; the paths, PNG first
figures.redraw([Path("store/export/exp01/tiny")], folder)    # from exported files alone, as `dvc repro` does
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from esr.errors import DataError, one_of
from esr.params import Params
from esr.show import recorded as export
from esr.show.figures import gains, rates, scores, style, sweep
from esr.show.recorded import Recorded
from esr.store import Store

Drawing = tuple[Figure, dict[str, Any]]
SIZES = ("tiny-plain", "tiny", "gemma-2b", "8b", "gemma-9b", "gemma-27b", "70b")
"""Models from small to large."""

ONE: dict[str, Callable[[Recorded], Drawing]] = {
    "exp01": lambda r: gains.rows([r], "baseline", f"Figure 2. Self-correction under steering: {r.model}"),
    "exp02": lambda r: sweep.ladders(r, f"Figure 3. Strength of steering: {r.model}"),
    "exp03": lambda r: rates.panels(r, f"Figure 5. Off-topic detectors held at zero: {r.model}"),
    "exp05": lambda r: rates.panels(r, f"Meta-prompts: {r.model}"),
    "exp08": lambda r: scores.histograms(r, f"Without steering: {r.model}"),
    "exp10": lambda r: rates.panels(r, f"Random latents held at zero: {r.model}"),
}
"""One model's figure of each experiment."""

MANY: dict[str, Callable[[Sequence[Recorded]], Drawing]] = {
    "exp01": lambda some: gains.rows(some, "baseline", "Figure 2. Self-correction under steering, by model"),
    "exp05": lambda some: rates.by_model(some, "self_monitor", "Figure 4. Told to watch itself, by model"),
    "exp08": lambda some: gains.rows(some, "no-steering", "Without steering, by model"),
}
"""Several models in one figure."""


def draw(store: Store, params: Params, experiment: str, model: str, judge: str) -> list[Path]:
    """Export what is recorded and draw it, under the store's export/ and figures/; the figure's files, PNG first."""
    if experiment not in ONE:
        raise DataError(one_of("figure", experiment, list(ONE), "esr.show.figures"))
    found = export.recorded(store, params, experiment, model, judge)
    folder = export.place(store.root, params, experiment, model, judge)
    export.write(found, folder)
    export.stamp(found, store.root / "recorded" / f"{experiment}-{folder.name}.json")
    return redraw([folder], store.root / "figures")


def redraw(folders: Sequence[Path], into: Path) -> list[Path]:
    """The figure of one export, or of several models' exports of one experiment; nothing is drawn where nothing changed."""
    files = _files(folders, into)
    if _current(files, folders):
        return files
    found = sorted((export.read(folder) for folder in folders), key=lambda r: SIZES.index(r.model) if r.model in SIZES else 99)
    names = {r.experiment for r in found}
    if len(names) != 1:
        raise DataError(f"one figure shows one experiment and was given {', '.join(sorted(names)) or 'none'}")
    experiment = names.pop()
    shapes: dict[str, Any] = MANY if len(found) > 1 else ONE
    if experiment not in shapes:
        raise DataError(one_of("figure", experiment, list(shapes), "esr.show.figures"))
    figure, data = shapes[experiment](found if len(found) > 1 else found[0])
    into.mkdir(parents=True, exist_ok=True)
    style.save(figure, data, files[:3])
    if len(found) == 1:
        _numbers(found[0], *files[3:])
    return files


def _files(folders: Sequence[Path], into: Path) -> list[Path]:
    """What a drawing leaves, in the order in which it is written."""
    name = f"{folders[0].parent.name}-{folders[0].name if len(folders) == 1 else 'models'}"
    kinds = ("png", "pdf", "json", "csv", "metrics.json") if len(folders) == 1 else ("png", "pdf", "json")
    return [into / f"{name}.{kind}" for kind in kinds]


def _current(files: Sequence[Path], folders: Sequence[Path]) -> bool:
    """All are there, written one after the other, after the exports and after the code; so a drawing that was cut off is not."""
    library = Path(__file__).parents[2]
    code = [file for part in ("show", "count") for kind in ("*.py", "*.yaml") for file in (library / part).rglob(kind)]
    sources = [*code, *(file for folder in folders for file in folder.glob("*"))]
    try:
        times = [max(source.stat().st_mtime_ns for source in sources), *(file.stat().st_mtime_ns for file in files)]
    except OSError:
        return False
    return times == sorted(times)


def _numbers(found: Recorded, table: Path, metrics: Path) -> None:
    """The number table, and the same without intervals for `dvc metrics`."""
    counted = export.arms(found)
    table.write_text(export.numbers(counted), encoding="utf-8")
    metrics.write_text(json.dumps(export.headline(counted), indent=1, sort_keys=True) + "\n", encoding="utf-8")
