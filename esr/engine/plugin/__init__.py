"""The vLLM plugin: per-request SAE steering, clamping and capture on stock vLLM.

`register` is vLLM's general plugin entry point, called in every process. It wraps two functions, which do nothing more for an
engine whose additional_config has no `sae_steering`, has beam search refuse what it would drop, has the scheduler end requests
that a worker cannot serve, and lets the engine's processes end with the one that opened them.
"""

from functools import wraps
from typing import Any

from esr.engine.plugin.spec import FIELD, FORMAT, KEY, Sites, Spec, parse

__all__ = ["FIELD", "FORMAT", "KEY", "Sites", "Spec", "parse", "register"]

FAILED = "esr_failed"
"""On what a worker answers after a step: requests that shall end in an error."""
EXTENSION = "esr.engine.plugin.worker.SteeringWorker"


def register() -> None:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.engine.input_processor import InputProcessor

    from esr.engine.plugin.orphans import end_with_parent

    end_with_parent()
    _wrap(EngineArgs, "create_engine_config", _configuring)
    _wrap(InputProcessor, "process_inputs", _admitting)
    _wrap(Scheduler, "update_from_output", _ending)
    for asked in (ChatCompletionRequest, CompletionRequest):
        _wrap(asked, "to_beam_search_params", _searching)


def _wrap(owner: type, name: str, make: Any) -> None:
    plain = getattr(owner, name)
    if not getattr(plain, "esr", False):
        wrapper: Any = wraps(plain)(make(plain))
        wrapper.esr = True
        setattr(owner, name, wrapper)


def _configuring(plain: Any) -> Any:
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        block = (self.additional_config or {}).get(KEY)
        if block:
            if self.worker_extension_cls not in ("", EXTENSION):
                from esr.errors import EngineError

                raise EngineError(f"steering brings its own worker extension; {self.worker_extension_cls!r} is asked for as well")
            self.worker_extension_cls = EXTENSION
        config = plain(self, *args, **kwargs)
        if block:
            from esr.engine.plugin.refusals import check

            check(config, Sites.parse(block))
        return config

    return create_engine_config


def _admitting(plain: Any) -> Any:
    def process_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:
        request = plain(self, *args, **kwargs)
        params = request.sampling_params
        if params is not None and params.extra_args and FIELD in params.extra_args:
            from esr.engine.plugin.admission import admit

            admit(self.vllm_config, request)
        return request

    return process_inputs


def _ending(plain: Any) -> Any:
    def update_from_output(self: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
        """Requests that a worker cannot serve as asked end in an error, by the way of those whose grammar could not be compiled."""
        failed = getattr(model_runner_output, FAILED, None)
        if failed:
            self.grammar_compile_error_reqs.update(request for request in failed if request in self.requests)
        return plain(self, scheduler_output, model_runner_output)

    return update_from_output


def _searching(plain: Any) -> Any:
    def to_beam_search_params(self: Any, *args: Any, **kwargs: Any) -> Any:
        if FIELD in (self.vllm_xargs or {}):
            from esr.engine.plugin.admission import refusal

            raise refusal("a beam search drops what a request asks of the plugin; leave out use_beam_search or the steering spec")
        return plain(self, *args, **kwargs)

    return to_beam_search_params
