"""What a worker puts into the model it has loaded: the SAEs' rows on its device, and a hook behind each chosen block.

vLLM's blocks return the two summands (h, r) of the residual stream; the hook adds to h, so that the next block's fused
add-and-norm, or the last norm, carries it on. Only the chosen blocks change class; the others stay vLLM's own.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from esr.engine.plugin import ops
from esr.engine.plugin.spec import KEY, Sites
from esr.errors import EngineError, SaeError, one_of

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from esr.params import SaeParams
    from esr.sae import Sae

log = logging.getLogger(__name__)

ARCHITECTURES = ("Gemma2ForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Whose blocks are known to return (h, r) with h + r the residual stream after the block."""


@dataclass(frozen=True, slots=True)
class Bank:
    """The rows of all SAEs of an engine, one after the other, in float32 on the worker's device."""

    W_enc: Tensor
    b_enc: Tensor
    threshold: Tensor
    """f = p if p > threshold else 0; 0 for ReLU."""
    W_dec: Tensor
    start: dict[str, int]
    """By SAE name: the row of its latent 0."""
    size: dict[str, int]
    sha256: dict[str, str]
    relu: dict[str, bool]
    """Whether the SAE has no thresholds."""

    def encoder(self, sae: str) -> tuple[Tensor, Tensor, Tensor]:
        """W_enc, b_enc and threshold of one SAE, without a copy."""
        rows = slice(self.start[sae], self.start[sae] + self.size[sae])
        return self.W_enc[rows], self.b_enc[rows], self.threshold[rows]


def load_bank(sites: Sites, device: torch.device, *, dummy: bool) -> Bank:
    """dummy: random rows of the declared shapes, as vLLM's load_format="dummy" makes random weights."""
    total, width = sum(sae.d_sae for sae in sites.saes.values()), next(iter(sites.saes.values())).d_in
    with torch.device(device):
        bank = Bank(
            W_enc=torch.empty(total, width, dtype=torch.float32), b_enc=torch.empty(total, dtype=torch.float32),
            threshold=torch.zeros(total, dtype=torch.float32), W_dec=torch.empty(total, width, dtype=torch.float32),
            start={}, size={}, sha256={}, relu={},
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
        at += block.d_sae
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


def install(model: nn.Module, config: "VllmConfig", block: object) -> None:
    """Hook `model` as additional_config asks; called once, between loading and the first forward pass."""
    from esr.engine.plugin.runners import SteerModelState
    from esr.engine.plugin.state import SteerState

    sites = Sites.parse(block)
    architecture = type(model).__name__
    if architecture not in ARCHITECTURES:
        raise EngineError(one_of("architecture", architecture, list(ARCHITECTURES), "the steering plugin"))
    layers = cast("Any", model).model.layers
    for layer in sites.layers:
        if layer >= len(layers):
            raise EngineError(f"no block {layer} to hook; {architecture} has {len(layers)} here, from 0")
    device = next(model.parameters()).device
    ops.register()
    bank = load_bank(sites, device, dummy=config.load_config.load_format == "dummy")
    state = SteerState(sites, bank, config, device)
    config.compilation_config.static_forward_context[ops.CONTEXT] = cast("Any", state)
    for layer in sites.layers:
        hook(layers[layer], layer)
    cast("Any", model).get_model_state_cls = lambda: SteerModelState
    log.info("hooked blocks %s of %s for SAEs %s", list(sites.layers), architecture, ", ".join(sites.saes))


def hook(block: nn.Module, layer: int) -> None:
    """Give one block a forward that ends in the operation."""
    block.__class__ = _steered(type(block))
    cast("Any", block).esr_layer = layer


def _steered(plain: type[nn.Module]) -> type[nn.Module]:
    class Steered(plain):  # type: ignore[misc, valid-type]  # a class known only when the model is loaded
        def forward(
            self, positions: Tensor, hidden_states: Tensor, residual: Tensor | None, **more: Any
        ) -> tuple[Tensor, Tensor]:  # fmt: skip
            h, r = plain.forward(self, positions, hidden_states, residual, **more)
            torch.ops.vllm.esr_steer(h, r, positions, self.esr_layer)
            return h, r

    Steered.__name__ = Steered.__qualname__ = f"Steered{plain.__name__}"
    return Steered


def state_of(config: "VllmConfig") -> Any:
    """The worker's SteerState, or None when this engine is not steered."""
    settings: Any = config.additional_config
    if not settings or not settings.get(KEY):
        return None
    return config.compilation_config.static_forward_context.get(ops.CONTEXT)
