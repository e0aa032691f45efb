"""The operation on CUDA: one Triton program a token, its stream held in registers; an untouched token ends at the first branch."""

from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl
from torch import Tensor

from esr.engine.plugin.ops import HEAD

if TYPE_CHECKING:
    from esr.engine.plugin.state import SteerState


@triton.jit
def _steer(
    h, r, positions, tok2slot, table, W_enc, b_enc, threshold, W_dec, rows, applied,
    width, stride_h, stride_r, table_width, offset, site1, BLOCK: tl.constexpr,
):  # fmt: skip  # type: ignore[no-untyped-def]  # Triton's own types
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(tok2slot + token).to(tl.int64)
    row = table + slot * table_width
    n = tl.load(row + offset)
    captured = tl.load(row + 2) == site1
    if (n > 0) | captured:
        at = tl.load(positions + token).to(tl.int32)
        n = tl.where((at >= tl.load(row)) & (at < tl.load(row + 1)), n, 0)
        captured = captured & (at >= tl.load(row + 4)) & (at < tl.load(row + 5))
        if (n > 0) | captured:
            d = tl.arange(0, BLOCK)
            inside = d < width
            old = tl.load(h + token * stride_h + d, mask=inside, other=0.0)
            x = old.to(tl.float32) + tl.load(r + token * stride_r + d, mask=inside, other=0.0).to(tl.float32)
            stage = tl.load(row + 3)
            if captured & (stage == 0):
                tl.store(rows + token * width + d, x, mask=inside)
            if n > 0:
                total = tl.zeros([BLOCK], dtype=tl.float32)
                for j in range(n):
                    entry = row + offset + 1 + 3 * j
                    kind = tl.load(entry)
                    latent = tl.load(entry + 1).to(tl.int64)
                    c = tl.load(entry + 2).to(tl.float32, bitcast=True)
                    decoder = tl.load(W_dec + latent * width + d, mask=inside, other=0.0)
                    if kind == 1:
                        encoder = tl.load(W_enc + latent * width + d, mask=inside, other=0.0)
                        pre = tl.sum(x * encoder) + tl.load(b_enc + latent)
                        c -= tl.where(pre > tl.load(threshold + latent), pre, 0.0)
                    total += c * decoder
                new = (old.to(tl.float32) + total).to(old.dtype)
                new = tl.where(total != 0.0, new, old)
                tl.store(h + token * stride_h + d, new, mask=inside)
                if captured & (stage == 1):
                    x = new.to(tl.float32) + (x - old.to(tl.float32))
                tl.atomic_add(applied + slot, 1)
            if captured & (stage == 1):
                tl.store(rows + token * width + d, x, mask=inside)


@triton.jit
def _fill(tok2slot, query_start, slots, n_requests, n_tokens, none, BLOCK: tl.constexpr, LOG: tl.constexpr):
    """tok2slot[t] = the slot of the request whose span holds t, by bisection; `none` beyond the last token."""
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    lo = tl.zeros([BLOCK], dtype=tl.int32)
    hi = tl.zeros([BLOCK], dtype=tl.int32) + n_requests
    for _ in range(LOG):
        mid = (lo + hi) // 2
        right = tl.load(query_start + mid, mask=mid < n_requests, other=2147483647) <= t
        lo = tl.where(right & (mid < hi), mid, lo)
        hi = tl.where(right, hi, mid)
    end = tl.load(query_start + n_requests)
    slot = tl.load(slots + lo, mask=t < end, other=0)
    tl.store(tok2slot + t, tl.where(t < end, slot, none), mask=t < n_tokens)


def steer(h: Tensor, r: Tensor, positions: Tensor, state: "SteerState", site: int) -> None:
    width = h.shape[1]
    block = triton.next_power_of_2(width)
    bank = state.bank
    _steer[(h.shape[0],)](
        h, r, positions, state.tok2slot, state.table, bank.W_enc, bank.b_enc, bank.threshold, bank.W_dec, state.rows, state.applied,
        width, h.stride(0), r.stride(0), state.table.shape[1], HEAD + site * (1 + 3 * state.max_ops), site + 1,
        BLOCK=block, num_warps=max(1, min(16, block // 512)),
    )  # fmt: skip


def fill(tok2slot: Tensor, query_start: Tensor, slots: Tensor, n_requests: int, n_tokens: int, none: int) -> None:
    """Refresh the map on the device, where the spans are true even if the host's are not yet."""
    log: Any = max(1, n_requests.bit_length() + 1)
    _fill[(triton.cdiv(n_tokens, 256),)](tok2slot, query_start, slots, n_requests, n_tokens, none, BLOCK=256, LOG=log)
