"""The operation on CUDA: one Triton program a token, its stream held in registers; an untouched token ends at the first branch."""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from esr.engine.plugin import table as tables
from esr.engine.plugin.ops import Tables

ENTRY: tl.constexpr = tl.constexpr(tables.ENTRY)
CLAMP, PROJECT_OUT, ADD_NORM = (tl.constexpr(kind) for kind in (tables.CLAMP, tables.PROJECT_OUT, tables.ADD_NORM))
KIND, MARKED = tl.constexpr(tables.MARKED - 1), tl.constexpr(tables.MARKED)
SCHEDULED, CONDITIONED = tl.constexpr(tables.SCHEDULED), tl.constexpr(tables.CONDITIONED)


@triton.jit
def _activation(x, W_enc, b_enc, threshold, row, d, inside, width):
    encoder = tl.load(W_enc + row * width + d, mask=inside, other=0.0)
    pre = tl.sum(x * encoder) + tl.load(b_enc + row)
    return tl.where(pre > tl.load(threshold + row), pre, 0.0)


@triton.jit
def _steer(
    h, r, positions, tok2slot, table, since, W_enc, b_enc, threshold, W_dec, inverse, rows, applied, broken,
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
                begin = tl.load(since + slot)
                due = 0
                total = tl.zeros([BLOCK], dtype=tl.float32)
                for j in range(n):
                    entry = row + offset + 1 + ENTRY * j
                    flags = tl.load(entry)
                    lo = tl.load(entry + 3)
                    lo = tl.where((flags & MARKED) != 0, tl.maximum(lo, begin), lo)
                    if (at >= lo) & (at < tl.load(entry + 4)):
                        due = 1
                        kind = flags & KIND
                        latent = tl.load(entry + 1).to(tl.int64)
                        c = tl.load(entry + 2).to(tl.float32, bitcast=True)
                        if (flags & SCHEDULED) != 0:
                            start = tl.load(entry + 6)
                            run = (at - start).to(tl.float32) / (tl.load(entry + 7) - start).to(tl.float32)
                            c = c + (tl.load(entry + 5).to(tl.float32, bitcast=True) - c) * run
                        decoder = tl.load(W_dec + latent * width + d, mask=inside, other=0.0)
                        if kind == CLAMP:
                            c -= _activation(x, W_enc, b_enc, threshold, latent, d, inside, width)
                        if kind >= PROJECT_OUT:
                            scale = tl.load(inverse + latent)
                            if kind == ADD_NORM:
                                c = c * tl.sqrt(tl.sum(x * x)) * scale
                            else:
                                along = tl.sum(x * decoder) * scale
                                c = tl.where(kind == PROJECT_OUT, -c * along, c - along) * scale
                        if (flags & CONDITIONED) != 0:
                            other = tl.load(entry + 8).to(tl.int64)
                            if tl.load(entry + 9) == 0:
                                value = _activation(x, W_enc, b_enc, threshold, other, d, inside, width)
                            else:
                                direction = tl.load(W_dec + other * width + d, mask=inside, other=0.0)
                                value = tl.sum(x * direction) * tl.load(inverse + other)
                            c = tl.where(value > tl.load(entry + 10).to(tl.float32, bitcast=True), c, 0.0)
                        total += c * decoder
                if due > 0:
                    new = (old.to(tl.float32) + total).to(old.dtype)
                    new = tl.where(total != 0.0, new, old)
                    tl.store(h + token * stride_h + d, new, mask=inside)
                    after = new.to(tl.float32) + (x - old.to(tl.float32))
                    square = tl.sum(after * after)
                    if (square < float("inf")) == 0:
                        tl.store(broken + slot, 1)
                    tl.atomic_add(applied + slot, 1)
                    if captured & (stage == 1):
                        x = after
            if captured & (stage == 1):
                tl.store(rows + token * width + d, x, mask=inside)


@triton.jit(do_not_specialize=["n_requests", "n_tokens", "none"])  # other numbers in every step, and compiling takes 0.1 s of it
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


def steer(h: Tensor, r: Tensor, positions: Tensor, state: Tables, site: int) -> None:
    width = h.shape[1]
    block = triton.next_power_of_2(width)
    bank = state.bank
    _steer[(h.shape[0],)](
        h, r, positions, state.tok2slot, state.table, state.since, bank.W_enc, bank.b_enc, bank.threshold, bank.W_dec, bank.inverse,
        state.rows, state.applied, state.broken,
        width, h.stride(0), r.stride(0), state.table.shape[1], tables.offset(site, state.max_ops), site + 1,
        BLOCK=block, num_warps=max(1, min(16, block // 512)),
    )  # fmt: skip


def fill(tok2slot: Tensor, query_start: Tensor, slots: Tensor, n_requests: int, n_tokens: int, none: int) -> None:
    """Refresh the map on the device, where the spans are true even if the host's are not yet. `none`: no fewer than there are requests."""
    log: Any = none.bit_length() + 1
    _fill[(triton.cdiv(n_tokens, 256),)](tok2slot, query_start, slots, n_requests, n_tokens, none, BLOCK=256, LOG=log)
