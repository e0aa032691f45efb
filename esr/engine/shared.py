"""Models that differ by a LoRA adapter alone share one engine, and each of their requests brings its adapter."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esr.engine import Engine, Output, Reading, Request
from esr.engine.adapter import Adapter

if TYPE_CHECKING:
    from esr.params import Params

SET_APART = ("hub", "revision", "family", "layers", "width", "dtype", "quantization", "max_model_len", "sae", "steer_layer",
             "read_layer", "ablate_layer", "allow_layer_mismatch", "tensor_parallel", "pipeline_parallel")  # fmt: skip
"""Fields of a model's block that make another engine."""


def adapters(params: "Params", model: str) -> list[str]:
    """Of every model of params.yaml that this one can share an engine with, itself included."""
    mine = params.model(model)
    same = [other for other in params.models.values() if all(getattr(other, f) == getattr(mine, f) for f in SET_APART)]
    return sorted({other.adapter for other in same if other.adapter})


def base(params: "Params", model: str) -> "Params":
    """Params in which this model has no adapter of its own."""
    block = params.model(model)
    return params.model_copy(update={"models": {**params.models, model: block.model_copy(update={"adapter": None})}})


def options(folders: Sequence[str]) -> dict[str, Any]:
    """vLLM's options for an engine that serves all of these."""
    from esr.engine.options import lora

    return lora([Adapter.of(folder) for folder in folders])


class Adapted:
    """An engine as one of its models: what a request leaves open is this model's adapter."""

    def __init__(self, engine: Engine, adapter: str) -> None:
        self.engine, self.adapter = engine, adapter

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        return self.engine.generate([self._with(request) for request in requests])

    def read(self, requests: Sequence[Request]) -> list[Reading]:
        return self.engine.read([self._with(request) for request in requests])

    def _with(self, request: Request) -> Request:
        return request if request.adapter else replace(request, adapter=self.adapter)

    def load_directions(self, name: str, path: Path, layer: int | None = None) -> str:
        return self.engine.load_directions(name, path, layer)

    def render(self, prompt: str, prompt_format: str = "clean", prefill: str | tuple[int, ...] = "") -> tuple[int, ...]:
        return self.engine.render(prompt, prompt_format, prefill)

    def offsets(self, token_ids: Sequence[int]) -> list[tuple[int, int]]:
        return self.engine.offsets(token_ids)

    @property
    def fingerprint(self) -> dict[str, str]:
        told = self.engine.fingerprint
        return {
            **told,
            "adapter": self.adapter if told.get("backend") == "fake" else Adapter.of(self.adapter).name,
        }  # no weights, no adapter

    @property
    def closed(self) -> bool:
        return self.engine.closed

    def halt(self) -> None:
        self.engine.halt()

    def close(self) -> None:
        self.engine.close()
