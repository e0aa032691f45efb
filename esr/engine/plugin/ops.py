"""The one operation inside the forward pass: what a hooked block does to its stream, opaque to torch.compile.

    x  = float32(h) + float32(r)              the residual stream; vLLM carries its two summands apart
    c  = value                                add
    c  = value − act(x · W_enc[i] + b_enc[i])  clamp
    h ← dtype(float32(h) + Σ c · W_dec[i])

and, with n the norm of W_dec[i]: c = −value · (x · W_dec[i]) / n² projects out, c = (value − x · W_dec[i] / n) / n clamps a
projection, c = value · ‖x‖ / n adds by the stream's own norm. A condition that does not hold makes c 0.

Every intervention sees the same x. A token without any is not written, and neither is a dimension whose sum is exactly zero, so
that both stay bit for bit. Which ops belong to which token is data in tables with fixed addresses: a replayed CUDA graph reads
what the next step wrote there.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from vllm.forward_context import get_forward_context
from vllm.utils.torch_utils import direct_register_custom_op

from esr.engine.plugin import table as tables
from esr.engine.plugin.bank import Bank
from esr.engine.plugin.table import (
    ADD_NORM,
    AFTER,
    ALONG,
    BEFORE,
    CLAMP,
    CLAMP_PROJECTION,
    CONDITIONED,
    ENTRY,
    MARKED,
    PROJECT_OUT,
    SCHEDULED,
)

CONTEXT = "esr.steering"
"""Where vLLM's forward context holds the state."""
GATHERED = 1 << 22
"""Numbers gathered at once by the reference: 16 MiB."""


class Tables(Protocol):
    """What the operation reads and writes of a worker's state."""

    site: dict[int, int]
    max_ops: int
    bank: Bank
    table: Tensor
    """[slots, row_width] int32."""
    tok2slot: Tensor
    """[tokens] int32: whose row each token of the step goes by."""
    since: Tensor
    """[slots] int32: the first position behind the request's marker."""
    rows: Tensor
    """[tokens, width]: captured streams."""
    applied: Tensor
    """[slots] int32: positions in a window, counted up."""
    broken: Tensor
    """[slots] int32: not 0 once a steered stream's square left float32."""


def steer(h: Tensor, r: Tensor, positions: Tensor, layer: int) -> None:
    """Interventions and captures after block `layer`; h changes in place."""
    state: Tables | None = get_forward_context().no_compile_layers.get(CONTEXT)
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


def reference(h: Tensor, r: Tensor, positions: Tensor, state: Tables, site: int) -> None:
    """In torch on the CPU: what the kernel computes, token by token."""
    n_tokens = len(h)
    slots = state.tok2slot.numpy()[:n_tokens]
    table = state.table.numpy()
    at = positions.numpy()[:n_tokens]
    head = table[:, : tables.HEAD][slots]
    captured = (head[:, 2] == site + 1) & (head[:, 4] <= at) & (at < head[:, 5])
    before = torch.from_numpy(np.flatnonzero(captured & (head[:, 3] == BEFORE)))
    after = torch.from_numpy(np.flatnonzero(captured & (head[:, 3] == AFTER)))
    if len(before):
        state.rows[before] = h[before].float() + r[before].float()
    _intervene(h, r, at, slots, state, table, tables.offset(site, state.max_ops))
    if len(after):
        state.rows[after] = h[after].float() + r[after].float()


