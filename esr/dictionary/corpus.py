"""The text that an SAE is trained on: a model's own unsteered replies to every request about every subject, kept batch by batch.

No evaluation question is asked: a latent that is silent on them is not so because it was trained to be.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from esr import prompts
from esr.engine import Engine, Request
from esr.params import Params, RecipeParams
from esr.params.weights import identity
from esr.types import content_id
from esr.whole import placing

BATCH = 4096
"""Replies that become durable at once."""


@dataclass(frozen=True, slots=True)
class Written:
    """One reply with the tokens that it answers."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Corpus:
    folder: Path
    batches: int
    replies: int
    tokens: int
    """Of replies."""
    prompts: int
    held: frozenset[int]
    """Numbers of the replies that are held out of the training: every reply to a share of the prompts."""

    def batch(self, number: int) -> list[Written]:
        return _read(self.folder / f"{number:05}.npz")

    def numbered(self, number: int) -> list[tuple[int, Written]]:
        return list(enumerate(self.batch(number), number * BATCH))

    def part(self, number: int, *, held: bool) -> list[Written]:
        """The replies of a batch that are held out, or those that are not; empty ones are neither."""
        return [one for at, one in self.numbered(number) if (at in self.held) == held and one.ids]


def asked(requests: Sequence[str], subjects: Sequence[str]) -> list[str]:
    return [prompts.fill(request, subject=subject) for request in requests for subject in subjects]


Part = tuple[int, int]
"""Of so many equal parts the how manyth, from 0."""
WHOLE: Part = (0, 1)


def made(
    engine: Engine, params: Params, model: str, recipe: RecipeParams, root: Path, say: Callable[[str], object], part: Part = WHOLE
) -> Corpus:
    """The corpus of this model and recipe; batches that are there are not generated again. Of a part, its batches alone."""
    questions = [
        *asked([*prompts.lines("label_requests"), *prompts.lines("sae_requests")], prompts.lines("label_subjects")),
        *prompts.discovery(),
    ]
    questions = questions[:: recipe.every]
    sampling = replace(params.sampling(model), max_tokens=recipe.max_tokens)
    every = [(number % len(questions), number) for number in range(len(questions) * recipe.replies)]
    name = content_id("dictionary", identity(params, model), questions, asdict(sampling), recipe.replies, length=12)
    folder = root / "dictionaries" / f"{model}-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    batches = -(-len(every) // BATCH)
    tokens = 0
    for number in range(part[0], batches, part[1]):
        path = folder / f"{number:05}.npz"
        if not path.is_file():
            asks = every[number * BATCH : (number + 1) * BATCH]
            outputs = engine.generate([Request(prompt=questions[at], sampling=sampling, seed=seed) for at, seed in asks])
            _write(path, [Written(one.prompt_token_ids, one.token_ids) for one in outputs])
        with np.load(path) as there:
            tokens += int(there["lengths"].sum())
        say(f"text: {min((number + 1) * BATCH, len(every)):,} of {len(every):,} replies, {tokens:,} tokens")
    step = max(round(1 / recipe.held_out), 2)
    held = frozenset(number for at, number in every if at % step == step - 1)
    return Corpus(folder, batches, len(every), tokens, len(questions), held)


def _write(path: Path, replies: Sequence[Written]) -> None:
    def flat(parts: Iterator[tuple[int, ...]]) -> "np.ndarray[Any, np.dtype[np.uint32]]":
        return np.fromiter((token for part in parts for token in part), np.uint32)

    with placing(path) as file:
        np.savez(
            file,
            prompts=flat(one.prompt_ids for one in replies),
            ids=flat(one.ids for one in replies),
            prompt_lengths=np.array([len(one.prompt_ids) for one in replies], np.int64),
            lengths=np.array([len(one.ids) for one in replies], np.int64),
        )


@lru_cache(maxsize=1)  # of one batch the rows, what they have in common and what is held out are asked for in turn
def _read(path: Path) -> list[Written]:
    with np.load(path) as there:
        found = {name: there[name] for name in there.files}
    first = np.split(found["prompts"], np.cumsum(found["prompt_lengths"])[:-1])
    second = np.split(found["ids"], np.cumsum(found["lengths"])[:-1])
    return [Written(tuple(map(int, a)), tuple(map(int, b))) for a, b in zip(first, second, strict=True)]
