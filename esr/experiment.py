"""What an experiment says of itself, once; whatever lists experiments asks here.

A file exp*.py in flows/, or in a folder that $ESR_EXPERIMENTS names, holds an EXPERIMENT and a flow of the same name. This
module finds the files and knows none of them by name.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from esr.errors import ParamsError, one_of
from esr.params import HOME, Params, Settings
from esr.params.places import experiments
from esr.types import BASELINE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Canvas

    from esr.show.recorded import Recorded
    from esr.store import Store

    Drawing: TypeAlias = tuple[Canvas, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Size:
    """How much an experiment makes of its own, at most; some of it may be another's, and then it is there already."""

    arms: int
    trials: int
    """Of each arm."""
    grades: int = 0
    """Further grades of replies that are there, by other judges, at most."""
    searched: int = 0
    """Thresholds that it searches besides those of experiment 1's latents."""
    texts: int = 0
    """Texts that a provider writes for it."""
    texts_cost: float | None = 0.0
    """US dollars for all of them, at most; None: the price is unknown."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Whose results are meant."""

    experiment: str
    model: str
    scale: str
    judge: str
    beside: tuple[str, ...] = ()
    """`experiment/arm` of other experiments that the results are held against."""
    engine: str = "vllm"
    """Whose replies they are."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table of what an experiment recorded, exported as `<name>.parquet`."""

    name: str
    read: "Callable[[Store, Selection], pd.DataFrame]"
    """From the store, in a fixed order; raises DataError where there is nothing to show."""


@dataclass(frozen=True, slots=True)
class Several:
    """The same figure where several models are drawn in one."""

    title: str
    draw: "Callable[[Sequence[Recorded], str], Drawing]"
    """Of these models' results, small models first."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of an experiment, drawn from its exported tables alone."""

    title: str
    """`{model}` stands for the model's name."""
    draw: "Callable[[Recorded, str], Drawing]"
    """Of one model's results, under this title."""
    name: str = ""
    """Behind the experiment's name in the file's; empty for the first figure."""
    several: "Several | None" = None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    name: str
    question: str
    """What it asks, as a clause: `how often does a model correct itself while it is steered?`."""
    paper: str
    """Where the paper reports it."""
    size: Callable[[Params], Size]
    settings: type[Settings] | None = None
    """Its block in params.yaml; None: it has no number of its own."""
    searched: Callable[[Params], int] | None = None
    """Of how many latents or directions it searches the thresholds; None: of experiment 1's."""
    directed: bool = False
    """Whether it steers along the model's set of directions, so many as `searched` says, and not along latents."""
    reseeded: bool = False
    """Whether trials that replay experiment 1's have seeds of their own."""
    baseline: bool = True
    """Whether it carries out experiment 1's trials first, to replay them."""
    siblings: bool = False
    """Whether its engine serves further models beside this one, which are known only once it runs."""
    discovery: bool = False
    """Whether it reads the unsteered replies that detectors are found in."""
    named: Callable[[Params], str] | None = None
    """Of trials that params.yaml names one by one, what they are; empty where it names none."""
    shown: tuple[str, ...] = ("multi_attempt_rate", "esr_rate")
    """Metrics of the closing table, each with what differs in pairs."""
    beside: tuple[str, ...] = (BASELINE.key,)
    """Arms of other experiments that its own are drawn and exported with."""
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    endings: tuple[Callable[[Any], object], ...]
    """Tasks that end a run, in this order: what a person looks at."""

    def selection(self, model: str, scale: str, judge: str, engine: str = "vllm") -> Selection:
        return Selection(self.name, model, scale, judge, self.beside, engine)

    def drawings(self) -> Mapping[str, Figure]:
        """Its figures by the name that their files begin with: `exp09`, `exp09-onset`."""
        return {"-".join(filter(None, (self.name, figure.name))): figure for figure in self.figures}


def module(name: str) -> ModuleType:
    """The file of an experiment, imported."""
    files = experiments()
    if name not in files:
        raise ParamsError(one_of("experiment", name, list(files), "flows/"))
    if files[name].parent == HOME / "flows":
        return importlib.import_module(f"flows.{name}")
    return _from(files[name])


def _from(file: Path) -> ModuleType:
    """A file outside the package, as `flows.<name>`, so that tasks and deployments find it by that name."""
    name = f"flows.{file.stem}"
    if name in sys.modules and sys.modules[name].__file__ == str(file):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ParamsError(f"the experiment {file.stem!r} cannot be loaded from {file.name}; it should be a Python file")
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


def find(name: str) -> Experiment:
    """The declaration of an experiment by its name."""
    found = getattr(module(name), "EXPERIMENT", None)
    if not isinstance(found, Experiment) or found.name != name:
        raise ParamsError(f"{experiments()[name].name} should hold an EXPERIMENT named {name!r}, and a flow of that name")
    return found


def known() -> dict[str, Experiment]:
    """Every experiment that can be found, by name."""
    return {name: find(name) for name in experiments()}


def check(params: Params, where: str = "params.yaml") -> None:
    """Every experiment's block in params.yaml has its type."""
    for found in known().values():
        if found.settings is not None:
            params.of(found.settings)
        elif params.experiments.get(found.name):
            raise ParamsError(f"{where}: {found.name} has no settings; take its block out")


def arm_of(key: str) -> tuple[str, str]:
    """`exp01/baseline` as experiment and arm."""
    experiment, _, arm = key.partition("/")
    return experiment, arm


__all__ = ["Experiment", "Figure", "Selection", "Several", "Size", "Table", "arm_of", "check", "find", "known", "module"]
