"""What an engine with sites does not start with, and what it does not take: each refused in a sentence. No engine is started."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import vllm
from vllm import SamplingParams
from vllm.config import CacheConfig, ModelConfig, ParallelConfig, SchedulerConfig, VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.exceptions import VLLMValidationError
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreRequest

from esr.engine.plugin import EXTENSION, FIELD, KEY, Sites, _admitting, _configuring, mark, register
from esr.engine.plugin import table as tables
from esr.engine.plugin.admission import admit, recheck
from esr.engine.plugin.ranks import Rank
from esr.engine.plugin.refusals import check, check_keys
from esr.engine.plugin.worker import SteeringWorker, _warming
from esr.errors import EngineError, SpecError

BLOCK = {"saes": {"early": {"loader": "folder", "repo": "/saes/early", "layer": 1, "d_in": 64, "d_sae": 96}}}
ADD = '{"op": "add", "sae": "early", "i": 7, "v": 2.0}'


class Own(Scheduler):
    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        return {}


def scheduling(beside: bool, scheduler: type | None = None) -> Any:
    """With vLLM's own scheduler unless another is given."""
    register()
    chosen = scheduler or (AsyncScheduler if beside else Scheduler)
    return SimpleNamespace(max_num_batched_tokens=128, async_scheduling=beside, get_scheduler_cls=lambda: chosen)


def config(
    model: dict[str, Any] | None = None,
    parallel: dict[str, Any] | None = None,
    passes: dict[str, Any] | None = None,
    cache: dict[str, Any] | None = None,
    **more: Any,
) -> Any:
    """As vLLM's: four blocks, 64 wide, nothing switched on; then what the caller changes."""
    plain_model = {
        "hf_config": SimpleNamespace(architectures=["LlamaForCausalLM"]), "runner_type": "generate", "uses_mrope": False,
        "enable_prompt_embeds": False, "enable_sleep_mode": False, "get_total_num_hidden_layers": lambda: 4, "get_hidden_size": lambda: 64,
        "max_model_len": 4096, "get_vocab_size": lambda: 128,
    }  # fmt: skip
    plain_parallel = {
        "pipeline_parallel_size": 1, "prefill_context_parallel_size": 1, "use_ubatching": False, "enable_dbo": False,
        "distributed_executor_backend": "mp",
    }  # fmt: skip
    plain: dict[str, Any] = {
        "model_config": SimpleNamespace(**plain_model | (model or {})),
        "parallel_config": SimpleNamespace(**plain_parallel | (parallel or {})),
        "cache_config": SimpleNamespace(**{"kv_sharing_fast_prefill": False} | (cache or {})),
        "compilation_config": SimpleNamespace(
            pass_config=SimpleNamespace(**{"enable_sp": False, "fuse_gemm_comms": False} | (passes or {})),
            static_forward_context={},
        ),
        "scheduler_config": scheduling(True),
        "use_v2_model_runner": True,
        "speculative_config": None,
        "kv_transfer_config": None,
        "additional_config": {KEY: BLOCK},
    }
    return SimpleNamespace(**plain | more)


def sites(**changes: Any) -> Sites:
    return Sites.parse({**BLOCK, **changes})


def named(*architectures: str) -> dict[str, Any]:
    return {"hf_config": SimpleNamespace(architectures=list(architectures))}


