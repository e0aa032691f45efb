"""Rows of the residual stream, read by the engine on the very tokens that the model wrote, in an order drawn anew at each pass."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import takewhile

import numpy as np
import psutil  # type: ignore[import-untyped]  # it comes without types
import torch
from torch import Tensor

from esr.dictionary.corpus import Corpus, Written
from esr.engine import Capture, Engine, Request
from esr.types import Sampling

AT_ONCE = 512
"""Replies in one request to the engine."""
ROWS = 65536
"""Handed to the training at once."""
SHARE = 4
"""A batch's rows are kept while twice their size is less than this part of the memory that is left."""
OUTSIZED = 8.0
"""Times the median norm: a row above it is left out. The first tokens of a sequence are such, whatever they say."""


class Rows:
    def __init__(self, engine: Engine, text: Corpus, layer: int, sampling: Sampling) -> None:
        self.engine, self.text, self.layer, self.sampling = engine, text, layer, sampling
        self._kept: dict[int, Tensor] = {}

    @cached_property
    def scale(self) -> tuple[Tensor, float]:
        """The mean row, and the median norm, over the first batch's replies."""
        rows = torch.cat(list(self._read(self.text.part(0, held=False)[:512])))
        return rows.mean(0), float(rows.norm(dim=1).median())

    def training(self, seed: int) -> Iterator[Tensor]:
        """[tokens, width], ROWS of them at most at a time, for ever. What was read is kept in half precision while memory is left."""
        rng = np.random.default_rng(seed)
        while True:
            for number in rng.permutation(self.text.batches):
                rows = self._batch(int(number))
                order = torch.from_numpy(rng.permutation(len(rows)))
                for part in torch.split(order, ROWS):
                    yield rows[part].float()

    def _batch(self, number: int) -> Tensor:
        """The usual rows of a batch that are not held out, in half precision."""
        if number in self._kept:
            return self._kept[number]
        rows = torch.cat([self.usual(part).half() for part in self._read(self.text.part(number, held=False))])
        if 2 * rows.nbytes < psutil.virtual_memory().available / SHARE:
            self._kept[number] = rows
        return rows

    def held(self, limit: int) -> Iterator[tuple[Written, Tensor]]:
        """Replies that were held out, `limit` of them at most, each with its rows."""
        for number in range(self.text.batches):
            if not limit:
                return
            replies = self.text.part(number, held=True)[:limit]
            limit -= len(replies)
            for lo in range(0, len(replies), AT_ONCE):
                part = replies[lo : lo + AT_ONCE]
                yield from zip(part, self._each(part), strict=True)

    def usual(self, rows: Tensor) -> Tensor:
        return rows[rows.norm(dim=1) <= OUTSIZED * self.scale[1]]

    def _read(self, replies: Sequence[Written]) -> Iterator[Tensor]:
        for lo in range(0, len(replies), AT_ONCE):
            yield torch.cat(self._each(replies[lo : lo + AT_ONCE]))

    @cached_property
    def shared(self) -> int:
        """Tokens that every prompt begins with: the system's turn."""
        prompts = [one.prompt_ids for one in self.text.batch(0)]
        pairs = zip(min(prompts), max(prompts), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def _each(self, replies: Sequence[Written]) -> list[Tensor]:
        """Of the tokens after those that every prompt begins with."""
        asked = [
            Request(
                token_ids=(*one.prompt_ids, *one.ids),
                sampling=self.sampling,
                capture=Capture(
                    layer=self.layer, mode="residual", positions=f"[{self.shared},{len(one.prompt_ids) + len(one.ids)})"
                ),
            )
            for one in replies
        ]
        return [torch.from_numpy(np.array(found.values)) for found in self.engine.read(asked)]
