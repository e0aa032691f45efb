"""Rows without an adapter beside rows with one, on the CPU.

vLLM marks a row without an adapter by the slot −1, and its CPU operations take that for the last slot: in a batch of both, plain
requests would be answered with somebody's adapter. Here such rows come out of the first of the two products as zeros.
"""

from functools import wraps
from typing import Any

from torch import Tensor


def leave_bare() -> None:
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    plain = lora_ops.bgmv_shrink
    if getattr(plain, "esr", False):
        return

    @wraps(plain)
    def bgmv_shrink(
        inputs: Tensor, weights: Tensor, out: Tensor, slots: Tensor, scaling: float = 1.0
    ) -> None:  # fmt: skip
        plain(inputs, weights, out, slots, scaling)
        out[slots[: len(out)] < 0] = 0

    shrink: Any = bgmv_shrink
    shrink.esr = True
    for module in (lora_ops, punica_cpu):
        setattr(module, "bgmv_shrink", shrink)  # noqa: B010  # mypy knows the attribute as a function of its own
