"""Which token belongs to which intervention, step by step: the tables a worker keeps; runners.py has vLLM's runners fill them.

A request with a spec has a slot: in vLLM's V2 runner its own request index, in V1 one from a pool. Its ops are written into the
slot's table row once; before every step a map from token to slot is refreshed, padding and dummy runs pointing at the empty
row. What the device says it applied is compared with what the host had scheduled, for every request, without waiting for it.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from esr.engine.plugin import capture as capturing
from esr.engine.plugin.capture import Holding, Span
from esr.engine.plugin.ops import ADD, AFTER, BEFORE, CLAMP, HEAD, row_width
from esr.engine.plugin.site import Bank
from esr.engine.plugin.spec import END, FIELD, Sites, Spec, read
from esr.errors import EngineError
from esr.types import Op

if TYPE_CHECKING:
    from vllm.config import VllmConfig

RECORDS = 65536
"""Finished requests whose counts are kept for whoever asks by id; the oldest go first."""
KEPT = 1800.0
"""Seconds that a finished or aborted request's counts and capture are kept at least."""
MARGIN = 512
"""Tokens by which a padded step may exceed max_num_batched_tokens."""


@dataclass(slots=True)
class Record:
    """One request over all its stays on the device; preemption ends a stay."""

    id: str
    request: str = ""
    """vLLM's name, by which a preempted request comes back."""
    left: float = 0.0
    """When it last left the device; 0: it is there."""
    expected: int = 0
    """Times that an op should have been applied, over ended stays."""
    executed: list[Tensor] = field(default_factory=list)
    """Times that the device counted, one scalar a stay."""
    holding: Holding | None = None
    error: str | None = None


@dataclass(slots=True)
class Check:
    """Counts under way to the host."""

    counted: Tensor
    expected: np.ndarray
    event: Any


