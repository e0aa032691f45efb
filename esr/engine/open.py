"""`open_engine`: one engine a model and process, opened when first asked for and closed with the process.

Importing this module loads neither torch nor vLLM.
"""

import atexit
import threading
from typing import TYPE_CHECKING, Any

from esr.engine import Backend, Engine
from esr.errors import EngineError, one_of

if TYPE_CHECKING:
    from esr.params import Params

_LOCK = threading.Lock()
_OPEN: dict[tuple[str, ...], Engine] = {}


def open_engine(params: "Params", model: str, backend: Backend = "vllm", **options: Any) -> Engine:
    """The engine of params.yaml's `model`; the same one for the same block, SAEs and options, a new one where that has closed or died.

    options: AsyncEngineArgs of vLLM (enforce_eager, max_num_seqs, …), for the `vllm` backend.
    """
    key = _key(params, model, backend, options)
    with _LOCK:
        if key in _OPEN and _OPEN[key].closed:
            _OPEN.pop(key).close()
        if key not in _OPEN:
            _OPEN[key] = _new(params, model, backend, options)
        return _OPEN[key]


def already_open(params: "Params", model: str, backend: Backend = "vllm", **options: Any) -> Engine | None:
    """The engine that `open_engine` would return without opening one; None: it would."""
    with _LOCK:
        found = _OPEN.get(_key(params, model, backend, options))
    return None if found is None or found.closed else found


def _key(params: "Params", model: str, backend: Backend, options: dict[str, Any]) -> tuple[str, ...]:
    saes = sorted((name, sae.model_dump_json()) for name, sae in params.saes.items())
    return (backend, params.model(model).model_dump_json(), repr(saes), repr(sorted(options.items())))


def _new(params: "Params", model: str, backend: Backend, options: dict[str, Any]) -> Engine:
    if options and backend != "vllm":
        raise EngineError(f"engine options {sorted(options)} are for the backend 'vllm', not {backend!r}")
    if backend == "vllm":
        from esr.engine.vllm import VllmEngine

        return VllmEngine(params, model, **options)
    if backend == "hf":
        from esr.engine.hf import HfEngine

        return HfEngine.open(params, model)
    if backend == "fake":
        from esr.engine.fake import FakeEngine

        return FakeEngine.open(params, model)
    raise EngineError(one_of("backend", str(backend), ["vllm", "hf", "fake"], "esr.engine"))


def halt_engines() -> None:
    """All that are open let go of their work; none is waited for, also not one that is being opened."""
    for engine in list(_OPEN.values()):
        engine.halt()


@atexit.register
def close_engines() -> None:
    """Close all; the next `open_engine` opens anew."""
    with _LOCK:
        while _OPEN:
            _OPEN.popitem()[1].close()
