"""One run of an experiment: what every task of it is given."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from esr import experiment as experiments
from esr import params as parameters
from esr.experiment import Experiment, Selection
from esr.judge import Judge
from esr.params import Params
from esr.store import Store
from esr.study import along
from esr.study.along import Made
from esr.study.progress import Progress
from esr.study.study import Study, backend
from esr.types import content_id


class Run:
    """Which experiment, model, scale and judge; how far it is, and what it has drawn.

    The judge grades the trials. Calibration always asks the model's own, so that two judges grade the same trials.
    """

    def __init__(self, experiment: Experiment, params: Params, model: str, judge: str) -> None:
        self.experiment, self.params, self.model, self.judge_name = experiment, params, model, judge
        self.progress = Progress()
        self.pictures: list[Path] = []
        self.along: Made | None = None
        """Directions that are steered in the SAE's place."""
        self.part_of: Run | None = None
        self.flow_run: str | None = None
        """Prefect's id of it."""
        self.row: str | None = None
        """Of it in the store, once it is recorded that it runs."""

    @classmethod
    def of(cls, experiment: str, model: str, scale: str = "full", judge: str | None = None) -> "Run":
        """Names checked before anything is opened or computed."""
        declared, params = experiments.find(experiment), parameters.load(model, scale)
        experiments.check(params)
        backend()
        return cls(declared, params, model, params.judge(judge or params.model(model).judge).name)

    @property
    def scale(self) -> str:
        return self.params.scale

    @cached_property
    def study(self) -> Study:
        found = Study(self.params, self.model, Store(), self.progress, budget=self.id)
        return found if self.along is None else along.along(found, self.along)

    def steered_along(self, made: Made, latents: int, trials_per_latent: int) -> "Run":
        """The same run with a set of directions in the SAE's place, and so many of them."""
        params = along.counted(along.steered(self.params, self.model, made), latents, trials_per_latent)
        other = Run(self.experiment, params, self.model, self.judge_name)
        other.along, other.part_of, other.progress = made, self, self.progress
        other.flow_run, other.row = self.flow_run, self.row
        return other

    def extend(self, params: Params) -> None:
        """From now on with these params, which hold further models of the same engine. One without them makes room: a GPU holds no two."""
        self.study.close()
        self.params, self.study = params, replace(self.study, params=params)

    def close(self) -> None:
        """What served this run alone makes room for the next one's engine."""
        if self.experiment.siblings:
            self.study.close()

    def of_model(self, model: str) -> "Run":
        """The same run's work on another model of its params: one progress, one budget."""
        other = Run(self.experiment, self.params, model, self.judge_name)
        other.progress, other.study = self.progress, replace(self.study, model=model)
        return other

    @property
    def judge(self) -> Judge:
        return self.study.judge(self.judge_name)

    @property
    def id(self) -> str:
        """The same for every process that carries out this run, also when it is resumed: max_cost counts over it."""
        if self.part_of is not None:
            return self.part_of.id
        return content_id("run", self.experiment.name, self.params.digest, self.model, self.judge_name, length=16)

    @property
    def title(self) -> str:
        return f"{self.experiment.name} on {self.model}, scale {self.scale}, judge {self.judge_name}{self._engine}"

    @property
    def _engine(self) -> str:
        """Another engine than vLLM is said."""
        return "" if backend() == "vllm" else f", engine {backend()}"

    @property
    def line(self) -> str:
        """What a person types for the same run."""
        judge = "" if self.judge_name == self.params.model(self.model).judge else f" --judge {self.judge_name}"
        scale = "" if self.scale == "full" else f" --scale {self.scale}"
        return f"python -m flows {self.experiment.name} {self.model}{scale}{judge}"

    @property
    def selection(self) -> Selection:
        return self.experiment.selection(self.model, self.scale, self.judge_name, backend())

    def artifact(self, what: str) -> str:
        """Name of an artifact: lower case, digits and dashes."""
        return re.sub(
            r"[^a-z0-9]+", "-", f"{self.experiment.name} {self.model}{self._engine} {self.scale} {self.judge_name} {what}".lower()
        )

    def check(self) -> None:
        """What a long run would otherwise stumble over late."""
        self.study.check([self.judge_name])

    @contextmanager
    def handed_over(self) -> Iterator[None]:
        """The flow that is called inside carries out this run, and no other that is made of the same words."""
        token = _HANDED.set(self)
        try:
            yield
        finally:
            _HANDED.reset(token)


_HANDED: ContextVar[Run | None] = ContextVar("run", default=None)


def begun(experiment: str, model: str, scale: str, judge: str | None) -> Run:
    """The run that was handed over, or a new one."""
    handed = _HANDED.get()
    return handed if handed is not None else Run.of(experiment, model, scale, judge)
