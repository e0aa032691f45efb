"""A study of one's own as a notebook shows it: a table and a figure of the arms of `esr.study.replays`, which no file declares.

inline.table(study, "mine")       # a pandas DataFrame
inline.figure(study, "mine")      # shown as the last line of a cell; .save("mine.png") keeps it, .canvas is matplotlib's
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from esr.experiment import Experiment, Selection, Size
from esr.show import tables
from esr.show.closing_table import HEADER, Line
from esr.show.counted import arms
from esr.show.figures import rates, style
from esr.show.moment import moment
from esr.show.recorded import Recorded, recorded
from esr.study.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


@dataclass(frozen=True)
class Drawn:
    """A figure that a notebook shows as it is saved, whatever it has been told of matplotlib."""

    title: str
    canvas: "Canvas"
    png: bytes
    """Drawn once: matplotlib lays the same canvas out a little otherwise a second time."""

    def __repr__(self) -> str:
        return f"<figure {self.title!r}>"

    def _repr_png_(self) -> bytes:
        return self.png

    def save(self, file: str | Path) -> Path:
        """As PNG."""
        Path(file).write_bytes(self.png)
        return Path(file)


def table(study: Study, experiment: str, judge: str | None = None) -> pd.DataFrame:
    """A line an arm: n, missing, rates with their intervals, and what differs from the baseline in pairs."""
    found = _recorded(study, experiment, judge)
    known = {one.name: one for one in arms(found)}
    lines = [Line(told["arm"], told["n_missing"], known.get(told["arm"])) for told in found.about["arms"]]
    return pd.DataFrame([line.cells() for line in lines], columns=pd.Index(HEADER)).set_index(HEADER[0])


def figure(study: Study, experiment: str, judge: str | None = None) -> Drawn:
    """First scores and rates of the arms, and the paired difference to the baseline."""
    found = _recorded(study, experiment, judge)
    mark = "" if study.params.scale == "full" else f" ({study.params.scale})"
    title = f"{experiment}: {found.title}{mark}"
    canvas, _ = rates.panels(found, title)
    return Drawn(title, canvas, style.image(canvas, "png"))


def _recorded(study: Study, experiment: str, judge: str | None) -> Recorded:
    chosen = Selection(experiment, study.model, study.params.scale, judge or study.spec.judge, engine=study.backend)
    undeclared = Experiment(
        name=experiment,
        question="",
        paper="",
        size=lambda _: Size(0, 0),
        beside=(),
        tables=(tables.OUTCOMES,),
        figures=(),
        endings=(),
    )
    with moment(study.store) as store:
        return recorded(store, study.params, undeclared, chosen)