def _intervene(h: Tensor, r: Tensor, at: np.ndarray, slots: np.ndarray, state: Tables, table: np.ndarray, offset: int) -> None:
    n = table[slots, offset]
    asked = np.flatnonzero(n)
    if not len(asked):
        return
    most = int(n.max())
    entries = table[:, offset + 1 : offset + 1 + ENTRY * most][slots[asked]].reshape(len(asked), most, ENTRY)
    lo = np.where(
        entries[:, :, 0] & MARKED, np.maximum(entries[:, :, 3], state.since.numpy()[slots[asked], None]), entries[:, :, 3]
    )
    here = at[asked, None]
    due = (np.arange(most) < n[asked, None]) & (lo <= here) & (here < entries[:, :, 4])
    inside = due.any(1)
    if not inside.any():
        return
    steered, due, entries = asked[inside], due[inside], entries[inside]
    chosen = torch.from_numpy(steered)
    x = h[chosen].float() + r[chosen].float()
    total = torch.zeros_like(x)
    place, which = np.nonzero(due)
    rows, step = entries[place, which], max(1, GATHERED // h.shape[1])
    for i in range(0, len(place), step):
        part = torch.from_numpy(place[i : i + step])
        _sum(total, x, part, rows[i : i + step], at[steered[place[i : i + step]]], state.bank)
    old = h[chosen]
    h[chosen] = torch.where(total != 0, (old.float() + total).to(h.dtype), old)
    np.add.at(state.applied.numpy(), slots[steered], 1)
    square = (h[chosen].float() + r[chosen].float()).square().sum(-1)
    state.broken.numpy()[slots[steered[~torch.isfinite(square).numpy()]]] = 1


def _sum(total: Tensor, x: Tensor, part: Tensor, entries: np.ndarray, at: np.ndarray, bank: Bank) -> None:
    """Add c · W_dec for each of `entries`, which belong to the rows `part` of x."""
    flags, kinds = entries[:, 0], entries[:, 0] & (MARKED - 1)
    row = torch.from_numpy(entries[:, 1].astype(np.int64))
    c = _floats(entries[:, 2])
    if len(some := _where(flags & SCHEDULED)):
        e = entries[some.numpy()]
        run = torch.from_numpy((at[some.numpy()] - e[:, 6]).astype(np.float32)) / torch.from_numpy(
            (e[:, 7] - e[:, 6]).astype(np.float32)
        )
        c[some] = c[some] + (_floats(e[:, 5]) - c[some]) * run
    if len(clamps := _where(kinds == CLAMP)):
        c[clamps] -= _activation(x[part[clamps]], row[clamps], bank)
    if len(some := _where(kinds == ADD_NORM)):
        c[some] *= x[part[some]].square().sum(-1).sqrt() * bank.inverse[row[some]]
    if len(some := _where(kinds == PROJECT_OUT)):
        c[some] *= -_along(x[part[some]], row[some], bank) * bank.inverse[row[some]]
    if len(some := _where(kinds == CLAMP_PROJECTION)):
        c[some] = (c[some] - _along(x[part[some]], row[some], bank)) * bank.inverse[row[some]]
    if len(some := _where(flags & CONDITIONED)):
        c[some] = torch.where(_holds(x[part[some]], entries[some.numpy(), 8:11], bank), c[some], torch.zeros_like(c[some]))
    total.index_add_(0, part, c[:, None] * bank.W_dec[row])


def _activation(x: Tensor, row: Tensor, bank: Bank) -> Tensor:
    pre = (x * bank.W_enc[row]).sum(-1) + bank.b_enc[row]
    return torch.where(pre > bank.threshold[row], pre, torch.zeros_like(pre))


def _along(x: Tensor, row: Tensor, bank: Bank) -> Tensor:
    """The stream's length along a direction."""
    return (x * bank.W_dec[row]).sum(-1) * bank.inverse[row]


def _holds(x: Tensor, conditions: np.ndarray, bank: Bank) -> Tensor:
    row, bound = torch.from_numpy(conditions[:, 0].astype(np.int64)), _floats(conditions[:, 2])
    value = torch.zeros(len(x), dtype=torch.float32)
    along = torch.from_numpy(conditions[:, 1] == ALONG)
    value[along] = _along(x[along], row[along], bank)
    value[~along] = _activation(x[~along], row[~along], bank)
    return value > bound


def _floats(bits: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(bits).view(np.float32).copy())


def _where(mask: np.ndarray) -> Tensor:
    return torch.from_numpy(np.flatnonzero(mask))
