"""Off-topic detectors: latents silent while a reply answers its question and active while it answers another's.

Matched pairs are a question and its own reply; mismatched pairs come from seeded derangements, which give each question the
replies of another. Discovery questions are never evaluation questions, so what is found is tested on questions it has not seen.
"""

import base64
import io
import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esr.engine import Capture, Engine, Request
from esr.errors import DataError
from esr.params import Exp03, ModelParams
from esr.study.batches import work
from esr.types import Sampling

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """A question with a reply to it or to another."""

    question: int
    reply: int
    """The question that the reply answers."""
    prompt: str
    text: str

    @property
    def matched(self) -> bool:
        return self.question == self.reply


@dataclass(frozen=True, slots=True)
class Activations:
    """Of each latent, over pairs: how often it is active and how strongly at its largest, on the mean. All arrays [d_sae]."""

    matched_active: np.ndarray
    """Share of matched pairs in which it is active, in [0, 1]."""
    matched_mean: np.ndarray
    mismatched_active: np.ndarray
    mismatched_mean: np.ndarray

    def to_text(self) -> str:
        """One string, so that a task can return it as a value."""
        file = io.BytesIO()
        np.savez_compressed(file, **{name: getattr(self, name).astype(np.float32) for name in self.__slots__})
        return base64.b64encode(file.getvalue()).decode()

    @classmethod
    def from_text(cls, text: str) -> "Activations":
        with np.load(io.BytesIO(base64.b64decode(text))) as arrays:
            return cls(**{name: arrays[name] for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Detector:
    """One latent of a set that is ablated: a detector, or a control in its place."""

    latent: int
    label: str
    kind: str
    """`detector`, `matched` or `uniform`."""
    rank: int
    matched_mean: float
    matched_active: float
    mismatched_mean: float
    mismatched_active: float


def derangements(n: int, count: int, seed: int) -> list[list[int]]:
    """`count` permutations of n things without a fixed point, from seeded shuffles; distinct where n allows it."""
    if n < 2:
        raise DataError(f"a derangement needs at least 2 questions and there are {n}")
    rng, out = random.Random(f"{seed}/derangements"), list[list[int]]()
    for _ in range(1000 * count):
        order = rng.sample(range(n), n)
        if all(i != j for i, j in enumerate(order)) and (order not in out or n < 4):
            out.append(order)
        if len(out) == count:
            break
    return out


def pairs(questions: Sequence[str], replies: Sequence[Sequence[str]], orders: Sequence[Sequence[int]]) -> list[Pair]:
    """Every reply under its own question, then, for each derangement, under the question it is dealt to."""
    own = [Pair(q, q, questions[q], text) for q in range(len(questions)) for text in replies[q]]
    other = [Pair(q, order[q], questions[q], text) for order in orders for q in range(len(questions)) for text in replies[order[q]]]
    return own + other


def request(engine: Engine, pair: Pair, model: ModelParams, pooling: str, prompt_format: str) -> Request:
    """Read the pair teacher-forced and unsteered, keeping each latent's largest activation over the pooled positions."""
    start, end = len(engine.render(pair.prompt, prompt_format)), len(engine.render(pair.prompt, prompt_format, pair.text))
    scope = "all" if pooling == "all" else f"[{start},{end})"
    return Request(
        prompt=pair.prompt,
        prompt_format=prompt_format,
        prefill=pair.text,
        sampling=Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=1),
        capture=Capture(layer=model.read_layer, sae=model.sae, mode="max", positions=scope),
    )


def activations(
    engine: Engine, found: Sequence[Pair], model: ModelParams, exp: Exp03, prompt_format: str, *, batch: int
) -> Activations:
    """Sums over the pairs, one batch of readings in memory at a time."""
    sums: dict[bool, list[np.ndarray]] = {}
    count = {True: 0, False: 0}

    def read(some: Sequence[Pair]) -> list[tuple[bool, np.ndarray]]:
        readings = engine.read([request(engine, pair, model, exp.pooling, prompt_format) for pair in some])
        return [(pair.matched, reading.values) for pair, reading in zip(some, readings, strict=True)]

    for values in work(read, found, size=batch, in_flight=1):
        for matched, value in values:
            active, total = sums.setdefault(matched, [np.zeros(len(value)), np.zeros(len(value))])
            active += value > exp.active
            total += value
            count[matched] += 1
    if not all(count.values()):
        raise DataError(f"detectors need matched and mismatched pairs and there are {count[True]} and {count[False]}")
    mean = {kind: [s / count[kind] for s in sums[kind]] for kind in (True, False)}
    return Activations(mean[True][0], mean[True][1], mean[False][0], mean[False][1])


def detectors(seen: Activations, exp: Exp03, labels: dict[int, str]) -> list[Detector]:
    """Latents quiet in matched and active in mismatched pairs, the most often and most strongly active first."""
    chosen = np.flatnonzero((seen.matched_active <= exp.matched_share) & (seen.mismatched_active >= exp.mismatched_share))
    if not len(chosen):
        raise DataError(
            f"no latent is active in at most {exp.matched_share:.0%} of matched and at least {exp.mismatched_share:.0%} of mismatched "
            "pairs; there is nothing to ablate, exp03 in params.yaml says what counts"
        )
    order = sorted(chosen.tolist(), key=lambda k: (-seen.mismatched_active[k], -seen.mismatched_mean[k], k))
    return rows(seen, order[: exp.max_detectors], "detector", labels)


def rows(seen: Activations, latents: Sequence[int], kind: str, labels: dict[int, str]) -> list[Detector]:
    return [
        Detector(
            latent=k,
            label=labels.get(k, ""),
            kind=kind,
            rank=rank,
            matched_mean=float(seen.matched_mean[k]),
            matched_active=float(seen.matched_active[k]),
            mismatched_mean=float(seen.mismatched_mean[k]),
            mismatched_active=float(seen.mismatched_active[k]),
        )
        for rank, k in enumerate(latents)
    ]


def uniform(
    seen: Activations, found: Sequence[Detector], barred: Sequence[int], seed: int, labels: dict[int, str]
) -> list[Detector]:
    """The authors' control: as many latents as there are detectors, drawn evenly from all others, dead ones too."""
    out = {d.latent for d in found} | set(barred)
    others = [k for k in range(len(seen.matched_mean)) if k not in out]
    return rows(seen, random.Random(seed).sample(others, len(found)), "uniform", labels)


NEIGHBOURS = 8
"""A matched control is drawn from this many nearest latents, so that several sets differ."""


def matched(
    seen: Activations, found: Sequence[Detector], barred: Sequence[int], seed: int, labels: dict[int, str]
) -> list[Detector]:
    """For each detector one other latent about as often and as strongly active over all pairs, none used twice."""
    rng = random.Random(f"{seed}/matched")
    place = _place(seen)
    out = {d.latent for d in found} | set(barred)
    free = np.array([k for k in range(len(place)) if k not in out and math.isfinite(place[k].sum())])
    if len(free) < len(found):
        raise DataError(f"{len(found)} detectors need as many matched controls and only {len(free)} latents are ever active")
    chosen: list[int] = []
    for detector in found:
        far = np.linalg.norm(place[free] - place[detector.latent], axis=1)
        nearest = np.argsort(far, kind="stable")[:NEIGHBOURS]
        pick = int(nearest[rng.randrange(len(nearest))])
        chosen.append(int(free[pick]))
        free = np.delete(free, pick)
    return rows(seen, chosen, "matched", labels)


def _place(seen: Activations) -> np.ndarray:
    """[d_sae, 2]: activation frequency and log magnitude over both kinds of pair, each in units of its own spread; NaN when dead."""
    frequency = (seen.matched_active + seen.mismatched_active) / 2
    mean = (seen.matched_mean + seen.mismatched_mean) / 2
    alive = (frequency > 0) & (mean > 0)
    place = np.full((len(mean), 2), np.nan)
    place[alive] = np.stack([frequency[alive], np.log(mean[alive])], axis=1)
    spread = np.nanstd(place, axis=0)
    place /= np.where(spread > 0, spread, 1.0)
    return place


CONTROLS = {"matched": matched, "uniform": uniform}