class SteerState:
    """The steering state of one worker."""

    def __init__(self, sites: Sites, bank: Bank, config: "VllmConfig", device: torch.device) -> None:
        self.sites, self.bank, self.device = sites, bank, device
        self.site = {layer: i for i, layer in enumerate(sites.layers)}
        self.max_ops = sites.max_ops
        self.exact = config.model_config.dtype == torch.float32
        self.reads = sites.capture and config.parallel_config.rank == 0
        n, tokens = config.scheduler_config.max_num_seqs, config.scheduler_config.max_num_batched_tokens + MARGIN
        self.none, self.probe = n, n + 1
        width = bank.W_enc.shape[1]
        with torch.device(device):
            self.table = torch.zeros(n + 2, row_width(len(sites.layers), sites.max_ops), dtype=torch.int32)
            self.applied = torch.zeros(n + 2, dtype=torch.int32)
            self.tok2slot = torch.full((tokens,), n, dtype=torch.int32)
            self.rows = torch.zeros(tokens if sites.capture else 1, width, dtype=torch.float32)
        self.lo, self.hi = np.zeros(n + 2, np.int64), np.zeros(n + 2, np.int64)
        self.hooked = np.zeros(n + 2, np.int64)
        """Blocks after which the slot's request is steered."""
        self.expected = np.zeros(n + 2, np.int64)
        self.reading = np.zeros(n + 2, bool)
        self.slots: dict[str, int] = {}
        """By vLLM's request id."""
        self.free = list(range(n))
        """V1 only."""
        self.records: dict[str, Record] = {}
        self.live: dict[int, Record] = {}
        self.staged: dict[int, np.ndarray] = {}
        self.pending: list[Span] = []
        self.held = 0
        self.clean = True
        """The map points at the empty row throughout."""
        self.probing = False
        self.leaving: list[tuple[Tensor, int]] = []
        self.checks: deque[Check] = deque()
        self.failed = ""
        """What was not applied as it was due; the engine answers no more."""
        self.swept = time.monotonic()

    # what comes and goes

    def admit(self, request: str, extra: dict[str, Any] | None, n_prompt: int, slot: int | None = None) -> None:
        """A request enters the device; those without a spec need nothing."""
        text = (extra or {}).get(FIELD)
        if text is None:
            return
        spec = read(text)
        if slot is None:
            slot = self.free.pop()
        self.slots[request] = slot
        record = self._record(spec, n_prompt, request)
        self.live[slot] = record
        self.lo[slot], self.hi[slot] = spec.steered(n_prompt)
        self.hooked[slot] = len({op.layer for op in spec.ops})
        self.expected[slot] = 0
        self.reading[slot] = record.holding is not None
        self.staged[slot] = self._row(spec, n_prompt)

    def leave(self, request: str, *, pooled: bool = False) -> None:
        """It finished, was aborted or preempted."""
        slot = self.slots.pop(request, None)
        if slot is None:
            return
        record = self.live.pop(slot)
        if self.hooked[slot]:
            count = self.applied[slot].clone()
            record.executed.append(count)
            record.expected += int(self.expected[slot])
            self.leaving.append((count, int(self.expected[slot])))
        record.left = time.monotonic()
        self.hooked[slot] = self.expected[slot] = 0
        self.reading[slot] = False
        self.staged[slot] = np.zeros(self.table.shape[1], np.int32)
        if pooled:
            self.free.append(slot)

    def _record(self, spec: Spec, n_prompt: int, request: str) -> Record:
        record = self.records.get(spec.id) if spec.id else None
        if record is not None and record.request != request:
            self._refuse(record, f"more than one request came with the id {spec.id!r}; an `id` names one reply")
            return Record(spec.id, request)
        if record is None:
            record = Record(spec.id or request, request)
            if spec.capture is not None and self.reads:
                record.holding = Holding(spec.capture, n_prompt, *spec.captured(n_prompt))
            if spec.id:
                self._sweep()
                while len(self.records) >= RECORDS:
                    self._drop(next(iter(self.records)))
                self.records[spec.id] = record
        record.left = 0.0
        return record

    def _sweep(self) -> None:
        """Nobody will take what has waited for so long: its client is gone."""
        now = time.monotonic()
        if now > self.swept + KEPT / 10:
            self.swept = now
            for id in [id for id, record in self.records.items() if record.left and record.left < now - KEPT]:
                self._drop(id)

    def _row(self, spec: Spec, n_prompt: int) -> np.ndarray:
        row = np.zeros(self.table.shape[1], np.int32)
        row[0], row[1] = spec.steered(n_prompt)
        if spec.capture is not None:
            row[2] = self.site[spec.capture.layer] + 1
            row[3] = AFTER if spec.capture.stage == "after" else BEFORE
            row[4], row[5] = spec.captured(n_prompt)
        for site, ops in self._by_site(spec).items():
            at = HEAD + site * (1 + 3 * self.max_ops)
            entries = row[at + 1 : at + 1 + 3 * len(ops)].reshape(-1, 3)
            row[at] = len(ops)
            entries[:, 0] = [CLAMP if op.kind == "clamp" else ADD for op in ops]
            entries[:, 1] = [self.bank.start[op.sae] + op.latent for op in ops]
            entries[:, 2] = np.array([op.value for op in ops], np.float32).view(np.int32)
        return row

    def _by_site(self, spec: Spec) -> dict[int, list[Op]]:
        out: dict[int, list[Op]] = {}
        for op in spec.ops:
            out.setdefault(self.site[op.layer], []).append(op)
        return out

    # before each step

    def refresh(
        self, slots: np.ndarray, first: np.ndarray, count: np.ndarray, *, spans: tuple[Tensor, Tensor] | None = None, padded: int | None = None
    ) -> None:  # fmt: skip
        """The next step holds `count[i]` tokens of slot `slots[i]`, from position `first[i]`, in this order.

        spans: (query_start_loc, slots) on the device, where there are such; padded: tokens of the step with padding.
        """
        self.flush()
        self._write()
        self._follow()
        if not self.live:
            self.rest()
            return
        ends = np.cumsum(count)
        self._map(slots, count, int(ends[-1]), spans, padded)
        overlap = np.minimum(first + count, self.hi[slots]) - np.maximum(first, self.lo[slots])
        np.add.at(self.expected, slots, np.maximum(overlap, 0) * self.hooked[slots])
        for i in np.flatnonzero(self.reading[slots]):
            self._capture(int(slots[i]), int(first[i]), int(count[i]), int(ends[i] - count[i]))

    def rest(self) -> None:
        """A step without requests of ours: padding, profiling, graph capture."""
        if self.probing:
            self.tok2slot.fill_(self.probe)
            self.clean = False
        elif not self.clean:
            self.tok2slot.fill_(self.none)
            self.clean = True

    def _map(
        self, slots: np.ndarray, count: np.ndarray, total: int, spans: tuple[Tensor, Tensor] | None, padded: int | None
    ) -> None:
        self.clean = False
        if spans is not None:
            from esr.engine.plugin import kernel

            kernel.fill(self.tok2slot, *spans, len(slots), padded or total, self.none)
            return
        owners = np.full(len(self.tok2slot), self.none, np.int32)
        owners[:total] = np.repeat(slots, count)
        self.tok2slot.copy_(capturing.to_device(torch.from_numpy(owners), self.device), non_blocking=True)

    def _capture(self, slot: int, first: int, count: int, start: int) -> None:
        holding = self.live[slot].holding
        if holding is None:
            return
        lo, hi = max(first, holding.lo), min(first + count, holding.hi)
        if lo < hi:
            self.pending.append(Span(holding, start + lo - first, hi - lo, lo))

    def _write(self) -> None:
        """Changed rows, in one copy."""
        if not self.staged:
            return
        at = capturing.to_device(torch.tensor(list(self.staged), dtype=torch.int64), self.device)
        rows = capturing.to_device(torch.from_numpy(np.stack(list(self.staged.values()))), self.device)
        self.table.index_copy_(0, at, rows)
        self.applied.index_fill_(0, at, 0)
        self.staged.clear()

    def flush(self) -> None:
        """Encode what the last step captured."""
        if not self.pending:
            return
        spans, self.pending = self.pending, []
        self.held += capturing.flush(spans, self.rows, self.bank, exact=self.exact)
        if self.held > self.sites.capture_bytes:
            grown = {id(span.holding) for span in spans}
            for record in reversed([r for r in self.records.values() if id(r.holding) in grown]):
                if self.held <= self.sites.capture_bytes:
                    break
                self._refuse(
                    record,
                    f"captures not yet taken exceed {self.sites.capture_bytes} bytes (capture_bytes); take them sooner or ask for less",
                )

    def _refuse(self, record: Record, why: str) -> None:
        """This capture fails aloud, the others go on."""
        record.error = why
        self._let_go(record)
        for slot, other in self.live.items():
            if other is record:
                self.reading[slot] = False

    # what was applied

    def _follow(self) -> None:
        """Compare counts of requests that left with the host's, a few steps later."""
        if self.leaving:
            counted = capturing.to_host(torch.stack([count for count, _ in self.leaving]))
            event: Any = None
            if self.device.type == "cuda":
                event = torch.cuda.current_stream(self.device).record_event()
            self.checks.append(Check(counted, np.array([expected for _, expected in self.leaving]), event))
            self.leaving.clear()
        while self.checks and (self.checks[0].event is None or self.checks[0].event.query()):
            check = self.checks.popleft()
            wrong = np.flatnonzero(check.counted.numpy() != check.expected)
            if len(wrong):
                self.failed = (
                    f"an intervention was applied {int(check.counted[wrong[0]])} times where {int(check.expected[wrong[0]])} were due; "
                    "the engine stops rather than answer unsteered"
                )
        if self.failed:
            raise EngineError(self.failed)

    def synchronize(self) -> None:
        self.flush()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def count(self, id: str) -> dict[str, Any] | None:
        """Counts of one request and vLLM's name for it; call after `synchronize`."""
        record = self.records.get(id)
        if record is None:
            return None
        expected, executed, stays = record.expected, sum(int(count) for count in record.executed), len(record.executed)
        for slot in (slot for slot, other in self.live.items() if other is record):
            expected += int(self.expected[slot])
            executed += int(self.applied[slot]) if slot not in self.staged else 0
            stays += 1
        return {"request": record.request, "executed": executed, "expected": expected, "stays": stays}

    def take(self, id: str, n_rows: int | None) -> dict[str, Any] | None:
        """Counts and capture of one request, once; call after `synchronize`."""
        counts, record = self.count(id), self.records.get(id)
        if counts is None or record is None:
            return None
        del counts["request"]
        for slot in (slot for slot, other in self.live.items() if other is record):
            self.reading[slot] = False
        out: dict[str, Any] = {**counts, "error": record.error, "capture": None}
        if record.holding is not None:
            found = capturing.assemble(record.holding, n_rows)
            if "error" in found:
                out["error"] = found["error"]
            else:
                out["capture"] = found
        self._drop(id)
        return out

    def forget(self, id: str) -> None:
        if id in self.records:
            self._drop(id)

    def _drop(self, id: str) -> None:
        self._let_go(self.records.pop(id))

    def _let_go(self, record: Record) -> None:
        if record.holding is not None:
            self.held -= record.holding.size
            self.pending = [span for span in self.pending if span.holding is not record.holding]
            record.holding = None

    def stats(self) -> dict[str, int]:
        """What is held; the counts of the last requests, which no step follows, are compared here."""
        self._write()
        self._follow()
        self.synchronize()
        self._follow()
        return {
            "live": len(self.live), "records": len(self.records), "held_bytes": self.held, "pending": len(self.pending),
            "nonzero": int(self.table[: self.none].count_nonzero()), "free": len(self.free), "unchecked": len(self.checks),
        }  # fmt: skip

    def begin_probe(self) -> None:
        """Steer every token of the next dummy run by nothing at all, and count."""
        row = torch.zeros_like(self.table[self.probe])
        row[1] = END
        for i in range(len(self.sites.layers)):
            row[HEAD + i * (1 + 3 * self.max_ops)] = 1
        self.table[self.probe] = row
        self.applied[self.probe] = 0
        self.probing = True

    def end_probe(self) -> int:
        """Times that an op was applied since."""
        self.probing = False
        self.rest()
        count = int(self.applied[self.probe])
        self.table[self.probe] = 0
        self.applied[self.probe] = 0
        return count
