"""`open_engine`: one engine a model and process, opened when first asked for and closed with the process.

$ESR_WORKERS says how many processes it is made of (esr/engine/fleet.py); unset, it is this one's. Importing this module loads neither torch nor vLLM.
"""

import atexit
import multiprocessing
import threading
from typing import TYPE_CHECKING, Any

from esr.engine import Backend, Engine
from esr.engine.share import summons, workers
from esr.errors import EngineError, one_of

if TYPE_CHECKING:
    from esr.engine.fleet import Seen
    from esr.params import Params

_LOCK = threading.Lock()
_OPEN: dict[tuple[str, ...], Engine] = {}


def open_engine(params: "Params", model: str, backend: Backend = "vllm", *, saes: bool = True, **options: Any) -> Engine:
    """The engine of params.yaml's `model`; the same one for the same block, SAEs and options, a new one where that has closed or died.

    Without `saes` none is opened: directions can be added and the stream itself read, before there is an SAE.

    options, for the `vllm` backend: AsyncEngineArgs of vLLM (enforce_eager, max_num_seqs, …), where requests bring adapters
    enable_lora, max_loras and max_lora_rank; `layers`, blocks to hook besides the model's own.
    """
    key = (*_key(params, model, backend, options), *(() if saes else ("no SAE",)))
    with _LOCK:
        if key in _OPEN and _OPEN[key].closed:
            _OPEN.pop(key).close()
        if key not in _OPEN:
            _OPEN[key] = _new(params, model, backend, saes, options)
        return _as(_OPEN[key], params, model)


def _as(engine: Engine, params: "Params", model: str) -> Engine:
    """The engine as this model: with its adapter, where it has one and the engine is shared."""
    from esr.engine.shared import Adapted

    adapter = params.model(model).adapter
    return Adapted(engine, adapter) if adapter else engine


def already_open(params: "Params", model: str, backend: Backend = "vllm", **options: Any) -> Engine | None:
    """The engine that `open_engine` would return without opening one; None: it would."""
    with _LOCK:
        found = _OPEN.get(_key(params, model, backend, options))
    return None if found is None or found.closed else _as(found, params, model)


def _key(params: "Params", model: str, backend: Backend, options: dict[str, Any]) -> tuple[str, ...]:
    """The same for models that share an engine."""
    from esr.engine.shared import SET_APART, adapters

    block = params.model(model)
    saes = sorted((name, sae.model_dump_json()) for name, sae in params.saes.items())
    apart = {field: getattr(block, field) for field in SET_APART}
    return (backend, repr(apart), repr(adapters(params, model)), repr(saes), repr(sorted(options.items())))


def close_engine(engine: Engine) -> None:
    """Let one engine go, and all that it holds; the next `open_engine` like it opens anew."""
    with _LOCK:
        for key in [key for key, other in _OPEN.items() if other is getattr(engine, "engine", engine)]:
            del _OPEN[key]
    engine.close()


def _new(params: "Params", model: str, backend: Backend, saes: bool, options: dict[str, Any]) -> Engine:
    called = summons()
    if (n := workers()) > 1 or called:
        from esr.engine.fleet import Fleet

        return Fleet(n, params, model, backend, saes, options, called)
    return alone(params, model, backend, saes, options)


def alone(params: "Params", model: str, backend: Backend, saes: bool, options: dict[str, Any]) -> Engine:
    """A new engine of this process, which `open_engine` knows nothing of."""
    from esr.engine import shared

    if options and backend != "vllm":
        raise EngineError(f"engine options {sorted(options)} are for the backend 'vllm', not {backend!r}")
    folders = shared.adapters(params, model)
    params = shared.base(params, model)
    if backend == "vllm":
        from esr.engine.vllm import VllmEngine

        return VllmEngine(params, model, saes=saes, **{**(shared.options(folders) if folders else {}), **options})
    if backend == "hf":
        from esr.engine.hf import HfEngine

        return HfEngine.open(params, model, saes=saes)
    if backend == "fake":
        from esr.engine.fake import FakeEngine

        return FakeEngine.open(params, model)
    raise EngineError(one_of("backend", str(backend), ["vllm", "hf", "fake"], "esr.engine"))


def seen() -> list["Seen"]:
    """The workers of the engines that are open."""
    return [one for engine in list(_OPEN.values()) for one in getattr(engine, "seen", list)()]


def halt_engines() -> None:
    """All that are open let go of their work; none is waited for, also not one that is being opened."""
    for engine in list(_OPEN.values()):
        engine.halt()


def close_engines() -> None:
    """Close all; the next `open_engine` opens anew."""
    with _LOCK:
        while _OPEN:
            _OPEN.popitem()[1].close()


@atexit.register
def end_engines() -> None:
    """With the process. One that another thread is still opening is ended and not waited for: it would never be open, since a process
    that ends starts no more threads."""
    if _LOCK.acquire(blocking=False):
        _LOCK.release()
        close_engines()
    else:
        for child in multiprocessing.active_children():
            child.kill()
