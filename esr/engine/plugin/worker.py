"""What the plugin adds to each worker process: hooks at load, a self-test at start, calls that take counts and captures.

Importing this module changes nothing for an engine without sites.

vLLM imports it through `worker_extension_cls`, which the plugin sets when additional_config has sites.
"""

import logging
from collections.abc import Callable
from copy import copy
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from esr.engine.plugin import FAILED
from esr.engine.plugin.bare_rows import leave_bare
from esr.engine.plugin.loading import unpacked
from esr.engine.plugin.probe import self_test
from esr.engine.plugin.relay import relaying
from esr.engine.plugin.site import install, state_of
from esr.engine.plugin.spec import KEY
from esr.errors import EngineError

if TYPE_CHECKING:
    from esr.engine.plugin.state import SteerState

log = logging.getLogger(__name__)


class SteeringWorker:
    """Mixed into vLLM's worker; every name starts with esr_ so that none collides."""

    vllm_config: Any

    def esr_take(self, ids: list[str], rows: list[int | None]) -> list[dict[str, Any] | None]:
        """By id: what was applied, and the capture; None for an id that is not known."""
        state = self.esr_state()
        state.synchronize()
        return [state.take(id, n) for id, n in zip(ids, rows, strict=True)]

    def esr_count(self, ids: list[str], keep: list[bool]) -> list[dict[str, Any] | None]:
        """By id: what was applied so far, and whose it is; what is not to be kept is forgotten."""
        state = self.esr_state()
        state.synchronize()
        counts = [state.count(id) for id in ids]
        for id in (id for id, kept in zip(ids, keep, strict=True) if not kept):
            state.forget(id)
        return counts

    def esr_forget(self, ids: list[str]) -> None:
        for id in ids:
            self.esr_state().forget(id)

    def esr_load(self, directions: dict[str, Any]) -> str:
        """A set of directions, as loading.py sends it; its hash."""
        found = unpacked(directions)
        self.esr_state().bank.load(found)
        return found.shape.sha256

    def esr_stats(self) -> dict[str, int]:
        return self.esr_state().stats()

    def esr_state(self) -> "SteerState":
        state: SteerState | None = state_of(self.vllm_config)
        if state is None:
            raise EngineError("this worker's model was loaded without its hooks; the loader is one that the plugin does not know")
        return state


def _wrapped(owner: type, name: str, make: Callable[[Any], Any]) -> None:
    plain = owner.__dict__[name]
    if not getattr(plain, "esr", False):
        wrapper: Any = wraps(plain)(make(plain))
        wrapper.esr = True
        setattr(owner, name, wrapper)


def _loading(plain: Any) -> Any:
    def load_model(self: Any, vllm_config: Any, model_config: Any, *args: Any, **kwargs: Any) -> Any:
        model = plain(self, vllm_config, model_config, *args, **kwargs)
        block = (vllm_config.additional_config or {}).get(KEY)
        if block and model_config is vllm_config.model_config and state_of(vllm_config) is None:
            install(model, vllm_config, block)
        return model

    return load_model


def _warming(plain: Any) -> Any:
    def compile_or_warm_up_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = plain(self, *args, **kwargs)
        if (self.vllm_config.additional_config or {}).get(KEY):
            self_test(self)
        return out

    return compile_or_warm_up_model


def _preparing(plain: Any) -> Any:
    def _prepare_inputs(self: Any, scheduler_output: Any, num_scheduled_tokens: Any, *args: Any, **kwargs: Any) -> Any:
        out = plain(self, scheduler_output, num_scheduled_tokens, *args, **kwargs)
        state = state_of(self.vllm_config)
        if state is not None:
            from esr.engine.plugin.runners import prepare_v1
            from esr.engine.plugin.seeds import spare_unfinished

            prepare_v1(state, self, np.asarray(num_scheduled_tokens))
            spare_unfinished(self)
        return out

    return _prepare_inputs


def _updating(plain: Any) -> Any:
    def _update_states(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        state = state_of(self.vllm_config)
        if state is not None:
            for request in (*scheduler_output.finished_req_ids, *(scheduler_output.preempted_req_ids or ())):
                state.leave(request, pooled=True)
        return plain(self, scheduler_output, *args, **kwargs)

    return _update_states


def _resting(plain: Any) -> Any:
    def _dummy_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        state = state_of(self.vllm_config)
        if state is not None:
            state.flush()
            state.rest()
        return plain(self, *args, **kwargs)

    return _dummy_run


def _telling(plain: Any) -> Any:
    """A step's answer takes along which requests shall end in an error."""

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = plain(self, *args, **kwargs)
        state = state_of(self.vllm_config)
        if out is None or state is None or not (state.failing and state.rank.last):
            return out
        failed = state.failures()
        log.warning("%d requests end in an error: %s", len(failed), next(iter(failed.values())))
        if hasattr(out, "get_output"):
            answer = out.get_output
            out.get_output = lambda: _with(answer(), failed)
            return out
        return _with(out, failed)

    return step


def _with(out: Any, failed: dict[str, str]) -> Any:
    told = copy(out)
    setattr(told, FAILED, failed)
    return told


def _patch() -> None:
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader
    from vllm.platforms import current_platform
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    from vllm.v1.worker.gpu_worker import Worker

    _wrapped(BaseModelLoader, "load_model", _loading)
    _wrapped(GPUModelRunner, "_update_states", _updating)
    _wrapped(GPUModelRunner, "_prepare_inputs", _preparing)
    _wrapped(GPUModelRunner, "_dummy_run", _resting)
    _wrapped(GPUModelRunner, "execute_model", relaying)
    for name in ("execute_model", "sample_tokens"):
        _wrapped(Worker, name, _telling)
    if current_platform.is_cpu():
        leave_bare()
    else:
        _wrapped(import_module("vllm.v1.worker.gpu.model_runner").GPUModelRunner, "execute_model", relaying)
    module, name = ("cpu_worker", "CPUWorker") if current_platform.is_cpu() else ("gpu_worker", "Worker")
    _wrapped(getattr(import_module(f"vllm.v1.worker.{module}"), name), "compile_or_warm_up_model", _warming)


_patch()
