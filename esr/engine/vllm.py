"""The production engine: stock vLLM with the steering plugin, asynchronous inside, callable from any thread.

One event loop in a background thread owns the engine; every caller's requests join one continuous batch. After a reply its counts
are taken from the worker: an intervention that was not applied as often as it was due is an EngineError.
"""

import asyncio
import atexit
import logging
import os
import signal
import threading
import uuid
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import numpy as np

from esr.engine import Output, Reading, Request
from esr.engine.admission import Admission, fitting, span
from esr.engine.chat import Chat
from esr.engine.options import engine_options, sites_for
from esr.engine.plugin.spec import END, FIELD, Spec
from esr.errors import EngineError, Halted, SpecError
from esr.params import ModelParams, Params, resolve
from esr.sae import open_sae

log = logging.getLogger(__name__)
T = TypeVar("T")

CPU_DEFAULTS = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
"""GiB of key-value cache: vLLM would take half the machine."""
CPU_OPTIONS: dict[str, Any] = {"enforce_eager": True, "max_num_seqs": 512}
"""Compiling takes 20 s of every start and makes small models no faster; twice vLLM's sequences make a quarter more replies a second."""
ONE_PROCESS = {"distributed_executor_backend": "vllm.v1.executor.uniproc_executor.UniProcExecutor"}
"""On a CPU vLLM would give even a single rank a process of its own: 14 s more to start, and an eighth of the speed lost waiting."""
QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "TQDM_DISABLE": "1"}


@dataclass(frozen=True, slots=True)
class Taken:
    """What a worker says of one request."""

    executed: int
    expected: int
    stays: int
    """On the device; more than one where it was preempted."""
    error: str | None
    capture: dict[str, Any] | None


@dataclass(slots=True)
class Ticket:
    id: str
    rows: int
    future: "asyncio.Future[Taken]"


