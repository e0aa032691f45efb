"""The self-test at start: a dummy run through the compiled model must pass every hook that this worker has.

A stale compiled graph, or a loader that went past the plugin, is found here and not in results.
"""

import logging
from typing import TYPE_CHECKING, Any

import torch

from esr.engine.plugin import table as tables
from esr.engine.scope import END
from esr.errors import EngineError

if TYPE_CHECKING:
    from esr.engine.plugin.state import SteerState

log = logging.getLogger(__name__)


def self_test(worker: Any) -> None:
    state = worker.esr_state()
    layers = state.rank.layers
    for tokens in sorted({1, min(32, worker.vllm_config.scheduler_config.max_num_batched_tokens)}) if layers else ():
        begin(state)
        worker.model_runner._dummy_run(tokens)
        count, due = end(state), tokens * len(layers)
        if count < due or count % len(layers):
            raise EngineError(
                f"the self-test steered {count} of {due} tokens times blocks; the compiled model was made without the hooks, so clear "
                "vLLM's compile cache (VLLM_CACHE_ROOT) and start again"
            )
    log.info("self-test passed: blocks %s are hooked", list(layers))


def begin(state: "SteerState") -> None:
    """Steer every token of the next dummy run by nothing at all, and count."""
    row = torch.zeros_like(state.table[state.probe])
    row[1] = END
    for i in range(len(state.site)):
        at = tables.offset(i, state.max_ops)
        row[at], row[at + 1 + 4] = 1, END  # an entry: add nothing of row 0, at every position
    state.table[state.probe] = row
    state.applied[state.probe] = 0
    state.probing = True


def end(state: "SteerState") -> int:
    """Times that an op was applied since."""
    state.probing = False
    state.rest()
    count = int(state.applied[state.probe])
    state.table[state.probe] = 0
    state.applied[state.probe] = 0
    return count