def test_an_engine_with_nothing_against_it_starts() -> None:
    check(config(), sites())
    check(config(model=named("Something", "Qwen3ForCausalLM")), sites())
    check(config(model={"get_total_num_hidden_layers": lambda: 2}), sites())
    check(config(use_v2_model_runner=False), sites())
    check(config(parallel={"pipeline_parallel_size": 2}), sites(allow_untested_vllm=True))
    check(config(parallel={"pipeline_parallel_size": 2}, use_v2_model_runner=False, scheduler_config=scheduling(False)), sites())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (config(model=named("GPTNeoXForCausalLM")), "no architecture 'GPTNeoXForCausalLM'"),
        (config(model=named()), "no architecture ''"),
        (config(model={"hf_config": SimpleNamespace(architectures=None)}), "no architecture ''"),
        (config(model={"runner_type": "pooling"}), "this engine's runner is 'pooling'"),
        (config(model={"get_total_num_hidden_layers": lambda: 1}), "no block 1 to hook; the model has 1"),
        (config(model={"get_hidden_size": lambda: 32}), "SAE 'early' reads 64 dimensions and the model has 32"),
        (
            config(parallel={"pipeline_parallel_size": 2, "distributed_executor_backend": "ray"}),
            "is 'ray' and 'mp' would do",
        ),
        (config(parallel={"pipeline_parallel_size": 2}, use_v2_model_runner=False), "start the engine with async_scheduling=False"),
        (config(parallel={"prefill_context_parallel_size": 2}), "not work with prefill context parallelism"),
        (config(parallel={"use_ubatching": True}), "not work with dual-batch overlap"),
        (config(parallel={"enable_dbo": True}), "not work with dual-batch overlap"),
        (config(speculative_config=SimpleNamespace()), "not work with speculative decoding"),
        (config(passes={"enable_sp": True}), "not work with sequence parallelism"),
        (config(passes={"fuse_gemm_comms": True}), "not work with fused GEMM"),
        (config(cache={"kv_sharing_fast_prefill": True}), "not work with kv_sharing_fast_prefill"),
        (config(kv_transfer_config=SimpleNamespace()), "not work with a KV connector"),
        (config(model={"uses_mrope": True}), "not work with M-RoPE"),
        (config(model={"enable_prompt_embeds": True}), "not work with prompt embeddings"),
        (config(model={"enable_sleep_mode": True}), "sleep"),
        (config(scheduler_config=scheduling(True, Own)), "the scheduler Own has an `update_from_output` of its own"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_engine_that_would_be_steered_wrong_does_not_start(changed: Any, says: str) -> None:
    with pytest.raises(EngineError) as refusal:
        check(changed, sites())
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (
            ParallelConfig,
            (
                "pipeline_parallel_size",
                "prefill_context_parallel_size",
                "use_ubatching",
                "enable_dbo",
                "distributed_executor_backend",
            ),
        ),
        (SchedulerConfig, ("async_scheduling",)),
        (VllmConfig, ("speculative_config", "kv_transfer_config", "use_v2_model_runner")),
        (CacheConfig, ("kv_sharing_fast_prefill",)),
        (ModelConfig, ("uses_mrope", "enable_prompt_embeds", "enable_sleep_mode")),
    ],
)
def test_what_is_refused_goes_by_these_names_in_vllm_itself(owner: type, names: tuple[str, ...]) -> None:
    """A name that vLLM gave up would never be found set. The two compiler passes are gone in 0.32, so they are not asked for here."""
    assert [name for name in names if not hasattr(owner, name)] == []


def test_an_engine_with_breakable_cuda_graphs_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(vllm.envs), "VLLM_USE_BREAKABLE_CUDAGRAPH", True)  # the variable itself may be cached by now
    with pytest.raises(EngineError, match="not work with breakable CUDA graphs"):
        check(config(), sites())


def test_an_engine_behind_the_rust_front_end_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(vllm.envs), "VLLM_USE_RUST_FRONTEND", True)
    with pytest.raises(EngineError, match=r"not work with the Rust front end \(VLLM_USE_RUST_FRONTEND\)"):
        check(config(), sites())


@pytest.mark.parametrize("key", ["sae_sterring", "sae-steering", "SAE_STEERING", "sae", "steering", "sea_steering", "esr"])
def test_a_misspelt_key_of_the_configuration_is_refused_with_the_nearest(tmp_path: Path, key: str) -> None:
    register()
    with pytest.raises(EngineError, match=f"no key '{key}' in additional_config.* has sae_steering"):
        EngineArgs(model=str(tmp_path), additional_config={key: BLOCK}).create_engine_config()


def test_another_reader_s_key_of_the_configuration_is_left_alone() -> None:
    check_keys({"ascend_scheduler_config": {}, "torchair_graph_config": {}, "gdn_prefill_backend": "x", KEY: BLOCK})
    check_keys(None)


