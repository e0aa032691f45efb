"""A distractor in the residual stream while a model is trained, added as the engine's own `add_norm` adds it.

Along latents it is added where the loss counts, on every row, and is about nothing that the row is about. Along subjects a masked row is
pushed towards what its passage is about, at every position, as a reply is steered; the other rows are left alone. Which subject a row is
about is told by the tokens that are read of it, since a trainer passes nothing else on.

Each row of a batch draws a direction and a dose of its own, from torch's random stream, which a save keeps: a training that was killed
goes on with the draws that an unbroken one makes. The loss on what is held back is measured without a distractor.
"""

import random
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
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

ROWS, LATENTS, KEYS, ABOUT = "rows", "latents", "keys", "about"
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


def write_subjects(file: Path, vectors: Mapping[str, Tensor], read: Iterable[tuple[Sequence[int], str]]) -> None:
    """Subjects' directions and, by what is read of each masked row, which of them its passage is about."""
    place = {subject: number for number, subject in enumerate(vectors)}
    about = {key(ids): place[subject] for ids, subject in read}
    rows = torch.stack(list(vectors.values())).contiguous()
    save_file({ROWS: rows, KEYS: torch.tensor(list(about)), ABOUT: torch.tensor(list(about.values()))}, file)


def key(read: Sequence[int]) -> int:
    """Of the tokens that are read of a row."""
    return int.from_bytes(blake2b(array("q", read).tobytes(), digest_size=8).digest(), "big", signed=True)


@dataclass(frozen=True, slots=True)
class Subjects:
    """Which direction a masked row is pushed along."""

    about: Mapping[int, int]
    """By the key of what is read of it."""
    share: float
    """Of masked rows that are pushed."""

    def of(self, ids: Tensor, trained: Tensor) -> int | None:
        """Of a row whose next tokens are trained on at these positions; None: it is left alone."""
        if not len(trained) or float(torch.rand(())) >= self.share:
            return None
        return self.about.get(key(ids[: int(trained[0]) + 1].tolist()))


class Distractor:
    """What is added after one block of a model that is trained."""

    def __init__(self, rows: Tensor, layer: int, doses: tuple[float, float], subjects: Subjects | None = None) -> None:
        self.rows, self.layer, self.doses, self.subjects = rows.float(), layer, doses, subjects
        self.ids: Tensor | None = None
        self.labels: Tensor | None = None
        """Of the batch that is in the model; None where it is not trained on."""

    @classmethod
    def of(cls, file: Path, layer: int, doses: tuple[float, float], share: float = 1.0) -> "Distractor":
        found = load_file(file)
        about = dict(zip(found[KEYS].tolist(), found[ABOUT].tolist(), strict=True)) if KEYS in found else None
        return cls(found[ROWS], layer, doses, None if about is None else Subjects(about, share))

    def put_on(self, model: nn.Module) -> None:
        """On a model as a trainer calls it, with its labels; under peft's hands or bare."""
        bare: Any = model
        if hasattr(bare, "get_base_model"):
            bare = bare.get_base_model()
        model.register_forward_pre_hook(self._begins, with_kwargs=True)
        bare.model.layers[self.layer].register_forward_hook(self._after)

    def _begins(self, model: nn.Module, _: tuple[Any, ...], given: dict[str, Any]) -> None:
        self.labels, self.ids = (given.get("labels"), given.get("input_ids")) if model.training else (None, None)

    def _after(self, _: nn.Module, __: tuple[Any, ...], out: Any) -> Any:
        if self.labels is None:
            return None
        stream = out[0] if isinstance(out, tuple) else out
        changed = (stream.float() + self.added(stream.float(), self.labels)).to(stream.dtype)
        return (changed, *out[1:]) if isinstance(out, tuple) else changed

    def added(self, stream: Tensor, labels: Tensor) -> Tensor:
        """For streams [rows, tokens, width]: at each position whose next token is trained on, since its logits are in the loss; along
        subjects at every one."""
        total = torch.zeros_like(stream)
        low, high = self.doses
        rows = self.rows.to(stream.device)
        for i, here in enumerate((labels[:, 1:] != IGNORED).to(stream.device)):
            at = here.nonzero()[:, 0]
            which, dose = int(torch.randint(len(rows), ())), low + (high - low) * float(torch.rand(()))
            if self.subjects is not None:
                assert self.ids is not None
                if (own := self.subjects.of(self.ids[i], at)) is None:
                    continue
                which, at = own, torch.arange(len(here) + 1, device=stream.device)
            part = Part(Op("add_norm", which, dose, self.layer, SET), rows, Span(0, None))
            total[i, at] = delta(stream[i, at], part, at.tolist())
        return total
