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

    options, for the `vllm` backend: AsyncEngineArgs of vLLM (enforce_eager, max_num_seqs, …), where requests bring adapters
    enable_lora, max_loras and max_lora_rank; `layers`, blocks to hook besides the model's own.
    """
    block = params.model(model)
    saes = sorted((name, sae.model_dump_json()) for name, sae in params.saes.items())
    key = (backend, block.model_dump_json(), repr(saes), repr(sorted(options.items())))
    with _LOCK:
        if key in _OPEN and _OPEN[key].closed:
            _OPEN.pop(key).close()
        if key not in _OPEN:
            _OPEN[key] = _new(params, model, backend, options)
        return _OPEN[key]


def close_engine(engine: Engine) -> None:
    """Let one engine go, and all that it holds; the next `open_engine` like it opens anew."""
    with _LOCK:
        for key in [key for key, other in _OPEN.items() if other is engine]:
            del _OPEN[key]
    engine.close()


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


@atexit.register
def close_engines() -> None:
    """Close all; the next `open_engine` opens anew."""
    with _LOCK:
        while _OPEN:
            _OPEN.popitem()[1].close()
