"""From captured streams to what was asked of them: encoded outside the graph, in chunks, and kept until taken.

The operation leaves the stream of each capturing token in one buffer. Before the next step overwrites it, `flush` encodes those
rows on the same CUDA stream and starts their way to the host without waiting. Rows are kept by absolute position: what a
preemption computes again replaces what was there, and a gap is an error, never a shorter answer.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esr.engine import Capture
from esr.engine.plugin.bank import Bank

Send = Callable[[np.ndarray], Tensor]
"""Brings int32 numbers to the device: staging.py."""
CHUNK = 64 << 20
"""Activations in flight at once: 256 MiB of float32."""
TAIL = 3
"""Newest generated rows that a `max` keeps apart: a step that ran past the reply's end must not count."""


@dataclass(slots=True)
class Piece:
    """Consecutive rows of one request; `first` is their position."""

    first: int
    values: Tensor
    indices: Tensor | None


@dataclass(slots=True)
class Holding:
    """What one request's capture has gathered."""

    capture: Capture
    n_prompt: int
    lo: int
    hi: int
    pieces: list[Piece] = field(default_factory=list)
    best: Tensor | None = None
    """max: [d_sae] so far, without `tail`."""
    where: Tensor | None = None
    tail: dict[int, Tensor] = field(default_factory=dict)
    """max: position → activations."""
    last: int = -1
    size: int = 0
    """Bytes held."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows [start, start + count) of the buffer are positions first, first + 1, … of a request."""

    holding: Holding
    start: int
    count: int
    first: int


def encode(x: Tensor, bank: Bank, sae: str, latents: tuple[int, ...] = (), *, exact: bool = True) -> Tensor:
    """Activations [rows, d_sae] or [rows, len(latents)] of streams x [rows, width].

    exact: float32 products; otherwise products with as many digits as float16 has, whose error is below that of a bfloat16 stream.
    """
    pre, scale = weighed(x, bank, sae, latents, exact=exact)
    threshold = bank.encoder(sae)[2]
    if latents:
        threshold = threshold[torch.tensor(latents, device=x.device)]
    if scale is not None:
        pre.mul_(scale)
    return pre.masked_fill_(pre <= threshold, 0.0)


def weighed(x: Tensor, bank: Bank, sae: str, latents: tuple[int, ...] = (), *, exact: bool) -> tuple[Tensor, Tensor | None]:
    """Pre-activations, and the factor [rows, 1] still to come; without it each row has the same order."""
    W, b, _ = bank.encoder(sae)
    if latents:
        chosen = torch.tensor(latents, device=x.device)
        W, b = W[chosen], b[chosen]
    if not (exact or latents or bank.half is None):
        return halved(x, bank.half[bank.start[sae] : bank.start[sae] + bank.size[sae]])
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = not exact
    pre = torch.addmm(b, x, W.T)
    torch.backends.cuda.matmul.allow_tf32 = before
    return pre, None


