"""What an engine with sites refuses to start with, each by name: nothing is steered silently wrong."""

from typing import Any

from esr.engine.plugin.site import ARCHITECTURES
from esr.engine.plugin.spec import KEY, Sites
from esr.errors import EngineError, one_of

TESTED = (0, 26), (0, 32)
"""First and last minor version of vLLM that the plugin is tested with."""


def check_keys(additional: Any) -> None:
    """additional_config has many readers, so only what looks like the plugin's own key and is not it is refused."""
    import difflib

    for key in additional or {}:
        letters = "".join(letter for letter in str(key).casefold() if letter.isalpha())
        near = letters.startswith(("sae", "steer", "esr")) or bool(difflib.get_close_matches(letters, ["saesteering"], cutoff=0.7))
        if key != KEY and near:
            raise EngineError(one_of("key", str(key), [KEY], "additional_config that the steering plugin reads"))


def check(config: Any, sites: Sites) -> None:
    _version(sites)
    _model(config, sites)
    _engine(config, sites)
    if config.parallel_config.pipeline_parallel_size > 1:
        _pipeline(config)


def _version(sites: Sites) -> None:
    import vllm

    major, minor = (int(part) for part in vllm.__version__.split(".")[:2])
    if not TESTED[0] <= (major, minor) <= TESTED[1] and not sites.allow_untested_vllm:
        raise EngineError(
            f"vLLM {vllm.__version__} is outside 0.26 to 0.32, where steering is tested; set allow_untested_vllm to try"
        )


def _model(config: Any, sites: Sites) -> None:
    model = config.model_config
    found = list(getattr(model.hf_config, "architectures", None) or [])
    if not any(name in ARCHITECTURES for name in found):
        raise EngineError(one_of("architecture", ", ".join(found), list(ARCHITECTURES), "the steering plugin"))
    if model.runner_type != "generate":
        raise EngineError(f"steering is for generation; this engine's runner is {model.runner_type!r}")
    layers, width = model.get_total_num_hidden_layers(), model.get_hidden_size()
    for layer in sites.layers:
        if layer >= layers:
            raise EngineError(f"no block {layer} to hook; the model has {layers}, from 0")
    for sae in sites.saes.values():
        if sae.d_in != width:
            raise EngineError(f"SAE {sae.name!r} reads {sae.d_in} dimensions and the model has {width}")
        if sae.layer not in sites.layers and not sites.allow_layer_mismatch:
            raise EngineError(
                f"SAE {sae.name!r} was trained after block {sae.layer} and blocks {list(sites.layers)} are hooked; "
                "set allow_layer_mismatch if that is meant"
            )


def _engine(config: Any, sites: Sites) -> None:
    parallel, compilation = config.parallel_config, config.compilation_config
    passes = compilation.pass_config
    for bad, what in (
        (getattr(parallel, "prefill_context_parallel_size", 1) > 1, "prefill context parallelism"),
        (getattr(parallel, "use_ubatching", False) or getattr(parallel, "enable_dbo", False), "dual-batch overlap"),
        (config.speculative_config is not None, "speculative decoding, whose rejected tokens would be counted"),
        (getattr(passes, "enable_sp", False), "sequence parallelism (pass_config.enable_sp)"),
        (getattr(passes, "fuse_gemm_comms", False), "fused GEMM and communication (pass_config.fuse_gemm_comms)"),
        (getattr(config.cache_config, "kv_sharing_fast_prefill", False), "kv_sharing_fast_prefill"),
        (_env("VLLM_USE_BREAKABLE_CUDAGRAPH"), "breakable CUDA graphs"),
        (_env("VLLM_USE_RUST_FRONTEND"), "the Rust front end (VLLM_USE_RUST_FRONTEND), which knows no plugin"),
        (getattr(config, "kv_transfer_config", None) is not None, "a KV connector, whose keys the plugin cannot see"),
        (getattr(config.model_config, "uses_mrope", False), "M-RoPE positions"),
        (getattr(config.model_config, "enable_prompt_embeds", False), "prompt embeddings"),
        (getattr(config.model_config, "enable_sleep_mode", False), "sleep mode, which would forget the SAEs"),
    ):
        if bad:
            raise EngineError(f"steering does not work with {what}; start the engine without it")
    scheduler = config.scheduler_config.get_scheduler_cls()
    if not getattr(scheduler.update_from_output, "esr", False):
        raise EngineError(
            f"the scheduler {scheduler.__qualname__} has an `update_from_output` of its own, which would drop what workers refuse; "
            "start the engine with vLLM's own"
        )


def _pipeline(config: Any) -> None:
    backend = config.parallel_config.distributed_executor_backend
    if backend != "mp":
        raise EngineError(
            f"the stages of a steered pipeline tell one another of failures, which is tested between vLLM's own processes; this engine's "
            f"distributed_executor_backend is {backend!r} and 'mp' would do"
        )
    if config.scheduler_config.async_scheduling and not config.use_v2_model_runner:
        raise EngineError(
            "under asynchronous scheduling the V1 runner's earlier stages do not know what was generated, so no marker would be found; "
            "start the engine with async_scheduling=False"
        )


def _env(name: str) -> bool:
    import vllm.envs as envs

    return bool(getattr(envs, name, False))
