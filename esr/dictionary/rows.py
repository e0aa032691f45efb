"""Rows of the residual stream, read by the engine on the very tokens that the model wrote, in an order drawn anew at each pass."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]  # it comes without types
import torch
from torch import Tensor

from esr.dictionary.corpus import Corpus, Part, Written
from esr.engine import Capture, Engine, Request
from esr.types import Sampling
from esr.whole import placing

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
        rows = torch.cat(list(self._read(0, self.text.part(0, held=False)[:AT_ONCE])))
        return rows.mean(0), float(rows.norm(dim=1).median())

    def training(self, seed: int) -> Iterator[Tensor]:
        """[tokens, width] in half precision, ROWS of them at most at a time, for ever. What was read is kept while memory is left."""
        rng = np.random.default_rng(seed)
        while True:
            for number in rng.permutation(self.text.batches):
                rows = self._batch(int(number))
                order = torch.from_numpy(rng.permutation(len(rows)))
                for part in torch.split(order, ROWS):
                    yield rows[part]

    def write(self, say: Callable[[str], object], part: Part) -> None:
        """The rows of a part's batches beside their text: twice the width in bytes a token."""
        for number in range(part[0], self.text.batches, part[1]):
            path = self._path(number)
            if not path.is_file():
                rows = self._whole(number).numpy()
                with placing(path) as file:
                    np.save(file, rows)
            say(f"rows: batch {number + 1} of {self.text.batches}")

    def _path(self, number: int) -> Path:
        return self.text.folder / f"{number:05}.layer{self.layer}.npy"

    def _batch(self, number: int) -> Tensor:
        """The usual rows of a batch that are not held out, in half precision."""
        if number in self._kept:
            return self._kept[number]
        path = self._path(number)
        whole = torch.from_numpy(np.load(path)) if path.is_file() else self._whole(number)
        replies = self.text.numbered(number)
        trained = torch.tensor([bool(one.ids) and at not in self.text.held for at, one in replies])
        lengths = torch.tensor([len(one.prompt_ids) + len(one.ids) for _, one in replies]) - self._shared(number)
        rows = whole[torch.repeat_interleave(trained, lengths) & self._is_usual(whole)]
        if 2 * rows.nbytes < psutil.virtual_memory().available / SHARE:
            self._kept[number] = rows
        return rows

    def _whole(self, number: int) -> Tensor:
        """Every row of a batch, in half precision."""
        return torch.cat([part.half() for part in self._read(number, self.text.batch(number))])

    def held(self, limit: int) -> Iterator[tuple[Written, Tensor]]:
        """Replies that were held out, `limit` of them at most, each with its rows."""
        for number in range(self.text.batches):
            if not limit:
                return
            replies = self.text.part(number, held=True)[:limit]
            limit -= len(replies)
            for lo in range(0, len(replies), AT_ONCE):
                part = replies[lo : lo + AT_ONCE]
                yield from zip(part, self._each(number, part), strict=True)

    def usual(self, rows: Tensor) -> Tensor:
        return rows[self._is_usual(rows)]

    def _is_usual(self, rows: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32)
        return norms <= OUTSIZED * self.scale[1]

    def _read(self, number: int, replies: Sequence[Written]) -> Iterator[Tensor]:
        for lo in range(0, len(replies), AT_ONCE):
            yield torch.cat(self._each(number, replies[lo : lo + AT_ONCE]))

    def _shared(self, number: int) -> int:
        """Tokens that every prompt of a batch begins with, the system's turn; never the whole of one."""
        prompts = [one.prompt_ids for one in self.text.batch(number)]
        pairs = zip(min(prompts)[:-1], max(prompts), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def _each(self, number: int, replies: Sequence[Written]) -> list[Tensor]:
        """Of the tokens after those that every prompt of the batch begins with."""
        shared = self._shared(number)
        asked = [
            Request(
                token_ids=(*one.prompt_ids, *one.ids),
                sampling=self.sampling,
                capture=Capture(layer=self.layer, mode="residual", positions=f"[{shared},{len(one.prompt_ids) + len(one.ids)})"),
            )
            for one in replies
        ]
        return [torch.from_numpy(np.array(found.values)) for found in self.engine.read(asked)]
