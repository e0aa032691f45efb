"""The figures, drawn from exported results: PDF, PNG, a JSON of every number drawn, and the table of numbers behind it.

figures.draw(store, params, "exp05", "tiny", "lexical")      # export, then draw; the paths, PNG first
figures.redraw([Path("store/export/exp01/tiny")], folder)    # from exported files alone, as `dvc repro` does
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from esr import export
from esr.errors import DataError, one_of
from esr.export import Recorded
from esr.figures import gains, rates, scores, style, sweep
from esr.params import Params
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
        raise DataError(one_of("figure", experiment, list(ONE), "esr.figures"))
    found = export.recorded(store, params, experiment, model, judge)
    folder = export.place(store.root, params, experiment, model, judge)
    export.write(found, folder)
    export.stamp(found, store.root / "recorded" / f"{experiment}-{folder.name}.json")
    return redraw([folder], store.root / "figures")


def redraw(folders: Sequence[Path], into: Path) -> list[Path]:
    """The figure of one export, or of several models' exports of one experiment."""
    found = sorted((export.read(folder) for folder in folders), key=lambda r: SIZES.index(r.model) if r.model in SIZES else 99)
    names = {r.experiment for r in found}
    if len(names) != 1:
        raise DataError(f"one figure shows one experiment and was given {', '.join(sorted(names)) or 'none'}")
    experiment = names.pop()
    shapes: dict[str, Any] = MANY if len(found) > 1 else ONE
    if experiment not in shapes:
        raise DataError(one_of("figure", experiment, list(shapes), "esr.figures"))
    figure, data = shapes[experiment](found if len(found) > 1 else found[0])
    name = f"{experiment}-{folders[0].name if len(found) == 1 else 'models'}"
    files = style.save(figure, data, into, name)
    return [*files, *_numbers(found[0], into, name)] if len(found) == 1 else files


def _numbers(found: Recorded, into: Path, name: str) -> list[Path]:
    """The number table, and the same without intervals for `dvc metrics`."""
    counted = export.arms(found)
    table, metrics = into / f"{name}.csv", into / f"{name}.metrics.json"
    table.write_text(export.numbers(counted), encoding="utf-8")
    metrics.write_text(json.dumps(export.headline(counted), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return [table, metrics]
