"""The vLLM plugin: per-request SAE steering, clamping and capture on stock vLLM.

`register` is vLLM's general plugin entry point, called in every process. It wraps the functions through which a configuration or a
request enters, has beam search refuse what it would drop, has the scheduler end requests
that a worker cannot serve, and lets the engine's processes end with the one that opened them. For
an engine whose additional_config has no `sae_steering` nothing else changes but that a request which asks for steering is refused.
"""

import sys
from functools import wraps
from typing import Any

from esr.engine.plugin.spec import FIELD, FORMAT, KEY, Sites, Spec, parse

__all__ = ["FIELD", "FORMAT", "KEY", "Sites", "Spec", "parse", "register"]

BATCHES = ("vllm.entrypoints.launchers.run_batch", "vllm.entrypoints.openai.run_batch", "__main__")
"""Where `vllm run-batch` lives, by version."""
DOOR = "esr.engine.plugin.door.Door"
FAILED = "esr_failed"
"""On what a worker answers after a step: requests that shall end in an error."""
EXTENSION = "esr.engine.plugin.worker.SteeringWorker"


def register() -> None:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.engine.llm_engine import LLMEngine
    from vllm.v1.engine.output_processor import OutputProcessor

    from esr.engine.plugin.orphans import end_with_parent
    from esr.engine.plugin.tally import entering, following

    end_with_parent()
    _wrap(EngineArgs, "create_engine_config", _configuring)
    _wrap(EngineArgs, "from_cli_args", _parsed)
    _wrap(InputProcessor, "process_inputs", _admitting)
    for engine in (AsyncLLM, LLMEngine):
        _wrap(engine, "add_request", _adding)
    _wrap(AsyncLLM, "_add_streaming_input_request", _opening)
    _wrap(AsyncLLM, "generate", following)
    _wrap(OutputProcessor, "add_request", entering)
    _wrap(EngineCore, "preprocess_add_request", _receiving)
    _wrap(Scheduler, "update_from_output", _ending)
    for asked in (ChatCompletionRequest, CompletionRequest):
        _wrap(asked, "to_beam_search_params", _searching)


def _wrap(owner: type, name: str, make: Any) -> None:
    plain = next(parent.__dict__[name] for parent in owner.__mro__ if name in parent.__dict__)
    bound = isinstance(plain, classmethod)
    plain = plain.__func__ if bound else plain
    if not getattr(plain, "esr", False):
        wrapper: Any = wraps(plain)(make(plain))
        wrapper.esr = True
        setattr(owner, name, classmethod(wrapper) if bound else wrapper)


def _parsed(plain: Any) -> Any:
    """A server's command line, whose middlewares vLLM adds when it builds the app."""

    def from_cli_args(cls: Any, args: Any) -> Any:
        middleware = getattr(args, "middleware", None)
        if middleware is not None and DOOR not in middleware:
            args.middleware = [DOOR, *middleware]  # innermost, before anything that compresses
        for name in BATCHES:
            line = getattr(sys.modules.get(name), "BatchRequestInput", None)
            if line is not None:
                _wrap(line, "model_validate_json", _batched)
        return plain(cls, args)

    return from_cli_args


def _batched(plain: Any) -> Any:
    """A line of `vllm run-batch`, whose handlers no middleware surrounds."""

    def model_validate_json(cls: Any, text: Any, *args: Any, **kwargs: Any) -> Any:
        from esr.engine.plugin.wire import check_line

        check_line(text)
        return plain(cls, text, *args, **kwargs)

    return model_validate_json


def _configuring(plain: Any) -> Any:
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        from esr.engine.plugin.refusals import check, check_keys

        check_keys(self.additional_config)
        block = (self.additional_config or {}).get(KEY)
        if block:
            if self.worker_extension_cls not in ("", EXTENSION):
                from esr.errors import EngineError

                raise EngineError(f"steering brings its own worker extension; {self.worker_extension_cls!r} is asked for as well")
            self.worker_extension_cls = EXTENSION
        config = plain(self, *args, **kwargs)
        if block:
            check(config, Sites.parse(block))
        return config

    return create_engine_config


def _admitting(plain: Any) -> Any:
    from esr.engine.plugin.admission import admit

    def process_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:
        request = plain(self, *args, **kwargs)
        if request.cache_salt or (request.sampling_params is not None and request.sampling_params.extra_args):
            admit(self.vllm_config, request)
        return request

    return process_inputs


def _adding(plain: Any) -> Any:
    """A request that somebody built by hand does not pass `process_inputs`."""
    from esr.engine.plugin.admission import recheck

    def add_request(self: Any, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        if hasattr(prompt, "sampling_params"):
            recheck(self.vllm_config, prompt, params)
        return plain(self, request_id, prompt, params, *args, **kwargs)

    return add_request


def _opening(plain: Any) -> Any:
    """A session's own parameters, which its chunks may replace."""

    def _add_streaming_input_request(self: Any, request_id: str, stream: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        if FIELD in (getattr(params, "extra_args", None) or {}):
            from esr.engine.plugin.admission import refusal
            from esr.engine.plugin.mark import SESSION

            raise refusal(SESSION)
        return plain(self, request_id, stream, params, *args, **kwargs)

    return _add_streaming_input_request


def _receiving(plain: Any) -> Any:
    """In the engine's own process, where front ends that know no plugin meet it too; an error here ends the one request."""
    from esr.engine.plugin.admission import recheck
    from esr.engine.plugin.ending import remember

    def preprocess_add_request(self: Any, request: Any) -> Any:
        if request.sampling_params is not None and request.sampling_params.extra_args:
            recheck(self.vllm_config, request)
            if FIELD in request.sampling_params.extra_args:
                remember(self.scheduler, request)
        return plain(self, request)

    return preprocess_add_request


def _ending(plain: Any) -> Any:
    def update_from_output(self: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
        if failed := getattr(model_runner_output, FAILED, None):
            from esr.engine.plugin.ending import end

            end(self, model_runner_output, failed)
        return plain(self, scheduler_output, model_runner_output)

    return update_from_output


def _searching(plain: Any) -> Any:
    def to_beam_search_params(self: Any, *args: Any, **kwargs: Any) -> Any:
        if FIELD in (self.vllm_xargs or {}):
            from esr.engine.plugin.admission import refusal

            raise refusal("a beam search drops what a request asks of the plugin; leave out use_beam_search or the steering spec")
        return plain(self, *args, **kwargs)

    return to_beam_search_params
