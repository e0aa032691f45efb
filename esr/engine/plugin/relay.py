"""What a pipeline's ranks hand on beside hidden states: requests that shall end in an error, and why an engine must stop.

vLLM hears the last rank alone: what another one raises is logged and nobody waits for it. So what a rank has found goes with the
hidden states of the same step to the next rank, and with the last one's answer to the engine.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from esr.engine.plugin.site import state_of

if TYPE_CHECKING:
    from esr.engine.plugin.state import SteerState

WORD = "esr_told"
"""Among the tensors of a step."""


def relaying(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Of a model runner's `execute_model`."""

    def execute_model(self: Any, scheduler_output: Any, intermediate_tensors: Any = None, *args: Any, **kwargs: Any) -> Any:
        state = None if kwargs.get("dummy_run") else state_of(self.vllm_config)
        if state is not None and intermediate_tensors is not None:
            hear(state, intermediate_tensors)
        out = plain(self, scheduler_output, intermediate_tensors, *args, **kwargs)
        return told(state, out) if state is not None and not state.rank.last else out

    return execute_model


def told(state: "SteerState", out: Any) -> Any:
    """The step's hidden states, with what has been found so far where there is something."""
    from vllm.sequence import IntermediateTensors

    if not isinstance(out, IntermediateTensors) or not (state.failing or state.failed):
        return out
    text = json.dumps([state.failures(), state.failed]).encode()
    # the shared memory of CPU ranks takes tensors only; between GPUs what is no tensor goes with the description of the tensors
    word: Any = torch.frombuffer(bytearray(text), dtype=torch.uint8) if state.device.type == "cpu" else text
    return IntermediateTensors({**out.tensors, WORD: word})  # vLLM keeps the dict itself for the next step


def hear(state: "SteerState", tensors: Any) -> None:
    """Take what the rank before has found out of what it sent."""
    sent = object.__getattribute__(tensors, "tensors")  # the attribute itself would wait for the hidden states
    word = sent.pop(WORD, None)
    if word is None:
        return
    failing, failed = json.loads(word if isinstance(word, bytes) else word.numpy().tobytes())
    state.failing = failing | state.failing
    state.failed = state.failed or failed
