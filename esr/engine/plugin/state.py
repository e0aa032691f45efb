"""Which token belongs to which intervention, step by step: the tables a worker keeps; runners.py has vLLM's runners fill them.

A request with a spec has a slot: in vLLM's V2 runner its own request index, in V1 one from a pool. Its ops are written into the
slot's table row once; before every step a map from token to slot is refreshed, padding and dummy runs pointing at the empty
row. What the device says it applied is compared with what the host had scheduled, for every request, without waiting for it.
"""

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from esr.engine.entries import NEVER, Windows, window, windows
from esr.engine.plugin import capture as capturing
from esr.engine.plugin import mark
from esr.engine.plugin import table as tables
from esr.engine.plugin.bank import Bank
from esr.engine.plugin.capture import Holding, Slice
from esr.engine.plugin.ranks import Rank
from esr.engine.plugin.records import BROKEN, Check, Record, Stay
from esr.engine.plugin.spec import FIELD, Admitted, Sites, Spec
from esr.engine.plugin.staging import RING, Staging
from esr.engine.scope import END
from esr.errors import EngineError

if TYPE_CHECKING:
    from vllm.config import VllmConfig

RECORDS = 65536
"""Finished requests whose counts are kept for whoever asks by id; the oldest go first."""
KEPT = 1800.0
"""Seconds that a finished or aborted request's counts and capture are kept at least."""
LOOKS = RING - 1
"""Looks for broken streams under way at once."""
MARGIN = 512
"""Tokens by which a padded step may exceed max_num_batched_tokens."""


