"""Seeded sampling on the CPU when a prompt is read in chunks.

vLLM samples a token for every row, also for a prompt that is not yet read to its end, and takes the draw back by moving the
generator's offset. CPU generators have no offset, and the engine dies. Here such a row draws from a stand-in for that one step, so
that the request's own generator is not touched; what the row draws is thrown away in any case.
"""

from typing import Any

import torch


class StandIn(torch.Generator):
    """Drawn from in place of `own` while nothing that is drawn is kept."""

    own: torch.Generator

    def get_offset(self) -> int:
        return 0

    def set_offset(self, offset: int) -> torch.Generator:
        return self


def spare(generators: dict[int, torch.Generator], unfinished: list[int]) -> None:
    """Rows whose prompt is not read to its end get a stand-in; all others their own generator again."""
    for row, generator in generators.items():
        if isinstance(generator, StandIn):
            generators[row] = generator.own
    for row in unfinished:
        own = generators.get(row)
        if own is not None and own.device.type == "cpu":
            generators[row] = stand_in = StandIn()
            stand_in.own = own


def spare_unfinished(runner: Any) -> None:
    """After the V1 runner has laid out a step and before it samples."""
    batch = runner.input_batch
    mask = runner.discard_request_mask.np[: batch.num_reqs]
    spare(batch.generators, [int(row) for row in mask.nonzero()[0]])
