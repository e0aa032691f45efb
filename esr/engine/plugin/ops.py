"""The one operation inside the forward pass: what a hooked block does to its stream, opaque to torch.compile.

    x  = float32(h) + float32(r)              the residual stream; vLLM carries its two summands apart
    c  = value                                add
    c  = value − act(x · W_enc[i] + b_enc[i])  clamp
    h ← dtype(float32(h) + Σ c · W_dec[i])

Every intervention sees the same x. A token without any is not written, and neither is a dimension whose sum is exactly zero, so
that both stay bit for bit. Which ops belong to which token is data in tables with fixed addresses: a replayed CUDA graph reads
what the next step wrote there.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from vllm.forward_context import get_forward_context
from vllm.utils.torch_utils import direct_register_custom_op

if TYPE_CHECKING:
    from esr.engine.plugin.state import SteerState

CONTEXT = "esr.steering"
"""Where vLLM's forward context holds the state."""
ADD, CLAMP = 0, 1
BEFORE, AFTER = 0, 1
HEAD = 6
"""A table row: lo, hi, captured site + 1, stage, capture lo, capture hi; then for each site n and n triples (kind, row, value)."""
ENTRIES = 1 << 22
"""Numbers gathered at once by the reference: 16 MiB."""


def row_width(sites: int, max_ops: int) -> int:
    return HEAD + sites * (1 + 3 * max_ops)


def steer(h: Tensor, r: Tensor, positions: Tensor, layer: int) -> None:
    """Interventions and captures after block `layer`; h changes in place."""
    state: SteerState | None = get_forward_context().no_compile_layers.get(CONTEXT)
    assert state is not None, "a hooked block runs in an engine without steering state"
    site = state.site[layer]
    if h.is_cuda:
        from esr.engine.plugin import kernel

        kernel.steer(h, r, positions, state, site)
    else:
        reference(h, r, positions, state, site)


def _fake(h: Tensor, r: Tensor, positions: Tensor, layer: int) -> None:
    return None


def register() -> None:
    if not hasattr(torch.ops.vllm, "esr_steer"):
        direct_register_custom_op("esr_steer", steer, mutates_args=["h"], fake_impl=_fake)


def reference(h: Tensor, r: Tensor, positions: Tensor, state: "SteerState", site: int) -> None:
    """In torch on the CPU: what the kernel computes, token by token."""
    tokens = len(h)
    slots = state.tok2slot.numpy()[:tokens]
    rows = state.table.numpy()[slots]
    at = positions.numpy()[:tokens]
    offset = HEAD + site * (1 + 3 * state.max_ops)
    n = np.where((rows[:, 0] <= at) & (at < rows[:, 1]), rows[:, offset], 0)
    captured = (rows[:, 2] == site + 1) & (rows[:, 4] <= at) & (at < rows[:, 5])
    before = torch.from_numpy(np.flatnonzero(captured & (rows[:, 3] == BEFORE)))
    after = torch.from_numpy(np.flatnonzero(captured & (rows[:, 3] == AFTER)))
    if len(before):
        state.rows[before] = h[before].float() + r[before].float()
    _intervene(h, r, n, rows[:, offset + 1 :], state)
    if len(after):
        state.rows[after] = h[after].float() + r[after].float()
    steered = np.flatnonzero(n)
    np.add.at(state.applied.numpy(), slots[steered], 1)


def _intervene(h: Tensor, r: Tensor, n: np.ndarray, triples: np.ndarray, state: "SteerState") -> None:
    steered = np.flatnonzero(n)
    if not len(steered):
        return
    tokens = np.repeat(steered, n[steered])
    within = np.concatenate([np.arange(k) for k in n[steered]])
    kinds, rows, bits = (triples[tokens, 3 * within + i] for i in range(3))
    values = torch.from_numpy(np.ascontiguousarray(bits).view(np.float32).copy())
    chosen = torch.from_numpy(steered)
    x = h[chosen].float() + r[chosen].float()
    total = torch.zeros_like(x)
    place = torch.from_numpy(np.repeat(np.arange(len(steered)), n[steered]))
    step = max(1, ENTRIES // h.shape[1])
    for i in range(0, len(tokens), step):
        part, row = place[i : i + step], torch.from_numpy(rows[i : i + step].astype(np.int64))
        c = values[i : i + step].clone()
        clamps = torch.from_numpy(np.flatnonzero(kinds[i : i + step] == CLAMP))
        if len(clamps):
            chosen_rows = row[clamps]
            pre = (x[part[clamps]] * state.bank.W_enc[chosen_rows]).sum(-1) + state.bank.b_enc[chosen_rows]
            c[clamps] -= torch.where(pre > state.bank.threshold[chosen_rows], pre, torch.zeros_like(pre))
        total.index_add_(0, part, c[:, None] * state.bank.W_dec[row])
    old = h[chosen]
    h[chosen] = torch.where(total != 0, (old.float() + total).to(h.dtype), old)