class SteerState:
    """The steering state of one worker."""

    def __init__(
        self, sites: Sites, bank: Bank, config: "VllmConfig", device: torch.device, rank: Rank | None = None
    ) -> None:  # fmt: skip
        self.sites, self.bank, self.device = sites, bank, device
        self.rank = rank or Rank(sites.layers)
        self.site = {layer: i for i, layer in enumerate(self.rank.layers)}
        self.max_ops = sites.max_ops
        self.exact = config.model_config.dtype == torch.float32
        self.reads = sites.capture and self.rank.reads
        n, tokens = config.scheduler_config.max_num_seqs, config.scheduler_config.max_num_batched_tokens + MARGIN
        self.none, self.probe = n, n + 1
        width = bank.W_enc.shape[1]
        with torch.device(device):
            self.table = torch.zeros(n + 2, tables.row_width(len(self.site), sites.max_ops), dtype=torch.int32)
            self.applied = torch.zeros(n + 2, dtype=torch.int32)
            self.broken = torch.zeros(n + 2, dtype=torch.int32)
            self.since = torch.full((n + 2,), END, dtype=torch.int32)
            self.tok2slot = torch.full((tokens,), n, dtype=torch.int32)
            self.rows = torch.zeros(tokens if sites.capture and self.site else 1, width, dtype=torch.float32)
        self.staging = Staging(device, back=3 * (n + 2))
        self.begin, self.end = np.full(n + 2, -1, np.int64), np.zeros(n + 2, np.int64)
        """Positions of the slot's request computed in this stay."""
        self.reading = np.zeros(n + 2, bool)
        self.slots: dict[str, int] = {}
        """By vLLM's request id."""
        self.free = list(range(n))
        """V1 only."""
        self.records: dict[str, Record] = {}
        self.live: dict[int, Record] = {}
        self.windows: dict[int, Windows] = {}
        self.staged: dict[int, tuple[np.ndarray, int]] = {}
        """Rows to be written, and where the marker ends for each."""
        self.ended: dict[int, Stay] = {}
        """By slot: stays whose numbers are still on the device."""
        self.pending: list[Slice] = []
        self.held = 0
        self.clean = True
        """The map points at the empty row throughout."""
        self.cold = device.type == "cuda"
        """No step's map has been made on the device yet."""
        self.probing = False
        self.checks: deque[Check] = deque()
        self.looks: deque[tuple[Tensor, dict[int, Record], Any]] = deque()
        """Which slots were broken after a step, and whose they were; on their way through `mirrors`."""
        self.mirrors = Staging(device, there=0, back=n + 2)
        self.owners: dict[int, Record] | None = None
        """`live` as it is; None when it has changed since."""
        self.empty = np.zeros(self.table.shape[1], np.int32)
        self.failing: dict[str, str] = {}
        """Requests that shall end in an error, by vLLM's id, with the reason; until the engine has been told."""
        self.refused: dict[str, str] = {}
        """Requests here that are not steered as they ask, and are about to end."""
        self.failed = ""
        """What was not applied as it was due; the engine answers no more."""
        self.swept = time.monotonic()

    # what comes and goes

    def admit(
        self, request: str, extra: dict[str, Any] | None, n_prompt: int, tokens: Sequence[int] = (), slot: int | None = None
    ) -> None:  # fmt: skip
        """A request enters the device with the tokens that it has so far; those without a spec need nothing."""
        text = (extra or {}).get(FIELD)
        if text is None or request in self.refused:
            return
        try:
            mark.check(extra, n_prompt, self.sites)
            admitted = Admitted.read(text)
            if admitted.n_prompt != n_prompt:
                raise EngineError(f"the steering spec was admitted for {admitted.n_prompt} prompt tokens and comes with {n_prompt}")
            row, where = self._laid(admitted, n_prompt)
        except Exception as error:  # whatever has gone round admission ends this request and no other
            self.refused[request] = self.failing[request] = f"a steering spec that admission has not let in: {error!r:.300}"
            return
        if slot is None:
            slot = self.free.pop()
        self.slots[request] = slot
        self.live[slot] = record = self._record(admitted.bare, n_prompt, request)
        self.reading[slot] = record.holding is not None
        since = END
        if admitted.listed:
            self.windows[slot] = where
            since = where.since(tokens)
        self.begin[slot] = -1
        self.staged[slot] = row, since
        self.owners = None

    def leave(self, request: str, *, pooled: bool = False) -> None:
        """It finished, was aborted or preempted."""
        self.refused.pop(request, None)
        slot = self.slots.pop(request, None)
        if slot is None:
            return
        record, windows = self.live.pop(slot), self.windows.pop(slot, None)
        if windows is not None and slot not in self.staged:
            self.ended[slot] = Stay(record, windows, int(self.begin[slot]), int(self.end[slot]))
        record.left = time.monotonic()
        self.begin[slot] = -1
        self.reading[slot] = False
        self.staged[slot] = self.empty, END
        self.owners = None
        if pooled:
            self.free.append(slot)

    def failures(self) -> dict[str, str]:
        """Requests that shall end in an error since the last call."""
        out, self.failing = self.failing, {}
        return out

    def _record(self, spec: Spec, n_prompt: int, request: str) -> Record:
        record = self.records.get(spec.id) if spec.id else None
        if record is not None and record.request != request:
            self._refuse(record, f"more than one request came with the id {spec.id!r}; an `id` names one reply")
            return Record(spec.id, request)
        if record is None:
            record = Record(spec.id or request, request)
            if spec.capture is not None and self.reads and spec.capture.layer in self.site:
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

    def _laid(self, admitted: Admitted, n_prompt: int) -> tuple[np.ndarray, Windows]:
        """A request's row, and where its ops stand."""
        row, asked = np.zeros(self.table.shape[1], np.int32), admitted.bare
        if asked.capture is not None and asked.capture.layer in self.site:
            row[2] = self.site[asked.capture.layer] + 1
            row[3] = tables.AFTER if asked.capture.stage == "after" else tables.BEFORE
            row[4], row[5] = asked.captured(n_prompt)
        if (runs := admitted.runs) and (found := window(asked.scope, n_prompt)):
            here = [run for run in runs if run.layer in self.site]
            return row, tables.fill_runs(
                row, here, found, max_ops=self.max_ops, site=self.site.__getitem__, find=self.bank.row
            )  # fmt: skip
        entries = [entry for entry in admitted.spec.entries(n_prompt) if entry.layer in self.site]
        where = windows(entries)
        if entries:
            tables.fill(
                row, entries, where, max_ops=self.max_ops, site=self.site.__getitem__, find=self.bank.row,
                encoded=self.bank.start.__contains__,
            )  # fmt: skip
        return row, where

    # before each step

    def refresh(
        self, slots: np.ndarray, first: np.ndarray, count: np.ndarray, *, spans: tuple[Tensor, Tensor] | None = None,
        padded: int | None = None, tokens: Tensor | None = None,
    ) -> None:  # fmt: skip
        """The next step holds `count[i]` tokens of slot `slots[i]`, from position `first[i]`, in this order.

        spans: (query_start_loc, slots) on the device, where there are such; padded: tokens of the step with padding;
        tokens: ids of the step's tokens on the device.
        """
        self.flush()
        self._write()
        self._follow()
        if self.failed and self.rank.last:  # whom alone the engine hears; the others tell the next rank
            raise EngineError(self.failed)
        if not self.live:
            self.rest()
            return
        ends = np.cumsum(count)
        self._map(slots, count, int(ends[-1]), spans, padded)
        self.begin[slots] = np.where(self.begin[slots] < 0, first, self.begin[slots])
        self.end[slots] = first + count
        if any(where.marker != NEVER for where in self.windows.values()):
            self._mark(slots, first, count, ends, tokens)
        for i in np.flatnonzero(self.reading[slots]):
            self._capture(int(slots[i]), int(first[i]), int(count[i]), int(ends[i] - count[i]))

    def warm(self, n: int, starts: Tensor | None, slots: Tensor | None) -> None:
        """Once, in a step that vLLM makes up before the first request comes: what a step's map is made by is compiled."""
        if starts is not None and slots is not None and self.cold:
            self.cold = False
            self._map(np.zeros(n), np.zeros(n), n, (starts, slots), None)

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
        self.tok2slot.copy_(self.staging.send(owners))

    def _mark(self, slots: np.ndarray, first: np.ndarray, count: np.ndarray, ends: np.ndarray, tokens: Tensor | None) -> None:
        """Note where a marker stands among the tokens of this step."""
        assert tokens is not None, "a marker is waited for and the step's tokens are not known"
        found = tables.searched(self.windows, slots, first, count, ends)
        if found is not None:
            place, behind, slot, marker = self.staging.send(found).view(found.shape).long()
            since = torch.where(tokens[place] == marker, behind, END).to(torch.int32)
            self.since.scatter_reduce_(0, slot, since, "amin")

    def _capture(self, slot: int, first: int, count: int, start: int) -> None:
        holding = self.live[slot].holding
        if holding is None:
            return
        lo, hi = max(first, holding.lo), min(first + count, holding.hi)
        if lo < hi:
            self.pending.append(Slice(holding, start + lo - first, hi - lo, lo))

    def _write(self) -> None:
        """Changed rows, as far as they are used and in one copy, once the numbers of those who had them are under way."""
        if self.ended:
            ended = self.staging.send(np.fromiter(self.ended, np.int32, len(self.ended))).long()
            stacked = torch.stack([self.applied[ended], self.since[ended], self.broken[ended]])
            counted = self.staging.fetch(stacked, len(self.checks))
            self.checks.append(Check(counted, list(self.ended.values()), self.staging.event()))
            self.ended.clear()
        if not self.staged:
            return
        k, numbers = tables.packed(self.staged, len(self.site), self.max_ops)
        sent = self.staging.send(numbers)
        at = sent[:k].long()
        c = (len(numbers) - 2 * k) // (k + 1)
        self.table.index_put_((at[:, None], sent[2 * k : 2 * k + c].long()[None]), sent[2 * k + c :].view(k, c))
        self.since.index_copy_(0, at, sent[k : 2 * k])
        self.applied.index_fill_(0, at, 0)
        self.broken.index_fill_(0, at, 0)
        self.staged.clear()

    def flush(self) -> None:
        """Encode what the last step captured."""
        if not self.pending:
            return
        spans, self.pending = self.pending, []
        self.held += capturing.flush(spans, self.rows, self.bank, self.staging.send, exact=self.exact)
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
        """Compare counts of requests that left with the host's, and see whose stream broke, a few steps later."""
        if self.windows and len(self.looks) < LOOKS:
            if self.owners is None:
                self.owners = dict(self.live)
            seen = self.mirrors.fetch(self.broken, len(self.looks))
            self.looks.append((seen, self.owners, self.staging.event()))
        self._settle()

    def _settle(self) -> None:
        while self.checks and self.checks[0].arrived():
            self.failed = self.checks.popleft().settle(self.failing) or self.failed
        while self.looks and (self.looks[0][2] is None or self.looks[0][2].query()):
            broken, live, _ = self.looks.popleft()
            for slot in np.flatnonzero(broken.numpy()).tolist():
                record = live.get(slot)
                if record is not None and record.error is None:
                    record.error = self.failing[record.request] = BROKEN

    def synchronize(self) -> None:
        self.flush()
        self._write()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._settle()

    def count(self, id: str) -> dict[str, Any] | None:
        """Counts of one request and vLLM's name for it; call after `synchronize`."""
        record = self.records.get(id)
        if record is None:
            return None
        expected, executed, stays = record.expected, record.executed, record.stays
        for slot in (slot for slot, other in self.live.items() if other is record):
            if (windows := self.windows.get(slot)) is not None:
                stay = Stay(record, windows, int(self.begin[slot]), int(self.end[slot]))
                expected, executed = expected + stay.due(int(self.since[slot])), executed + int(self.applied[slot])
                stays += 1
                record.error = BROKEN if int(self.broken[slot]) else record.error
        return {"request": record.request, "executed": executed, "expected": expected, "stays": stays, "error": record.error}

    def take(self, id: str, n_rows: int | None) -> dict[str, Any] | None:
        """Counts and capture of one request, once; call after `synchronize`."""
        counts, record = self.count(id), self.records.get(id)
        if counts is None or record is None:
            return None
        del counts["request"]
        for slot in (slot for slot, other in self.live.items() if other is record):
            self.reading[slot] = False
        out: dict[str, Any] = {**counts, "capture": None}
        if record.holding is not None:
            found = capturing.assemble(record.holding, n_rows)
            out |= found if "error" in found else {"capture": found}
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
        self.synchronize()
        self._follow()
        if self.failed:
            raise EngineError(self.failed)
        asked = [*range(tables.HEAD), *(tables.offset(i, self.max_ops) for i in range(len(self.site)))]
        return {
            "live": len(self.live), "records": len(self.records), "held_bytes": self.held, "pending": len(self.pending),
            "nonzero": int(self.table[: self.none, asked].count_nonzero()), "free": len(self.free), "unchecked": len(self.checks),
            "directions": len(self.bank.loaded),
        }  # fmt: skip