class VllmEngine:
    """Engine over vLLM's AsyncLLM. `options` go to AsyncEngineArgs and win over what params.yaml implies."""

    def __init__(self, params: Params, name: str, **options: Any) -> None:
        self.params = params
        self.block: ModelParams = params.model(name)
        self.sites = sites_for(params, name)
        for key, value in QUIET.items():
            os.environ.setdefault(key, value)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name=f"vllm-{name}", daemon=True)
        self._thread.start()
        self._closed = self._halted = False
        self._at_work: set[asyncio.Task[Any]] = set()
        self._tickets: list[Ticket] = []
        self._collecting = False
        try:
            self._engine = self._call(self._start(options))
        except BaseException:
            self._stop_loop()
            raise
        atexit.register(self.close)
        config = self._engine.model_config
        tokenizer = self._tokenizer()
        self.chat = Chat(tokenizer, self.block.family)
        self.max_model_len: int = config.max_model_len
        self.vocabulary: int = config.get_vocab_size()
        self.admission = Admission(
            config.get_total_num_hidden_layers(), config.get_hidden_size(), lambda sae: open_sae(params, sae),
            self.block.allow_layer_mismatch,
        )  # fmt: skip

    # the protocol

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        self._check_open()
        plans = [self._plan(request) for request in requests]
        return self._call(self._gather([self._generate(request, *plan) for request, plan in zip(requests, plans, strict=True)]))

    def read(self, requests: Sequence[Request]) -> list[Reading]:
        self._check_open()
        plans = [self._plan(request, reading=True) for request in requests]
        return self._call(self._gather([self._read(ids, spec) for ids, spec in plans]))

    def render(self, prompt: str, prompt_format: str = "clean", prefill: str = "") -> tuple[int, ...]:
        return self.chat.render(prompt, prompt_format, prefill)

    def offsets(self, token_ids: Sequence[int]) -> list[tuple[int, int]]:
        return self.chat.offsets(token_ids)

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        saes = {f"sae/{name}": sha for name, sha in self.sites.sha256.items()}
        found = {f"{package}_version": version(package) for package in ("torch", "transformers")}
        return found | saes | {
            "backend": "vllm", "vllm_version": _vllm_version(), "model": self.block.weights, "dtype": self.block.dtype,
            "quantization": self.block.quantization or "none", "layers": ",".join(map(str, self.sites.layers)),
            "sites": self.sites.digest, "tensor_parallel": str(self.block.tensor_parallel),
        }  # fmt: skip

    @property
    def closed(self) -> bool:
        """It answers no more: closed, or dead."""
        return self._closed or bool(self._engine.errored)

    def halt(self) -> None:
        self._halted = True
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._let_go)

    def close(self) -> None:
        """End the engine's processes; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._stop_loop()
        del self._engine

    def stats(self) -> dict[str, int]:
        """What the worker holds; all zero counts when idle."""
        self._check_open()
        found: dict[str, int] = self._call(self._engine.collective_rpc("esr_stats"))[0]
        return found

    # inside the loop

    async def _start(self, options: dict[str, Any]) -> Any:
        from esr.engine.plugin import register

        for key, value in CPU_DEFAULTS.items():
            os.environ.setdefault(key, value)
        register()
        from vllm import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        asked = engine_options(self.block, self.sites) | options
        if current_platform.is_cpu():
            asked = CPU_OPTIONS | (ONE_PROCESS if asked["tensor_parallel_size"] == 1 else {}) | asked
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**asked))

    async def _end(self) -> None:
        self._engine.shutdown()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _gather(self, work: list[Coroutine[Any, Any, T]]) -> list[T]:
        """All or nothing: the first failure aborts the rest. When it is told to let go, what had finished is handed over."""
        tasks = [asyncio.ensure_future(one) for one in work]
        self._at_work.update(tasks)
        if self._halted:
            self._let_go()
        try:
            return list(await asyncio.gather(*tasks))
        except asyncio.CancelledError:
            if not self._halted:
                raise
            raise Halted({i: task.result() for i, task in enumerate(tasks) if _succeeded(task)}) from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._at_work.difference_update(tasks)

    def _let_go(self) -> None:
        for task in self._at_work:
            task.cancel()

    async def _generate(self, request: Request, ids: tuple[int, ...], spec: Spec) -> Output:
        limit = min(request.sampling.max_tokens, self.max_model_len - len(ids))
        reply, finish, cached = await self._run(ids, spec, self._sampling(request, limit))
        n_rows = len(ids) + len(reply) - 1
        taken = await self._take(spec, n_rows)
        return Output(
            text=self.chat.decode(reply), token_ids=tuple(reply), prompt_token_ids=ids, finish_reason=finish,
            applied=_applied(spec, taken, len(ids), n_rows, cached), reading=_reading(spec, taken),
        )  # fmt: skip

    async def _read(self, ids: tuple[int, ...], spec: Spec) -> Reading:
        from vllm import SamplingParams

        _, _, cached = await self._run(ids, spec, SamplingParams(max_tokens=1, temperature=0, detokenize=False))
        taken = await self._take(spec, len(ids))
        _applied(spec, taken, len(ids), len(ids), cached)
        reading = _reading(spec, taken)
        assert reading is not None
        return reading

    async def _run(self, ids: tuple[int, ...], spec: Spec, sampling: Any) -> tuple[list[int], str, int]:
        """The reply, why it ended, and how much of the prompt came from the prefix cache."""
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        sampling.output_kind = RequestOutputKind.FINAL_ONLY
        if spec.id:
            sampling.extra_args = {FIELD: spec.as_json()}
        done = False
        try:
            prompt = TokensPrompt(prompt_token_ids=list(ids))
            async for output in self._engine.generate(prompt, sampling, request_id=uuid.uuid4().hex, lora_request=self._adapter):
                final, cached = output.outputs[0], output.num_cached_tokens or 0
            done = True
        except ValueError as error:
            raise SpecError(str(error)) from error
        except Exception as error:  # vLLM's own kinds, which callers do not know
            raise EngineError(f"vLLM failed on a request and may have to be opened again: {error!r:.300}") from error
        finally:
            if spec.id and not done and not self._closed and not self._halted and not self._engine.errored:
                await self._engine.collective_rpc("esr_forget", args=([spec.id],))
        if final.finish_reason not in ("stop", "length"):
            raise EngineError(f"vLLM ended a request with {final.finish_reason!r}, neither stop nor length")
        return list(final.token_ids), str(final.finish_reason), cached

    @cached_property
    def _adapter(self) -> Any:
        if not self.block.adapter:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest("adapter", 1, str(resolve(self.block.adapter)))

    async def _take(self, spec: Spec, n_rows: int) -> Taken | None:
        """Ask together with whoever else waits: one call to the worker for many replies."""
        if not spec.id:
            return None
        ticket = Ticket(spec.id, n_rows, self._loop.create_future())
        self._tickets.append(ticket)
        if not self._collecting:
            self._collecting = True
            self._collector = asyncio.ensure_future(self._collect())
        return await ticket.future

    async def _collect(self) -> None:
        while self._tickets:
            tickets, self._tickets = self._tickets[:256], self._tickets[256:]
            args = ([ticket.id for ticket in tickets], [ticket.rows for ticket in tickets])
            try:
                answers = (await self._engine.collective_rpc("esr_take", args=args))[0]
            except Exception as error:  # handed to whoever waits
                for ticket in tickets:
                    if not ticket.future.done():
                        ticket.future.set_exception(EngineError(f"the worker did not answer: {error!r:.200}"))
                continue
            for ticket, answer in zip(tickets, answers, strict=True):
                if not ticket.future.done():
                    ticket.future.set_result(
                        Taken(**answer) if answer else Taken(0, 0, 0, "the worker does not know this request", None)
                    )
        self._collecting = False

    def _run_loop(self) -> None:
        """Processes inherit what the thread that starts them does not hear. Ctrl-C in a terminal reaches all of its processes, and only
        this one is to judge what it means: an engine that dies of it takes the replies at work along."""
        resource_tracker.ensure_running()  # in starting it hears SIGINT again
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed; open it again")

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=60)
        if not self._thread.is_alive():
            self._loop.close()

    # requests to vLLM's terms

    def _plan(self, request: Request, *, reading: bool = False) -> tuple[tuple[int, ...], Spec]:
        self.admission.check(request, reading=reading)
        ids = self._ids(request)
        n_prompt = len(self.render(request.prompt, request.prompt_format)) if reading and request.prompt else len(ids)
        capture = request.capture
        if capture is not None:
            rows = len(ids) if reading else len(ids) + request.sampling.max_tokens
            self.admission.check_size(capture, n_prompt, rows)
            if capture.mode == "max" and not span(capture.positions, n_prompt).within(0, rows):
                raise SpecError(f"a capture of mode 'max' over {capture.positions!r}, which holds no position of this sequence")
            if n_prompt != len(ids):
                capture = replace(capture, positions=_absolute(capture.positions, n_prompt))
        scope = request.scope if n_prompt == len(ids) else _absolute(request.scope, n_prompt)
        steered = bool(request.ops or capture)
        return ids, Spec(ops=request.ops, scope=scope, capture=capture, id=uuid.uuid4().hex if steered else "")

    def _ids(self, request: Request) -> tuple[int, ...]:
        ids = request.token_ids or self.render(request.prompt, request.prompt_format, request.prefill)
        return fitting(ids, self.max_model_len, self.vocabulary)

    def _sampling(self, request: Request, limit: int) -> Any:
        from vllm import SamplingParams

        s = request.sampling
        return SamplingParams(
            temperature=s.temperature, top_p=s.top_p, repetition_penalty=s.repetition_penalty, max_tokens=limit, seed=request.seed,
            stop_token_ids=list(self.chat.stop_ids), ignore_eos=True, detokenize=False,
        )  # fmt: skip

    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        local = resolve(self.block.hub)
        if local.is_dir():
            return AutoTokenizer.from_pretrained(str(local))
        return AutoTokenizer.from_pretrained(self.block.hub, revision=self.block.revision)


def _succeeded(task: "asyncio.Task[Any]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _absolute(scope: str, n_prompt: int) -> str:
    found = span(scope, n_prompt)
    return f"[{found.lo},{END if found.hi is None else found.hi})"


def _applied(spec: Spec, taken: Taken | None, n_prompt: int, n_rows: int, cached: int) -> int:
    """Positions of the sequence steered, over the request's blocks. Those read from the prefix cache were steered when made; the
    device must have steered the others itself. After a preemption more may come from the cache than vLLM tells."""
    if taken is None or not spec.ops:
        return 0
    lo, hi = spec.steered(n_prompt)
    blocks = len({op.layer for op in spec.ops})
    due, fresh = (max(0, min(hi, n_rows) - first) * blocks for first in (lo, max(lo, cached)))
    if taken.executed != taken.expected:
        raise EngineError(
            f"an intervention was applied {taken.executed} times where {taken.expected} were due; the reply is discarded"
        )
    if taken.executed < fresh and taken.stays == 1:
        raise EngineError(
            f"an intervention due {fresh} times outside the prefix cache was applied {taken.executed} times; the reply is discarded"
        )
    return due


def _reading(spec: Spec, taken: Taken | None) -> Reading | None:
    if spec.capture is None or taken is None:
        return None
    if taken.error or taken.capture is None:
        raise EngineError(f"a capture failed: {taken.error or 'nothing came back'}")
    found = taken.capture
    indices = found["indices"]
    positions = np.frombuffer(found["positions"], np.int32)
    return Reading(
        positions=positions, values=np.frombuffer(found["values"], np.float32).reshape(found["shape"]),
        indices=None if indices is None else np.frombuffer(indices, np.int32).reshape(found["shape"]), expected=found["expected"],
    )  # fmt: skip


def _vllm_version() -> str:
    import vllm

    return str(vllm.__version__)