def halved(x: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Products of float16 summed in float32. A row is brought to at most 1,024 by a power of two, which loses nothing; float16
    keeps as many digits as TensorFloat-32 and is twice as fast."""
    scale = torch.exp2(x.abs().amax(1, keepdim=True).clamp(min=2.0**-4, max=2.0**24).log2().ceil() - 10)
    wide = torch.zeros(len(x), half.shape[1], dtype=torch.float16, device=x.device)
    wide[:, : x.shape[1]] = x / scale
    wide[:, x.shape[1] : x.shape[1] + 2] = 1 / scale
    return torch.mm(wide, half.T, out_dtype=torch.float32), scale


def largest(f: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row and where; on a GPU through the k best of 128-wide blocks, which hold them all."""
    n = f.shape[-1]
    if not f.is_cuda or n % 128 or n < 512 * k:
        top = f.topk(k, dim=-1)
        return top.values, top.indices
    blocks = f.view(len(f), n // 128, 128)
    best = blocks.amax(-1).topk(k, dim=-1, sorted=False).indices
    some = blocks.gather(1, best[..., None].expand(-1, -1, 128)).flatten(1)
    top = some.topk(k, dim=-1)
    return top.values, best.gather(1, top.indices // 128) * 128 + top.indices % 128


def flush(spans: list[Slice], rows: Tensor, bank: Bank, send: Send, *, exact: bool) -> int:
    """Encode the rows of one step; the bytes that holdings grew by."""
    groups: dict[tuple[Any, ...], list[Slice]] = defaultdict(list)
    for span in spans:
        c = span.holding.capture
        groups[c.sae, c.mode, c.k, c.latents].append(span)
    return sum(_group(group, rows, bank, send, exact) for group in groups.values())


def _group(spans: list[Slice], rows: Tensor, bank: Bank, send: Send, exact: bool) -> int:
    c = spans[0].holding.capture
    if c.mode == "residual":
        return sum(_keep(span, to_host(_gather([span], rows, send).clone()), None) for span in spans)
    wide = len(c.latents) if c.mode == "latents" else bank.size[c.sae]
    grown = 0
    for part in _chunks(spans, max(1, CHUNK // wide)):
        x, scale = _gather(part, rows, send), None
        if c.mode == "topk" and bank.relu[c.sae]:
            f, scale = weighed(x, bank, c.sae, exact=exact)
        else:
            f = encode(x, bank, c.sae, c.latents if c.mode == "latents" else (), exact=exact)
        at = 0
        if c.mode == "max":
            for span in part:
                grown += _fold(span, f[at : at + span.count])
                at += span.count
            continue
        if c.mode == "topk":
            top, at_latents = largest(f, c.k)
            if scale is not None:
                top.mul_(scale)
            values, indices = to_host(top.clamp_(min=0)), to_host(at_latents.to(torch.int32))
        else:
            values, indices = to_host(f), None
        for span in part:
            piece = slice(at, at + span.count)
            grown += _keep(span, values[piece], None if indices is None else indices[piece])
            at += span.count
    return grown


def _chunks(spans: list[Slice], size: int) -> Iterator[list[Slice]]:
    """The same rows in groups of at most `size`."""
    part: list[Slice] = []
    room = size
    for span in spans:
        start, first, left = span.start, span.first, span.count
        while left:
            n = min(left, room)
            part.append(Slice(span.holding, start, n, first))
            start, first, left, room = start + n, first + n, left - n, room - n
            if not room:
                yield part
                part, room = [], size
    if part:
        yield part


def _gather(part: list[Slice], rows: Tensor, send: Send) -> Tensor:
    if len(part) == 1:
        return rows[part[0].start : part[0].start + part[0].count]
    at = np.concatenate([np.arange(span.start, span.start + span.count) for span in part])
    return rows[send(at).long()]


def _keep(span: Slice, values: Tensor, indices: Tensor | None) -> int:
    holding = span.holding
    holding.pieces.append(Piece(span.first, values, indices))
    holding.last = max(holding.last, span.first + span.count - 1)
    grown = values.nbytes + (indices.nbytes if indices is not None else 0)
    holding.size += grown
    return grown


def _fold(span: Slice, f: Tensor) -> int:
    holding, size = span.holding, span.holding.size
    if holding.best is None:
        holding.best = torch.full_like(f[0], -torch.inf)
        holding.where = torch.zeros_like(f[0], dtype=torch.int32)
    prompt = max(0, min(span.count, holding.n_prompt - span.first))
    if prompt:
        _merge(holding, f[:prompt], span.first)
    for i in range(prompt, span.count):
        holding.tail[span.first + i] = f[i].clone()
    for position in sorted(holding.tail)[:-TAIL]:
        _merge(holding, holding.tail.pop(position)[None], position)
    holding.last = max(holding.last, span.first + span.count - 1)
    holding.size = (2 + len(holding.tail)) * f[0].nbytes
    return holding.size - size


def _merge(holding: Holding, f: Tensor, first: int) -> None:
    """Of equal values the first position stays."""
    assert holding.best is not None
    assert holding.where is not None
    value, at = f.max(0)
    where = (at + first).to(torch.int32)
    better = (value > holding.best) | ((value == holding.best) & (where < holding.where))
    holding.best = torch.where(better, value, holding.best)
    holding.where = torch.where(better, where, holding.where)


def to_host(x: Tensor) -> Tensor:
    """On its way to the host; readable after a synchronization."""
    if x.device.type == "cpu":
        return x
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)


def assemble(holding: Holding, n_rows: int | None) -> dict[str, Any]:
    """Plain bytes for the way back; `n_rows`: positions that belong to the sequence. Call after a synchronization."""
    end = holding.last + 1 if n_rows is None else n_rows
    positions = np.arange(holding.lo, max(holding.lo, min(holding.hi, end)), dtype=np.int32)
    out: dict[str, Any] = {
        "mode": holding.capture.mode,
        "positions": positions.tobytes(),
        "expected": len(positions),
        "indices": None,
    }
    if holding.capture.mode == "max":
        folded = min(holding.tail, default=holding.last + 1)
        for position in sorted(holding.tail):
            if position < end:
                _merge(holding, holding.tail[position][None], position)
        if holding.best is None or holding.where is None or not len(positions):
            return {"error": "the capture of mode 'max' holds no position of this sequence"}
        if holding.last + 1 < positions[-1] + 1:
            return {"error": f"the capture ends at position {holding.last} and the sequence at {positions[-1]}"}
        if folded > end:
            return {"error": f"a capture of mode 'max' has taken in {folded} positions and cannot be cut to {end}"}
        values, indices = holding.best.cpu(), holding.where.cpu()
        return out | {"values": values.numpy().tobytes(), "indices": indices.numpy().tobytes(), "shape": [len(values)]}
    return out | _rows(holding, positions)


def _rows(holding: Holding, positions: np.ndarray) -> dict[str, Any]:
    c = holding.capture
    n = len(positions)
    wide = holding.pieces[0].values.shape[1] if holding.pieces else len(c.latents) or c.k
    values, indices = np.zeros((n, wide), np.float32), np.zeros((n, wide), np.int32) if c.mode == "topk" else None
    there = np.zeros(n, bool)
    for piece in holding.pieces:
        a, b = max(piece.first, holding.lo), min(piece.first + len(piece.values), holding.lo + n)
        if a < b:
            to, of = slice(a - holding.lo, b - holding.lo), slice(a - piece.first, b - piece.first)
            values[to], there[to] = piece.values[of].numpy(), True
            if indices is not None and piece.indices is not None:
                indices[to] = piece.indices[of].numpy()
    if not there.all():
        return {"error": f"the capture holds {int(there.sum())} of {n} rows; the first gap is at position {positions[~there][0]}"}
    ids = None if indices is None else indices.tobytes()
    return {"values": values.tobytes(), "indices": ids, "shape": [n, wide]}