@pytest.mark.parametrize("version", ["0.25.9", "0.33.0", "1.0.0"])
def test_a_vllm_that_is_not_tested_needs_to_be_meant(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(vllm, "__version__", version)
    with pytest.raises(EngineError, match=rf"vLLM {version} is outside .* allow_untested_vllm"):
        check(config(), sites())
    check(config(), sites(allow_untested_vllm=True))


@pytest.mark.parametrize("version", ["0.26.0", "0.32.7+cpu"])
def test_a_vllm_that_is_tested_is_taken(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(vllm, "__version__", version)
    check(config(), sites())


def test_an_sae_of_another_block_needs_to_be_meant() -> None:
    with pytest.raises(EngineError, match=r"'early' was trained after block 1 and blocks \[2\] are hooked.*allow_layer_mismatch"):
        check(config(), sites(layers=[2]))
    check(config(), sites(layers=[2], allow_layer_mismatch=True))
    with pytest.raises(EngineError, match="no block 4"):
        check(config(), sites(layers=[4], allow_layer_mismatch=True))


def test_a_second_worker_extension_is_refused(tmp_path: Path) -> None:
    register()
    args = EngineArgs(model=str(tmp_path), worker_extension_cls="mine.Extension", additional_config={KEY: BLOCK})
    with pytest.raises(EngineError, match=r"brings its own worker extension; 'mine\.Extension'"):
        args.create_engine_config()


def test_an_engine_with_sites_has_the_plugin_s_worker_and_is_checked() -> None:
    args = SimpleNamespace(worker_extension_cls="", additional_config={KEY: BLOCK})
    for _ in range(2):
        _configuring(lambda self: config())(args)
        assert args.worker_extension_cls == EXTENSION
    with pytest.raises(EngineError, match="prefill context parallelism"):
        _configuring(lambda self: config(parallel={"prefill_context_parallel_size": 2}))(args)


@pytest.mark.parametrize("additional", [None, {}, {"another": {}}])
def test_an_engine_without_sites_is_left_alone(additional: dict[str, Any] | None) -> None:
    args = SimpleNamespace(worker_extension_cls="mine.Extension", additional_config=additional)
    _configuring(lambda self: config(parallel={"prefill_context_parallel_size": 2}))(args)
    assert args.worker_extension_cls == "mine.Extension"


class Hooked:
    """A worker whose dummy run passes the hooks as often as `passes` says."""

    def __init__(self, passes: Callable[[int], int], additional: dict[str, Any] | None = None) -> None:
        self.vllm_config = config(additional_config={KEY: BLOCK} if additional is None else additional)
        self.model_runner, self.rank, self.site, self.max_ops = self, Rank((1, 2)), {1: 0, 2: 1}, 4
        self.table, self.probe = torch.zeros(1, tables.row_width(2, 4), dtype=torch.int32), 0
        self.applied = torch.zeros(1, dtype=torch.int32)
        self.passes, self.runs = passes, list[int]()

    def esr_state(self) -> "Hooked":
        return self

    def rest(self) -> None:
        pass

    def _dummy_run(self, tokens: int) -> None:
        self.applied += self.passes(tokens)
        self.runs.append(tokens)


def start(worker: Any) -> str:
    return _warming(lambda self: "warm")(worker)


@pytest.mark.parametrize("passes", [lambda n: 2 * n, lambda n: 2 * (n + 7)], ids=["each token", "and padding"])
def test_a_worker_whose_hooks_run_starts(passes: Callable[[int], int]) -> None:
    worker = Hooked(passes)
    assert start(worker) == "warm"
    assert worker.runs == [1, 32], "one token, as in a decode, and many"


@pytest.mark.parametrize(
    "passes",
    [lambda n: 0, lambda n: n, lambda n: 2 * n - 2 * (n > 1), lambda n: 2 * n + 1],
    ids=["never", "after one block of two", "not in the large graph", "not each block as often"],
)
def test_a_worker_whose_hooks_do_not_run_is_refused(passes: Callable[[int], int]) -> None:
    with pytest.raises(EngineError, match=r"self-test steered \d+ of \d+ .* compile cache \(VLLM_CACHE_ROOT\)"):
        start(Hooked(passes))


def test_a_worker_without_sites_is_not_tested() -> None:
    worker = Hooked(lambda n: 0, additional={})
    assert start(worker) == "warm"
    assert worker.runs == []


def test_a_stage_of_a_pipeline_without_a_hooked_block_starts() -> None:
    worker = Hooked(lambda n: 0)
    worker.rank = Rank(())
    assert start(worker) == "warm"
    assert worker.runs == []


def test_a_worker_whose_model_came_past_the_plugin_is_refused() -> None:
    worker = SteeringWorker()
    worker.vllm_config = config()
    with pytest.raises(EngineError, match="loaded without its hooks"):
        start(worker)


def asked(spec: str, *, n: int = 1, embeds: torch.Tensor | None = None, key: str = FIELD, **more: Any) -> EngineCoreRequest:
    return EngineCoreRequest(
        request_id="0", prompt_token_ids=None if embeds is not None else [1, 2], mm_features=None, pooling_params=None,
        sampling_params=SamplingParams(n=n, max_tokens=16, extra_args={key: spec}), arrival_time=0.0, lora_request=None, cache_salt=None,
        data_parallel_rank=None, prompt_embeds=embeds, **more,
    )  # fmt: skip


def test_requests_that_can_be_steered_are_admitted() -> None:
    for request in (asked(f'{{"id": "a", "ops": [{ADD}]}}'), asked(f'{{"ops": [{ADD}]}}', n=2)):
        admit(config(), request)
        assert str(request.cache_salt).startswith("esr:")


@pytest.mark.parametrize(
    ("sent", "additional", "says"),
    [
        (asked('{"id": "a"}', n=3), {KEY: BLOCK}, "an `id` names one reply and n is 3; send 3 requests"),
        (asked(f'{{"ops": [{ADD}]}}', embeds=torch.zeros(2, 64)), {KEY: BLOCK}, "not prompt embeddings"),
        (asked(f'{{"ops": [{ADD}]}}', resumable=True), {KEY: BLOCK}, "a session of streamed inputs takes no steering spec"),
        (asked(f'{{"ops": [{ADD}]}}', key="SAE"), {KEY: BLOCK}, "no field 'SAE' in extra_args; nearest: sae"),
        (asked(f'{{"ops": [{ADD}]}}', key="Sae"), None, "no field 'Sae' in extra_args; nearest: sae"),
        (
            asked(f'{{"ops": [{ADD}], "scope": "[17,)"}}'),
            {KEY: BLOCK},
            "touches no position: the prompt has 2 tokens and at most 17 are computed",
        ),
        (asked(f'{{"ops": [{ADD}], "ops": []}}'), {KEY: BLOCK}, "the steering spec has the key 'ops' twice"),
        (asked(f'{{"ops": [{ADD.replace("2.0", "1e-60")}]}}'), {KEY: BLOCK}, "the value 1e-60, which is 0 in 32 bits"),
        (asked(f'{{"ops": [{ADD}]}}'), None, "asks for steering and this engine has none"),
        (asked(f'{{"ops": [{ADD}]}}'), {"another": {}}, "asks for steering and this engine has none"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_request_that_cannot_be_steered_is_refused(sent: EngineCoreRequest, additional: Any, says: str) -> None:
    process_inputs = _admitting(lambda self: sent)
    with pytest.raises(SpecError) as refusal:
        process_inputs(SimpleNamespace(vllm_config=config(additional_config=additional)))
    assert says in str(refusal.value)
    assert isinstance(refusal.value, VLLMValidationError), "which vLLM's server answers with 400"


def test_a_span_that_holds_the_last_position_is_admitted() -> None:
    admit(config(), asked(f'{{"ops": [{ADD}], "scope": "[16,)"}}'))
    admit(config(), asked(f'{{"ops": [{ADD}], "scope": "generated"}}'))


def test_admission_leaves_the_caller_s_parameters_for_another_request() -> None:
    params = asked(f'{{"ops": [{ADD}]}}').sampling_params
    for _ in range(2):
        request = asked("")
        request.sampling_params = params
        admit(config(), request)
        recheck(config(), request)
    assert params is not None
    assert params.extra_args == {FIELD: f'{{"ops": [{ADD}]}}'}


@pytest.mark.parametrize(
    "additional", [{KEY: BLOCK}, None, {KEY: {**BLOCK, "max_ops": 3}}], ids=["itself", "without sites", "of other sites"]
)
@pytest.mark.parametrize("change", [{}, {"resumable": True}, {"cache_salt": "x"}, {"prompt_token_ids": [1, 2, 3]}], ids=str)
def test_what_was_admitted_is_taken_as_it_is_and_where_it_was(additional: Any, change: dict[str, Any]) -> None:
    request = asked(f'{{"ops": [{ADD}]}}')
    admit(config(), request)
    for name, value in change.items():
        setattr(request, name, value)
    if not change and additional == {KEY: BLOCK}:
        recheck(config(additional_config=additional), request)
        return
    with pytest.raises(SpecError):
        recheck(config(additional_config=additional), request)


def test_a_worker_takes_no_spec_without_a_mark() -> None:
    """The last line: the engine's own process has ended such a request before."""
    request = asked(f'{{"ops": [{ADD}]}}')
    assert request.sampling_params is not None
    with pytest.raises(SpecError, match="came past admission"):
        mark.check(request.sampling_params.extra_args, 2, sites())
    admit(config(), request)
    mark.check(request.sampling_params.extra_args, 2, sites())
    with pytest.raises(SpecError, match="mark of another request"):
        mark.check(request.sampling_params.extra_args, 3, sites())
    mark.check(None, 2, sites())
    mark.check({"another": 1}, 2, sites())
