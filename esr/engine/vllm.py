"""The production engine: stock vLLM with the steering plugin, asynchronous inside, callable from any thread.

One event loop in a background thread owns the engine; every caller's requests join one continuous batch. After a reply its counts
are taken from the worker: an intervention that was not applied as often as it was due is an EngineError.
"""

import asyncio
import atexit
import logging
import signal
import threading
import uuid
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]  # it comes without types

from esr.engine import Output, Reading, Request, surroundings
from esr.engine import log as engine_log
from esr.engine.adapter import Adapter
from esr.engine.admission import Admission, fitting
from esr.engine.chat import Chat
from esr.engine.directions import read_directions
from esr.engine.intervention import Intervention
from esr.engine.options import engine_options, graphs, sites_for
from esr.engine.plugin.admission import sites_of
from esr.engine.plugin.loading import load_directions
from esr.engine.plugin.ranks import ask_stages, fullest, joined
from esr.engine.plugin.spec import FIELD, Spec
from esr.engine.scope import END, span
from esr.engine.taken import Taken, applied, reading
from esr.errors import EngineError, EsrError, Halted, SpecError
from esr.params import ModelParams, Params, source
from esr.sae import open_sae
from esr.types import Op

log = logging.getLogger(__name__)
T = TypeVar("T")

CPU_OPTIONS: dict[str, Any] = {"enforce_eager": True, "max_num_seqs": 512}
"""Compiling takes 20 s of every start and makes small models no faster; twice vLLM's sequences make a quarter more replies a second."""
ONE_PROCESS = {"distributed_executor_backend": "vllm.v1.executor.uniproc_executor.UniProcExecutor"}
"""On a CPU vLLM would give even a single rank a process of its own: 14 s more to start, and an eighth of the speed lost waiting."""


@dataclass(slots=True)
class Ticket:
    id: str
    rows: int
    future: "asyncio.Future[Taken]"


