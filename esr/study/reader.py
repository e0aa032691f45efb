"""A study that notes what a step reads of it: from these notes the step's key follows, and nobody keeps a list of them.

    reader = Reader(study)
    found = calibrate.thresholds(reader, latents)
    reader.read          # {"params/protocol/target": 0.3, "weights": "…", "grader": […], …}

A step that reads the same values does the same again. What is read is a value of params, the content of the weights, the SAE or
the labels, or who judges; engine, store and progress are handles, and how the work is cut (`work`) says nothing about what comes of it.
"""

import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, cast

from esr.params import Block, Params, Settings
from esr.sae.content import content
from esr.study.study import Study
from esr.types import content_id

Json = Any
"""What JSON can hold."""


class Reader:
    """Stands in for a Study; every step takes one for the other."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self.read: dict[str, Json] = {}
        """What has been read by now, by its path."""
        self.store, self.progress = study.store, study.progress

    @classmethod
    def on(cls, study: "Study | Reader") -> "Reader":
        """This reader, or a new one on this study."""
        return study if isinstance(study, Reader) else cls(study)

    def note(self, path: str) -> None:
        if path not in self.read:
            self.read[path] = value(self._study, path)
            if path.startswith("params/models/") and path.endswith("/sae"):
                self.note(f"sae/{self.read[path]}")

    @property
    def params(self) -> Params:
        return cast(Params, _Block(self._study.params, "params", self))

    @property
    def spec(self) -> Any:
        return self.params.model(self.model)

    def __getattr__(self, name: str) -> Any:
        if name in FACTS:
            self.note(name)
        elif name not in HANDLES:
            raise AttributeError(f"a step may not read {name!r} of a study: no key would hold it")
        return getattr(self._study, name)


HANDLES = ("engine", "alone")
"""What a step uses and does not read."""
FACTS: dict[str, Callable[[Study], Json]] = {
    "model": lambda study: study.model,
    "weights": lambda study: study.weights,
    "meaning": lambda study: study.meaning,
    "labels": lambda study: content_id([[latent.index, latent.label] for latent in study.labels]),
    "concreteness": lambda study: study.concreteness,
    "backend": lambda study: study.backend,
    "grader": lambda study: [study.grader.name, study.grader.prompt_hash],
    "rater": lambda study: [study.rater.name, study.rater.prompt_hash],
}
"""What else than params can be read, and what stands for it in a key."""


def value(study: Study, path: str) -> Json:
    """What is at a path now; None where there is nothing any more."""
    if path in FACTS:
        return FACTS[path](study)
    kind, *parts = path.split("/")
    if kind == "sae":
        return _sae(study, parts[0])
    found: Any = study.params
    for part in parts:
        found = found.get(part) if isinstance(found, dict) else getattr(found, part, None)
    return found.model_dump(mode="json") if isinstance(found, Block) else found


def _sae(study: Study, name: str) -> Json:
    """The SAE's block and its content."""
    if name not in study.params.saes:
        return None
    spec = study.params.sae(name)
    return [spec.model_dump(mode="json", exclude={"labels", "neuronpedia"}), content(spec, fetch=study.backend != "fake")]


class _Block:
    """A block of params whose fields are noted when they are read; its methods and properties read through it."""

    def __init__(self, block: Block, path: str, reader: Reader) -> None:
        self._block, self._path, self._reader = block, path, reader

    def __getattr__(self, name: str) -> Any:
        block, path = self._block, f"{self._path}/{name}"
        if name in type(block).model_fields:
            return self._field(getattr(block, name), path)
        member = inspect.getattr_static(type(block), name, None)
        if isinstance(member, property) and member.fget is not None:
            return member.fget(self)
        if isinstance(member, FunctionType):
            return MethodType(member, self)
        if isinstance(member, str):  # what the block is called: the same in every tree
            return member
        raise AttributeError(f"a step may not read {path!r}: no key would hold it")

    def _field(self, found: Any, path: str) -> Any:
        if path == "params/work":
            return found
        if isinstance(found, Block):
            return _Block(found, path, self._reader)
        if isinstance(found, dict) and any(isinstance(inner, Block) for inner in found.values()):
            return {key: _Block(inner, f"{path}/{key}", self._reader) for key, inner in found.items()}
        self._reader.note(path)
        return found

    def of(self, kind: type[Settings]) -> Any:
        """An experiment's block, typed."""
        return _Block(cast(Params, self._block).of(kind), f"{self._path}/experiments/{kind.block}", self._reader)
