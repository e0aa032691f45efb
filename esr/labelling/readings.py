"""Each latent's peak in each text, read by the engine on the very token ids and kept on disk part by part; a part that is there is not read again.

A part holds, for each of its texts, the latents that were active in it, how strongly at their largest and at which of its tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from esr.engine import Capture, Request
from esr.labelling.texts import Text
from esr.study.batches import work
from esr.study.progress import Tick
from esr.types import Sampling
from esr.whole import placing

if TYPE_CHECKING:
    from esr.study.study import Study

PART = 32
"""Texts in a part. The engine answers with 8 bytes a latent and text: 17 MB a part of 65,536 latents, `work.in_flight` of them at once."""


@dataclass(frozen=True, slots=True)
class Peaks:
    """Of a part; arrays of one length, one element an active latent of a text."""

    text: NDArray[np.int32]
    """Number of the text."""
    latent: NDArray[np.int32]
    at: NDArray[np.int32]
    """Which of the text's own tokens, 0 the first."""
    value: NDArray[np.float32]


def read(study: "Study", texts: Sequence[Text], folder: Path) -> None:
    """Whatever parts are lacking."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(texts), PART)
    lacking = [start for start in starts if not part(folder, start).is_file()]
    study.progress.expect("read", len(texts))
    study.progress.stored("read", sum(len(texts[start : start + PART]) for start in starts if start not in set(lacking)))

    def one(some: Sequence[int]) -> int:
        study.progress.go_on()
        for start in some:
            save(part(folder, start), peaks(study, texts[start : start + PART], start))
        return sum(len(texts[start : start + PART]) for start in some)

    for n in work(one, lacking, size=1, in_flight=study.params.work.in_flight):
        study.progress.tick(Tick("read", n))


def peaks(study: "Study", texts: Sequence[Text], first: int) -> Peaks:
    """Read by the engine; the prompt's own tokens are left out."""
    sampling = Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=1)
    requests = [
        Request(
            token_ids=text.prompt_ids + text.ids, sampling=sampling,
            capture=Capture(layer=study.spec.read_layer, sae=study.spec.sae, mode="max", positions=f"[{len(text.prompt_ids)},)"),
        )
        for text in texts
    ]  # fmt: skip
    found: list[tuple[NDArray[np.int32], ...]] = []
    values: list[NDArray[np.float32]] = []
    for number, (text, reading) in enumerate(zip(texts, study.engine.read(requests), strict=True), first):
        assert reading.indices is not None
        active = np.flatnonzero(reading.values > 0)
        at = reading.indices[active] - len(text.prompt_ids)
        found.append((np.full(len(active), number, np.int32), active.astype(np.int32), at.astype(np.int32)))
        values.append(reading.values[active].astype(np.float32))
    text_N, latent_N, at_N = (np.concatenate(column) for column in zip(*found, strict=True))
    return Peaks(text_N, latent_N, at_N, np.concatenate(values))


def part(folder: Path, start: int) -> Path:
    return folder / f"{start:07d}.npz"


def save(path: Path, found: Peaks) -> None:
    with placing(path) as file:
        np.savez_compressed(file, text=found.text, latent=found.latent, at=found.at, value=found.value)


def parts(folder: Path) -> Iterator[Peaks]:
    """In the order of the texts."""
    for path in sorted(folder.glob("[0-9]*.npz")):
        with np.load(path) as stored:
            yield Peaks(stored["text"], stored["latent"], stored["at"], stored["value"])
