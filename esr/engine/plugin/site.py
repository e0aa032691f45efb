"""What a worker puts into the model it has loaded: the rows on its device, and a hook behind each chosen block.

vLLM's blocks return the two summands (h, r) of the residual stream; the hook adds to h, so that the next block's fused
add-and-norm, or the last norm, carries it on. Only the chosen blocks change class; the others stay vLLM's own.
"""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from esr.engine.plugin import ops
from esr.engine.plugin.bank import load_bank
from esr.engine.plugin.ranks import Rank
from esr.engine.plugin.spec import KEY, Sites
from esr.engine.plugin.state import SteerState
from esr.errors import EngineError, one_of

if TYPE_CHECKING:
    from vllm.config import VllmConfig

log = logging.getLogger(__name__)

NATIVE = (
    "Gemma2ForCausalLM", "Gemma3ForCausalLM", "Glm4ForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Phi3ForCausalLM",
    "Qwen2ForCausalLM", "Qwen3ForCausalLM",
)  # fmt: skip
"""Of vLLM's own: whose blocks are known to return (h, r) with h + r the residual stream after the block."""
BACKEND = "TransformersForCausalLM"
"""What vLLM runs those with for which it has no code of its own: transformers' blocks, which return the stream."""
TRANSFORMERS = ("Olmo2ForCausalLM", "OlmoForCausalLM", "SmolLM3ForCausalLM")
ARCHITECTURES = tuple(sorted((*NATIVE, *TRANSFORMERS)))


def install(model: nn.Module, config: "VllmConfig", block: object) -> None:
    """Hook `model` as additional_config asks; called once, between loading and the first forward pass."""
    from esr.engine.plugin.runners import SteerModelState  # vLLM's runner, which a front end need not load

    sites = Sites.parse(block)
    architecture = type(model).__name__
    if architecture not in (*NATIVE, BACKEND):
        raise EngineError(one_of("implementation", architecture, [*NATIVE, BACKEND], "the steering plugin"))
    layers = cast("Any", model).model.layers
    for layer in sites.layers:
        if layer >= len(layers):
            raise EngineError(f"no block {layer} to hook; {architecture} has {len(layers)} here, from 0")
    rank = rank_of(layers, sites)
    device = next(model.parameters()).device
    ops.register()
    bank = load_bank(
        needed_at(sites, rank.layers), config.model_config.get_hidden_size(), device, dummy=config.load_config.load_format == "dummy",
        halved=device.type == "cuda" and config.model_config.dtype != torch.float32 and sites.capture and rank.reads,
    )  # fmt: skip
    state = SteerState(sites, bank, config, device, rank)
    config.compilation_config.static_forward_context[ops.CONTEXT] = cast("Any", state)
    for layer in rank.layers:
        hook(layers[layer], layer, whole=architecture == BACKEND)
    cast("Any", model).get_model_state_cls = lambda: SteerModelState
    log.info("hooked blocks %s of %s for SAEs %s", list(rank.layers), architecture, ", ".join(sites.saes))


def rank_of(layers: Any, sites: Sites) -> Rank:
    """This worker, whose model has the blocks of its stage of the pipeline at their numbers and place-holders elsewhere."""
    from vllm.distributed import get_pp_group, get_tensor_model_parallel_rank
    from vllm.model_executor.models.utils import PPMissingLayer

    own = tuple(layer for layer in sites.layers if not isinstance(layers[layer], PPMissingLayer))
    return Rank(own, reads=get_tensor_model_parallel_rank() == 0, last=get_pp_group().is_last_rank)


def needed_at(sites: Sites, layers: tuple[int, ...]) -> Sites:
    """Without the SAEs that no request can name at these blocks: a stage of the pipeline has no memory to spare for another's."""
    needed = {
        name: sae for name, sae in sites.saes.items() if layers and (sites.allow_layer_mismatch or sae.layer in layers)
    }  # fmt: skip
    return replace(sites, saes=needed)


def hook(block: nn.Module, layer: int, *, whole: bool = False) -> None:
    """Give one block a forward that ends in the operation. `whole`: it returns the stream itself and not two summands of it."""
    block.__class__ = _steered_whole(type(block)) if whole else _steered(type(block))
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


def _steered_whole(plain: type[nn.Module]) -> type[nn.Module]:
    class Steered(plain):  # type: ignore[misc, valid-type]  # a class known only when the model is loaded
        def forward(self, hidden_states: Tensor, *args: Any, position_ids: Tensor, **more: Any) -> Tensor:
            stream: Tensor = plain.forward(self, hidden_states, *args, position_ids=position_ids, **more)
            rows = stream.view(-1, stream.shape[-1])
            nothing = rows.new_zeros(1, rows.shape[1]).expand_as(rows)
            torch.ops.vllm.esr_steer(rows, nothing, position_ids.view(-1), self.esr_layer)
            return stream

    Steered.__name__ = Steered.__qualname__ = f"Steered{plain.__name__}"
    return Steered


def state_of(config: "VllmConfig") -> Any:
    """The worker's SteerState, or None when this engine is not steered."""
    settings: Any = config.additional_config
    if not settings or not settings.get(KEY):
        return None
    return config.compilation_config.static_forward_context.get(ops.CONTEXT)