class VllmEngine:
    """Engine over vLLM's AsyncLLM. `options` go to AsyncEngineArgs and win over what params.yaml implies; `layers` are hooked besides
    those of the model's experiments; without `saes` none is opened, and only the stream itself can be read."""

    def __init__(self, params: Params, name: str, *, layers: Sequence[int] = (), saes: bool = True, **options: Any) -> None:
        self.params = params
        self.block: ModelParams = params.model(name)
        sites = sites_for(params, name, saes=saes)
        self.sites = replace(sites, layers=tuple(sorted({*sites.layers, *layers})))
        surroundings.settle()
        self.log = engine_log.new(name)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name=f"vllm-{name}", daemon=True)
        self._thread.start()
        self._closed = self._halted = False
        self._at_work: set[asyncio.Task[Any]] = set()
        self._tickets: list[Ticket] = []
        self._collecting = False
        try:
            self._engine = self._call(self._start(options))
        except BaseException as error:
            self._stop_loop()
            if isinstance(error, EsrError) or not isinstance(error, Exception):
                raise
            raise engine_log.failure(f"vLLM cannot open {name!r}: {engine_log.short(error)}", self.log) from error
        atexit.register(self.close)
        config = self._engine.model_config
        tokenizer = self._tokenizer()
        self.chat = Chat(tokenizer, self.block.family)
        self.max_model_len: int = config.max_model_len
        self.vocabulary: int = config.get_vocab_size()
        self.admission = Admission(
            config.get_total_num_hidden_layers(), config.get_hidden_size(), lambda sae: open_sae(params, sae),
            self.block.allow_layer_mismatch, sites_of(self._engine.vllm_config).known,
        )  # fmt: skip
        self._adapters: set[str] = set()

    # the protocol

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        self._check_open()
        plans = [self._plan(request) for request in requests]
        return self._call(self._gather([self._generate(request, *plan) for request, plan in zip(requests, plans, strict=True)]))

    def load_directions(self, name: str, path: Path, layer: int | None = None) -> str:
        """A set of directions under a name, for requests from now on; its hash. `layer`: the block of a file of one tensor."""
        self._check_open()
        return self._call(load_directions(self._engine, name, read_directions(name, path, layer)))

    def read(self, requests: Sequence[Request]) -> list[Reading]:
        self._check_open()
        plans = [self._plan(request, reading=True) for request in requests]
        return self._call(self._gather([self._read(request, *plan) for request, plan in zip(requests, plans, strict=True)]))

    def render(self, prompt: str, prompt_format: str = "clean", prefill: str | tuple[int, ...] = "") -> tuple[int, ...]:
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
            "pipeline_parallel": str(self.block.pipeline_parallel),
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
        """What a worker holds, where several are a pipeline the one that holds most; all zero counts when idle."""
        self._check_open()
        return fullest(self._call(ask_stages(self._engine, "esr_stats")))

    # inside the loop

    async def _start(self, options: dict[str, Any]) -> Any:
        from esr.engine.plugin import register

        engine_log.into(self.log)
        register()
        from vllm import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        asked = engine_options(self.block, self.sites) | options
        with surroundings.preloading():
            if current_platform.is_cpu():
                one = asked["tensor_parallel_size"] == asked["pipeline_parallel_size"] == 1
                asked = CPU_OPTIONS | (ONE_PROCESS if one else {}) | asked
                return AsyncLLM.from_engine_args(AsyncEngineArgs(**asked))
            asked = graphs(asked, current_platform.get_device_total_memory()) | asked
            # 1,024 sequences at once on an H100, as vLLM gives whole batches there; an engine of no named use gets 128
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**asked), usage_context=UsageContext.LLM_CLASS)

    async def _end(self) -> None:
        with suppress(psutil.NoSuchProcess):  # vLLM asks after a process of its own that has ended meanwhile
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
        reply, finish, cached = await self._run(ids, spec, self._sampling(request, limit), request.adapter)
        n_rows = len(ids) + len(reply) - 1
        taken = await self._take(spec, n_rows)
        return Output(
            text=self.chat.decode(reply), token_ids=tuple(reply), prompt_token_ids=ids, finish_reason=finish,
            applied=applied(spec, taken, (*ids, *reply)[:n_rows], len(ids), cached), reading=reading(spec, taken),
            directions=tuple(sorted(spec.hashes(sites_of(self._engine.vllm_config)).items())),
        )  # fmt: skip

    async def _read(self, request: Request, ids: tuple[int, ...], spec: Spec) -> Reading:
        from vllm import SamplingParams

        sampling = SamplingParams(max_tokens=1, temperature=0, detokenize=False)
        _, _, cached = await self._run(ids, spec, sampling, request.adapter)
        taken = await self._take(spec, len(ids))
        applied(spec, taken, ids, len(ids), cached)
        found = reading(spec, taken)
        assert found is not None
        return found

    async def _run(self, ids: tuple[int, ...], spec: Spec, sampling: Any, adapter: str) -> tuple[list[int], str, int]:
        """The reply, why it ended, and how much of the prompt came from the prefix cache."""
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        sampling.output_kind = RequestOutputKind.FINAL_ONLY
        if spec.id:
            sampling.extra_args = {FIELD: spec.as_json()}
        lora = await self._lora(adapter or self.block.adapter or "")
        done = False
        try:
            prompt = TokensPrompt(prompt_token_ids=list(ids))
            async for output in self._engine.generate(prompt, sampling, request_id=uuid.uuid4().hex, lora_request=lora):
                final, cached = output.outputs[0], output.num_cached_tokens or 0
            done = True
        except ValueError as error:
            raise SpecError(str(error)) from error
        except Exception as error:  # vLLM's own kinds, which callers do not know
            told = f"vLLM failed on a request and may have to be opened again: {error!r:.300}"
            raise engine_log.failure(told, self.log) from error
        finally:
            if spec.id and not done and not self._closed and not self._halted and not self._engine.errored:
                await self._engine.collective_rpc("esr_forget", args=([spec.id],))
        if final.finish_reason not in ("stop", "length"):
            taken = await self._take(spec, len(ids)) if not self._engine.errored else None
            why = taken.error if taken and taken.error else f"vLLM ended it with {final.finish_reason!r}, neither stop nor length"
            raise EngineError(f"a request failed: {why}")
        return list(final.token_ids), str(final.finish_reason), cached

    async def _lora(self, folder: str) -> Any:
        """vLLM's name for an adapter, which is loaded before the first request that wants it."""
        if not folder:
            return None
        from vllm.lora.request import LoRARequest

        config = self._engine.vllm_config.lora_config
        if config is None:
            raise SpecError(
                f"the adapter {folder!r} is asked of an engine without any; open it with enable_lora=True and max_lora_rank"
            )
        adapter = Adapter.of(folder)
        if adapter.rank > config.max_lora_rank:
            raise SpecError(
                f"the adapter {folder!r} has rank {adapter.rank}; this engine takes {config.max_lora_rank} (max_lora_rank)"
            )
        lora = LoRARequest(adapter.name, adapter.number, str(adapter.folder))
        if adapter.name not in self._adapters:
            try:
                await self._engine.add_lora(lora)
            except Exception as error:  # vLLM's own kinds, which callers do not know
                raise SpecError(f"vLLM cannot serve the adapter {folder!r}: {' '.join(str(error).split())[:300]}") from error
            self._adapters.add(adapter.name)
        return lora

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
                stages = await ask_stages(self._engine, "esr_take", *args)
            except Exception as error:  # handed to whoever waits
                for ticket in tickets:
                    if not ticket.future.done():
                        ticket.future.set_exception(engine_log.failure(f"the worker did not answer: {error!r:.200}", self.log))
                continue
            for i, ticket in enumerate(tickets):
                answer = joined([stage[i] for stage in stages])
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
        steered = bool(request.ops or capture)
        spec = Spec(ops=request.ops, scope=request.scope, capture=capture, id=uuid.uuid4().hex if steered else "")
        if n_prompt != len(ids):
            spec = replace(spec, ops=tuple(_absolute_op(op, n_prompt) for op in spec.ops), scope=_absolute(spec.scope, n_prompt))
        limit = min(request.sampling.max_tokens, self.max_model_len - len(ids))
        spec.check(self.sites, len(ids), len(ids) if reading else len(ids) + limit - 1)
        return ids, spec

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

        where, revision = source(self.block.hub, self.block.revision)
        return AutoTokenizer.from_pretrained(where, **revision)


def _succeeded(task: "asyncio.Task[Any]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _absolute(scope: str, n_prompt: int) -> str:
    found = span(scope, n_prompt)
    return f"[{found.lo},{END if found.hi is None else found.hi})" + ("" if found.after is None else f" after {found.after}")


def _absolute_op(op: Op, n_prompt: int) -> Op:
    """The same in a sequence that is all prompt: a reading's reply counts as generated."""
    if not isinstance(op, Intervention):
        return op
    if op.schedule:
        raise SpecError("a reading takes no schedule over generated tokens; give the ops the scopes and values that it means")
    return replace(op, scope=op.scope and _absolute(op.scope, n_prompt))


def _vllm_version() -> str:
    import vllm

    return str(vllm.__version__)
