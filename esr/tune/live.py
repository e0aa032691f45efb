"""A distractor in the residual stream while a model is trained: added where the loss counts, as the engine's own `add_norm` adds it.

Each row of a batch draws a direction and a dose of its own, from torch's random stream, which a save keeps: a training that was killed
goes on with the draws that an unbroken one makes. The loss on what is held back is measured without a distractor.
"""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from esr.engine.hf import Part, delta
from esr.engine.scope import Span
from esr.errors import DataError
from esr.sae import Sae
from esr.tune.rows import IGNORED
from esr.types import Latent, Op

ROWS, LATENTS = "rows", "latents"
SET = "live"
"""What the set of directions is called in an op."""


def write(file: Path, sae: Sae, candidates: Iterable[Latent], wanted: int, rng: random.Random) -> list[int]:
    """Decoder rows of latents that are never steered with in an evaluation, at most `wanted`; which they are is written beside them."""
    evaluated = {latent.index for latent in candidates}
    apart = [index for index in range(len(sae.W_dec)) if index not in evaluated and bool(sae.W_dec[index].any())]
    if not apart:
        raise DataError(
            f"every latent of {sae.name!r} may be steered with in an evaluation, so none is left to train against; "
            f"lower protocol.candidates_per_latent, or empty exp04.steered"
        )
    drawn = sorted(rng.sample(apart, min(wanted, len(apart))))
    save_file({ROWS: sae.W_dec[drawn].contiguous(), LATENTS: torch.tensor(drawn)}, file)
    return drawn


class Distractor:
    """What is added after one block of a model that is trained."""

    def __init__(self, rows: Tensor, layer: int, doses: tuple[float, float]) -> None:
        self.rows, self.layer, self.doses = rows.float(), layer, doses
        self.labels: Tensor | None = None
        """Of the batch that is in the model; None where it is not trained on."""

    @classmethod
    def of(cls, file: Path, layer: int, doses: tuple[float, float]) -> "Distractor":
        return cls(load_file(file)[ROWS], layer, doses)

    def put_on(self, model: nn.Module) -> None:
        """On a model as a trainer calls it, with its labels; under peft's hands or bare."""
        bare: Any = model
        if hasattr(bare, "get_base_model"):
            bare = bare.get_base_model()
        model.register_forward_pre_hook(self._begins, with_kwargs=True)
        bare.model.layers[self.layer].register_forward_hook(self._after)

    def _begins(self, model: nn.Module, _: tuple[Any, ...], given: dict[str, Any]) -> None:
        self.labels = given.get("labels") if model.training else None

    def _after(self, _: nn.Module, __: tuple[Any, ...], out: Any) -> Any:
        if self.labels is None:
            return None
        stream = out[0] if isinstance(out, tuple) else out
        changed = (stream.float() + self.added(stream.float(), self.labels)).to(stream.dtype)
        return (changed, *out[1:]) if isinstance(out, tuple) else changed

    def added(self, stream: Tensor, labels: Tensor) -> Tensor:
        """For streams [rows, tokens, width]: at each position whose next token is trained on, since its logits are in the loss."""
        total = torch.zeros_like(stream)
        low, high = self.doses
        rows = self.rows.to(stream.device)
        for i, here in enumerate((labels[:, 1:] != IGNORED).to(stream.device)):
            at = here.nonzero()[:, 0]
            which, dose = int(torch.randint(len(rows), ())), low + (high - low) * float(torch.rand(()))
            part = Part(Op("add_norm", which, dose, self.layer, SET), rows, Span(0, None))
            total[i, at] = delta(stream[i, at], part, at.tolist())
        return total
