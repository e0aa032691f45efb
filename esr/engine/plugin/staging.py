"""Small arrays on their way to the device and back, through memory pinned when the worker starts.

Pinning in the middle of a step makes the host wait for the device, for as long as 0.4 s.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

SIZE = 1 << 20
"""Numbers in one buffer: 4 MiB."""
RING = 6


class Staging:
    """Buffers used in turn; one is written again only when its last copy has been made."""

    def __init__(self, device: torch.device, *, there: int = SIZE, back: int) -> None:
        """Numbers that go and come back at once."""
        self.device = device
        pinned = device.type == "cuda"
        self._there = [torch.empty(there if pinned else 0, dtype=torch.int32, pin_memory=pinned) for _ in range(RING)]
        self._back = [torch.empty(back if pinned else 0, dtype=torch.int32, pin_memory=pinned) for _ in range(RING)]
        self._events: list[Any] = [None] * RING
        self._next = self._free = 0

    def send(self, numbers: np.ndarray) -> Tensor:
        """int32 numbers, flat, on the device."""
        flat = torch.from_numpy(np.ascontiguousarray(numbers, np.int32).reshape(-1))
        if self.device.type == "cpu":
            return flat
        if len(flat) > SIZE:
            return torch.cat([self.send(numbers.reshape(-1)[at : at + SIZE]) for at in range(0, len(flat), SIZE)])
        self._next = (self._next + 1) % RING
        if (event := self._events[self._next]) is not None:
            event.synchronize()
        buffer = self._there[self._next][: len(flat)]
        buffer.copy_(flat)
        out = buffer.to(self.device, non_blocking=True)
        self._events[self._next] = self.event()
        return out

    def fetch(self, x: Tensor, waiting: int) -> Tensor:
        """int32 numbers on the host, to be read after `event`; `waiting`: earlier ones that are not read yet."""
        if self.device.type == "cpu":
            return x
        if waiting >= RING - 1:
            return x.cpu()
        self._free = (self._free + 1) % RING
        return self._back[self._free][: x.numel()].view(x.shape).copy_(x, non_blocking=True)

    def event(self) -> Any:
        """Reached when all that was asked of the device so far is done; None where it is already."""
        return torch.cuda.current_stream(self.device).record_event() if self.device.type == "cuda" else None
