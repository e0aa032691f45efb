"""Which experiment, which model, which scale: what every task is given, and the bench that it works at."""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from esr import params as parameters
from esr.params import Params, resolve
from esr.params.weights import digest, file_digest
from esr.store import Store
from esr.study.bench import Bench, backend
from esr.types import content_id
from tasks import board


@dataclass(frozen=True)
class Study:
    experiment: str
    model: str
    scale: str
    judge: str
    """Who grades the trials. Calibration always asks the model's own judge, so that two judges grade the same trials."""

    @classmethod
    def of(cls, experiment: str, model: str, scale: str = "full", judge: str | None = None) -> "Study":
        """Names checked before anything is opened or computed."""
        params = parameters.load(model, scale)
        return cls(experiment, model, scale, params.judge(judge or params.model(model).judge).name)

    @cached_property
    def params(self) -> Params:
        return parameters.load(self.model, self.scale)

    @property
    def id(self) -> str:
        """The same for every process that carries out this run, also when it is resumed: max_cost counts over it."""
        return content_id("run", self.experiment, self.params.digest, self.model, self.judge, length=16)

    @property
    def title(self) -> str:
        return f"{self.experiment} on {self.model}, scale {self.scale}, judge {self.judge}"

    def key(self, what: str) -> str:
        """Name of an artifact: lower case, digits and dashes."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.experiment} {self.model} {self.scale} {self.judge} {what}".lower())

    def check(self) -> None:
        """What a long run would otherwise stumble over late: weights, labels, judges and their keys, a store that can be written."""
        self.bench.check([self.judge])

    @property
    def bench(self) -> Bench:
        return _bench(self.params, self.model, Store().root)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the latents, thresholds and detectors of this model depend on; the experiment that asks is not part of it."""
        tree = self.params.model_dump(mode="json")
        model = self.params.model(self.model)
        sae = self.params.sae(model.sae)
        return {
            "model": tree["models"][self.model],
            "weights": self.bench.weights,
            "sae": tree["saes"][model.sae],
            "files": {place: _content(resolve(place)) for place in (sae.repo, sae.labels) if place},
            "judge": tree["judges"][model.judge],
            "engine": backend(),
            **{name: tree[name] for name in ("seed", "protocol", "judging", "exp01", "exp03")},
        }


def _content(path: Path) -> str:
    """Hash of a folder or a file; empty for what lies on the hub, whose name says it."""
    if path.is_dir():
        return digest(path)
    return file_digest(path) if path.is_file() else ""


@lru_cache
def _cached(digest: str, model: str, root: Path) -> list[Bench]:
    return []


def _bench(params: Params, model: str, root: Path) -> Bench:
    """One bench a process for each params, model and store."""
    held = _cached(params.digest, model, root)
    if not held:
        held.append(Bench(params, model, Store(root), tick=board.tick, go_on=board.go_on))
    return held[0]
