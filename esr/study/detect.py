"""Off-topic detectors: latents silent while a reply answers its question and active while it answers another's.

Matched pairs are a question and its own reply; mismatched pairs come from seeded derangements, which give each question the
replies of another. Discovery questions are never evaluation questions, so what is found is tested on questions it has not seen.
"""

import logging
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from esr.engine import Capture, Engine, Request
from esr.errors import DataError
from esr.params import ModelParams, Settings
from esr.prompts import discovery
from esr.study import steer
from esr.study.batches import work
from esr.study.plan import stream
from esr.types import Arm, Sampling, Trial, content_id

if TYPE_CHECKING:
    from esr.study.study import Study

log = logging.getLogger(__name__)


class Detection(Settings):
    """How off-topic detectors are found."""

    block: ClassVar[str] = "exp03"
    derangements: int = Field(ge=1)
    pooling: Literal["response", "all"]
    active: float
    mismatched_share: float = Field(ge=0, le=1)
    matched_share: float = Field(ge=0, le=1)
    max_detectors: int = Field(ge=1)
    replies_per_question: int = Field(ge=1)
    recalibrate: bool
    """Whether there is also an arm whose thresholds are found anew while the detectors are held at zero."""


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


def activations(study: "Study") -> Activations:
    """Of every latent, over the discovery replies under their own questions and under others'."""
    settings, protocol = study.params.of(Detection), study.params.protocol
    trials = discovery_trials(study)
    flat = [trial for row in trials for trial in row]
    steer.replies(study, flat, "discover")
    texts = steer.texts(study, [trial.id for trial in flat])
    orders = derangements(len(trials), settings.derangements, study.params.seed)
    found = pairs([row[0].prompt for row in trials], [[texts[t.id] for t in row] for row in trials], orders)
    batch, model = study.params.work.batch, study.spec
    return summed(study.engine, found, model, settings, protocol.prompt_format, batch=batch)


def discovery_trials(study: "Study") -> list[list[Trial]]:
    """For each discovery question, the unsteered trials whose replies detectors are found in."""
    rng, each = stream(study.params, "discovery"), study.params.of(Detection).replies_per_question
    n_seeds = study.params.protocol.n_seeds
    return [[_unsteered(study, question, rng.randrange(n_seeds)) for _ in range(each)] for question in discovery()]


def _unsteered(study: "Study", question: str, seed: int) -> Trial:
    return Trial(
        model=study.model,
        weights=study.weights,
        meaning=study.meaning,
        prompt=question,
        prompt_format=study.params.protocol.prompt_format,
        seed=seed,
        sampling=study.params.sampling(study.model),
        question=question,
    )


def detectors(study: "Study", seen: Activations) -> list[Detector]:
    """Latents quiet while a reply answers its question and active while it does not."""
    return chosen(seen, study.params.of(Detection), {latent.index: latent.label for latent in study.labels})


def controls(
    study: "Study", seen: Activations, barred: Sequence[int], *, sets: int, matchings: Sequence[str], first_seed: int
) -> dict[str, list[Detector]]:
    """As many sets of each kind, by name: `matched-0`, `uniform-2`; no two matched sets share a latent."""
    found = detectors(study, seen)
    labels = {latent.index: latent.label for latent in study.labels}
    made: dict[str, list[Detector]] = {}
    for kind in matchings:
        out = set(barred)
        for i in range(sets):
            drawn = CONTROLS[kind](seen, found, sorted(out), first_seed + i, labels)
            out |= {control.latent for control in drawn if kind == "matched"}  # nearest neighbours would come again
            made[f"{kind}-{i}"] = drawn
    return made


def arms(experiment: str, sets: Mapping[str, Sequence[Detector]]) -> dict[Arm, list[int]]:
    """The arm of each set, and the latents clamped in it; sets of one kind are a series."""
    found: dict[Arm, list[int]] = {}
    for name, rows in sets.items():
        kind = rows[0].kind
        place = sum(arm.kind == kind for arm in found)
        found[Arm(experiment, name, kind, float(place), place)] = [row.latent for row in rows]
    return found


def record(study: "Study", sets: Mapping[str, Sequence[Detector]]) -> int:
    """Sets of ablated latents by name, each under an id of its content."""
    rows = [
        {"set_id": content_id(study.weights, name, [d.latent for d in found], length=16), "model": study.model, **asdict(d)}
        for name, found in sets.items()
        for d in found
    ]
    study.store.put("detectors", rows)
    return len(rows)


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


def summed(
    engine: Engine, found: Sequence[Pair], model: ModelParams, settings: Detection, prompt_format: str, *, batch: int
) -> Activations:
    """Sums over the pairs, one batch of readings in memory at a time."""
    sums: dict[bool, list[np.ndarray]] = {}
    count = {True: 0, False: 0}

    def read(some: Sequence[Pair]) -> list[tuple[bool, np.ndarray]]:
        readings = engine.read([request(engine, pair, model, settings.pooling, prompt_format) for pair in some])
        return [(pair.matched, reading.values) for pair, reading in zip(some, readings, strict=True)]

    for values in work(read, found, size=batch, in_flight=1):
        for matched, value in values:
            active, total = sums.setdefault(matched, [np.zeros(len(value)), np.zeros(len(value))])
            active += value > settings.active
            total += value
            count[matched] += 1
    if not all(count.values()):
        raise DataError(f"detectors need matched and mismatched pairs and there are {count[True]} and {count[False]}")
    mean = {kind: [s / count[kind] for s in sums[kind]] for kind in (True, False)}
    return Activations(mean[True][0], mean[True][1], mean[False][0], mean[False][1])


def chosen(seen: Activations, settings: Detection, labels: dict[int, str]) -> list[Detector]:
    """Latents quiet in matched and active in mismatched pairs, the most often and most strongly active first."""
    quiet, loud = settings.matched_share, settings.mismatched_share
    kept = np.flatnonzero((seen.matched_active <= quiet) & (seen.mismatched_active >= loud))
    if not len(kept):
        k = int(np.argmax(seen.mismatched_active - seen.matched_active))
        closest = f"latent {k}{f' ({labels[k]})' if k in labels else ''}, is so in {seen.matched_active[k]:.0%} and {seen.mismatched_active[k]:.0%}"
        raise DataError(
            f"no latent is active in at most {quiet:.0%} of matched and at least {loud:.0%} of mismatched "
            f"pairs; the one that tells them apart best, {closest}; there is nothing to ablate, {settings.block} in params.yaml says what counts"
        )
    order = sorted(kept.tolist(), key=lambda k: (-seen.mismatched_active[k], -seen.mismatched_mean[k], k))
    return rows(seen, order[: settings.max_detectors], "detector", labels)


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
