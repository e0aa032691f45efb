"""axolotl's plugin that trains under live steering. Only axolotl imports it, in its own environment."""

from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin
from pydantic import BaseModel
from torch import nn

from esr.tune.live import Distractor


class Steering(BaseModel):
    """The block `live_steering` of a recipe."""

    file: str
    """Directions, relative to the checkout."""
    sha256: str
    """Of the file, cut to 16 digits: other directions make another recipe."""
    layer: int
    doses: tuple[float, float]
    """Lengths of the residual stream."""
    share: float = 1.0
    """Of masked rows that are pushed along their subject; without meaning along latents."""


class Arguments(BaseModel):
    """What a recipe may say besides, once the plugin is named in it."""

    live_steering: Steering


class LiveSteering(BasePlugin):
    def get_input_args(self) -> str:
        return f"{__name__}.{Arguments.__name__}"

    def post_model_load(self, cfg: Any, model: nn.Module) -> None:
        """After the adapter, so that the trainer calls what the hooks are on."""
        told = cfg.live_steering
        low, high = told.doses
        Distractor.of(Path(told.file), told.layer, (low, high), told.share).put_on(model)
