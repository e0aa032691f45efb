"""A model of params.yaml in vLLM's terms: where it may be steered, and the options of its engine."""

from collections.abc import Mapping, Sequence
from typing import Any

from esr.engine.adapter import Adapter
from esr.engine.plugin.spec import KEY, Sites
from esr.errors import EngineError
from esr.params import ModelParams, Params, resolve, source
from esr.sae import open_sae


def sites_for(params: Params, name: str, *, saes: bool = True) -> Sites:
    """All that this model's experiments may touch: its own SAE, and every other one in params.yaml trained on a block of it that is
    a local folder of its width; blocks to steer, read and ablate at. Without `saes` the blocks alone."""
    block = params.model(name)
    if not saes:
        layers = {block.steer_layer, block.read_layer, block.ablate_layer}
        return Sites(saes={}, sha256={}, layers=tuple(sorted(layers)), allow_layer_mismatch=block.allow_layer_mismatch)
    own = params.sae(block.sae)
    found = {own.name: own}
    layers = {block.steer_layer, block.read_layer, block.ablate_layer}
    if block.directions is not None:
        layers |= {*params.directions_of(block.directions).layers}
    for sae in params.saes.values():
        if (
            sae.loader == "folder" == own.loader
            and sae.d_in == block.width
            and sae.layer < block.layers
            and resolve(sae.repo or "").is_dir()
        ):
            found[sae.name] = sae
            layers.add(sae.layer)
    return Sites(
        saes={sae: found[sae].model_copy(update={"repo": _absolute_repo(found[sae].repo), "recipe": None}) for sae in found},
        sha256={sae: open_sae(params, sae).sha256 for sae in found},
        layers=tuple(sorted(layers)), allow_layer_mismatch=block.allow_layer_mismatch,
    )  # fmt: skip


def _absolute_repo(repo: str | None) -> str | None:
    return str(resolve(repo)) if repo and resolve(repo).is_dir() else repo


def engine_options(block: ModelParams, sites: Sites) -> dict[str, Any]:
    """AsyncEngineArgs for a model of params.yaml."""
    where, revision = source(block.hub, block.revision)
    options: dict[str, Any] = {
        "model": where, **revision, "dtype": block.dtype, "max_model_len": block.max_model_len,
        "tensor_parallel_size": block.tensor_parallel, "pipeline_parallel_size": block.pipeline_parallel, "generation_config": "vllm",
        "enable_log_requests": False, "disable_log_stats": True, "additional_config": {KEY: sites.as_config()},
    }  # fmt: skip
    if block.quantization:
        options["quantization"] = block.quantization
    if block.adapter:
        options |= lora([Adapter.of(block.adapter)])
    return options


AT_ONCE, CAPTURED = 1024, 512
"""On a GPU of 70 GiB and more: sequences that vLLM runs at once, and the tokens of the largest step that it captures a graph of."""


def graphs(asked: Mapping[str, Any], memory: int) -> dict[str, Any]:
    """AsyncEngineArgs beside those `asked` for, on a GPU of so many bytes: a step of as many sequences as may run has a graph too.
    Without, a full batch takes a third longer (docs/engine.md)."""
    most = asked.get("max_num_seqs") or (AT_ONCE if memory >= 70 << 30 else CAPTURED)
    if most <= CAPTURED or asked.get("enforce_eager"):
        return {}
    return {"compilation_config": {"max_cudagraph_capture_size": most}}


SLOTS = 16
"""Adapters that one batch may mix at most; further ones wait for a place."""


def lora(adapters: Sequence[Adapter]) -> dict[str, Any]:
    """AsyncEngineArgs of an engine whose requests may bring any of these."""
    return {"enable_lora": True, "max_loras": min(len(adapters), SLOTS), "max_lora_rank": max(map(_rank, adapters))}


def _rank(adapter: Adapter) -> int:
    """The smallest rank that vLLM knows and the adapter fits in."""
    rank = adapter.rank
    fitting = [known for known in (8, 16, 32, 64, 128, 256) if known >= rank]
    if not fitting:
        raise EngineError(f"the adapter {str(adapter.folder)!r} has rank {rank} and vLLM takes at most 256")
    return fitting[0]
