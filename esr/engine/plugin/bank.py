"""The rows that interventions and captures use: every SAE's, and those of named directions, on the worker's device."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from esr.engine.directions import Directions
from esr.engine.plugin.spec import Sites
from esr.errors import EngineError, SaeError

if TYPE_CHECKING:
    from esr.params import SaeParams
    from esr.sae import Sae


@dataclass(frozen=True, slots=True)
class Bank:
    """The rows of all SAEs of an engine, one after the other, then room for directions; in float32 at fixed addresses."""

    W_enc: Tensor
    b_enc: Tensor
    threshold: Tensor
    """f = p if p > threshold else 0; 0 for ReLU."""
    W_dec: Tensor
    inverse: Tensor
    """1 / the norm of each row of W_dec; 0 for an empty one."""
    half: Tensor | None
    """[rows, width + 8] float16: W_enc, then b_enc as a sum of two, then zeros; None: captures are encoded in float32."""
    start: dict[str, int]
    """By SAE name: the row of its latent 0."""
    size: dict[str, int]
    sha256: dict[str, str]
    relu: dict[str, bool]
    """Whether the SAE has no thresholds."""
    directions: dict[tuple[str, int], tuple[int, int]]
    """By set and block: its first row, and how many there are."""
    loaded: dict[str, str]
    """Hash by set of directions."""

    def row(self, name: str, layer: int, index: int) -> int:
        """Of a latent, or of a direction after a block."""
        if name in self.start:
            return self.start[name] + index
        first, count = self.directions.get((name, layer), (0, 0))
        if index >= count:
            raise EngineError(f"this worker has no direction {index} of {name!r} after block {layer}")
        return first + index

    @property
    def latents(self) -> int:
        return len(self.b_enc)

    def load(self, found: Directions) -> None:
        """Once a name: equal content again is nothing new, other content under a taken name is refused."""
        shape = found.shape
        if shape.name in self.loaded:
            if self.loaded[shape.name] != shape.sha256:
                raise EngineError(f"directions {shape.name!r} are loaded with other content ({self.loaded[shape.name][:16]})")
            return
        at = self.latents + sum(count for _, count in self.directions.values())
        for layer, rows in found.layers.items():
            chosen = slice(at, at + len(rows))
            numbers = torch.from_numpy(rows)
            self.W_dec[chosen].copy_(numbers)
            self.inverse[chosen].copy_(1 / numbers.norm(dim=1))
            self.directions[shape.name, layer] = (at, len(rows))
            at += len(rows)
        self.loaded[shape.name] = shape.sha256

    def encoder(self, sae: str) -> tuple[Tensor, Tensor, Tensor]:
        """W_enc, b_enc and threshold of one SAE, without a copy."""
        rows = slice(self.start[sae], self.start[sae] + self.size[sae])
        return self.W_enc[rows], self.b_enc[rows], self.threshold[rows]


def load_bank(sites: Sites, width: int, device: torch.device, *, dummy: bool, halved: bool = False) -> Bank:
    """dummy: random rows of the declared shapes, as vLLM's load_format="dummy" makes random weights; halved: captures are encoded
    by products of float16."""
    total = sum(sae.d_sae for sae in sites.saes.values())
    rows_in_all = total + sites.max_directions
    with torch.device(device):
        bank = Bank(
            W_enc=torch.empty(total, width, dtype=torch.float32), b_enc=torch.empty(total, dtype=torch.float32),
            threshold=torch.zeros(total, dtype=torch.float32), W_dec=torch.zeros(rows_in_all, width, dtype=torch.float32),
            inverse=torch.zeros(rows_in_all, dtype=torch.float32),
            half=torch.zeros(total, width + 8, dtype=torch.float16) if halved else None,
            start={}, size={}, sha256={}, relu={}, directions={}, loaded={},
        )  # fmt: skip
    at = 0
    for name, block in sites.saes.items():
        bank.start[name], bank.size[name], bank.relu[name] = at, block.d_sae, True
        rows = slice(at, at + block.d_sae)
        if dummy:
            _draw(bank, rows, width, at)
            bank.sha256[name] = "dummy"
        else:
            sae = _open(name, block, sites)
            _copy(bank, rows, sae)
            bank.sha256[name], bank.relu[name] = sae.sha256, sae.threshold is None
        if bank.half is not None:
            b = bank.b_enc[rows]
            bank.half[rows, :width] = bank.W_enc[rows].half()
            bank.half[rows, width], bank.half[rows, width + 1] = b.half(), (b - b.half().float()).half()
        norms = torch.linalg.vector_norm(bank.W_dec[rows], dim=1)
        bank.inverse[rows] = torch.where(norms > 0, 1 / norms, 0)
        at += block.d_sae
    for found in sites.declared():
        bank.load(found)
    return bank


def _draw(bank: Bank, rows: slice, width: int, seed: int) -> None:
    g = torch.Generator(bank.W_enc.device).manual_seed(seed)
    bank.W_enc[rows].normal_(0, width**-0.5, generator=g)
    bank.b_enc[rows].normal_(-1, 0.1, generator=g)
    bank.W_dec[rows].normal_(0, width**-0.5, generator=g)


def _open(name: str, block: "SaeParams", sites: Sites) -> "Sae":
    from esr.sae import open_block

    sae = open_block(block)
    if sites.sha256.get(name, sae.sha256) != sae.sha256:
        raise SaeError(
            f"SAE {name!r} hashes to {sae.sha256[:16]} on this worker and to {sites.sha256[name][:16]} where the engine was asked for"
        )
    return sae


def _copy(bank: Bank, rows: slice, sae: "Sae") -> None:
    bank.W_enc[rows].copy_(sae.W_enc)
    bank.b_enc[rows].copy_(sae.b_enc)
    bank.W_dec[rows].copy_(sae.W_dec)
    if sae.threshold is not None:
        bank.threshold[rows].copy_(sae.threshold.clamp(min=0))
