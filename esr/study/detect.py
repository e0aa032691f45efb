"""Off-topic detectors: latents silent while a reply answers its question and active while it answers another's.

Matched pairs are a question and its own reply; mismatched pairs come from seeded derangements, which give each question the
replies of another. Discovery questions are never evaluation questions, so what is found is tested on questions it has not seen.

By the criterion `auc` the questions are parted in two halves, and replies are dealt within each: one half chooses the latents that tell
the two kinds of pair apart best, and what they are worth is said by the other, since the best of many thousands looks better than it is.
"""

import logging
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from esr.count.pair_areas import Areas, areas
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
    criterion: Literal["shares", "auc"]
    """shares: silent in matched and active in mismatched pairs, the published rule · auc: those whose largest activation tells the two apart best."""
    least_auc: float = Field(ge=0.5, le=1)
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
    auc: np.ndarray
    """P(a mismatched pair reads higher than a matched one) + ½ P(alike), over the pairs that detectors are chosen by."""
    held_out: Areas | None = None
    """The same over the pairs of the questions that choose nothing; None: all of them choose."""


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
    auc: float | None = None
    """Over the pairs that it was chosen by."""
    auc_held_out: float | None = None
    """Over those of the other half of the questions."""
    auc_low: float | None = None
    """Of that, the interval over questions; None, as `auc_high` is: there is none."""
    auc_high: float | None = None


def activations(study: "Study") -> Activations:
    """Of every latent, over the discovery replies under their own questions and under others'."""
    settings, protocol = study.params.of(Detection), study.params.protocol
    trials = discovery_trials(study)
    flat = [trial for row in trials for trial in row]
    steer.replies(study, flat, "discover")
    texts = study.store.texts([trial.id for trial in flat])
    choosing, apart = halves(len(trials), study.params.seed) if settings.criterion == "auc" else (list(range(len(trials))), [])
    orders = dealt([choosing, apart], settings.derangements, study.params.seed)
    found = pairs([row[0].prompt for row in trials], [[texts[t.id] for t in row] for row in trials], orders)
    batch, model = study.params.work.batch, study.spec
    values = read(study.engine, found, model, settings.pooling, protocol.prompt_format, batch=batch)
    return summary(values, found, settings.active, choosing)


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


def halves(n: int, seed: int) -> tuple[list[int], list[int]]:
    """n questions in two halves by lot."""
    order = random.Random(f"{seed}/halves").sample(range(n), n)
    return sorted(order[: (n + 1) // 2]), sorted(order[(n + 1) // 2 :])


def dealt(groups: Sequence[Sequence[int]], count: int, seed: int) -> list[list[int]]:
    """`count` permutations of all questions that leave none in its place, and each within its group."""
    some = [group for group in groups if group]
    within = [derangements(len(group), count, seed if i == 0 else f"{seed}/{i}") for i, group in enumerate(some)]
    orders = []
    for parts in zip(*within, strict=False):  # a small group may have fewer
        order = {group[i]: group[j] for group, part in zip(some, parts, strict=True) for i, j in enumerate(part)}
        orders.append([order[i] for i in range(len(order))])
    return orders


def derangements(n: int, count: int, seed: int | str) -> list[list[int]]:
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


def read(engine: Engine, found: Sequence[Pair], model: ModelParams, pooling: str, prompt_format: str, *, batch: int) -> np.ndarray:
    """Each latent's largest activation in each pair, [pairs, d_sae] float32: 60 MB for the 65,536 latents of a published SAE."""

    def some(part: Sequence[Pair]) -> np.ndarray:
        readings = engine.read([request(engine, pair, model, pooling, prompt_format) for pair in part])
        return np.stack([reading.values.astype(np.float32, copy=False) for reading in readings])

    return np.concatenate(list(work(some, found, size=batch, in_flight=1)))


def summary(values: np.ndarray, found: Sequence[Pair], active: float, choosing: Sequence[int]) -> Activations:
    """Shares and means over all pairs; areas over those of the questions that choose, and over those of the others."""
    matched = np.array([pair.matched for pair in found])
    if matched.all() or not matched.any():
        raise DataError(f"detectors need matched and mismatched pairs and there are {matched.sum()} and {(~matched).sum()}")
    question, reply = np.array([pair.question for pair in found]), np.array([pair.reply for pair in found])
    mine = np.isin(question, choosing)
    own, others = values[matched], values[~matched]
    return Activations(
        matched_active=(own > active).mean(axis=0),
        matched_mean=own.mean(axis=0, dtype=np.float64),
        mismatched_active=(others > active).mean(axis=0),
        mismatched_mean=others.mean(axis=0, dtype=np.float64),
        auc=areas(values[mine], question[mine], reply[mine]).value,
        held_out=None if mine.all() else areas(values[~mine], question[~mine], reply[~mine]),
    )


def chosen(seen: Activations, settings: Detection, labels: dict[int, str]) -> list[Detector]:
    """Latents that tell a reply to another question from one to its own, the best first."""
    kept = _by_auc(seen, settings, labels) if settings.criterion == "auc" else _by_shares(seen, settings, labels)
    return rows(seen, kept[: settings.max_detectors], "detector", labels)


def _by_shares(seen: Activations, settings: Detection, labels: dict[int, str]) -> list[int]:
    """Quiet in matched and active in mismatched pairs, the most often and most strongly active first."""
    quiet, loud = settings.matched_share, settings.mismatched_share
    kept = np.flatnonzero((seen.matched_active <= quiet) & (seen.mismatched_active >= loud))
    if not len(kept):
        k = int(np.argmax(seen.mismatched_active - seen.matched_active))
        raise DataError(
            f"no latent is active in at most {quiet:.0%} of matched and at least {loud:.0%} of mismatched pairs; the one that tells them "
            f"apart best, {_named(k, labels)}, is so in {seen.matched_active[k]:.0%} and {seen.mismatched_active[k]:.0%}; there is nothing "
            f"to ablate, {settings.block} in params.yaml says what counts"
        )
    return sorted(kept.tolist(), key=lambda k: (-seen.mismatched_active[k], -seen.mismatched_mean[k], k))


def _by_auc(seen: Activations, settings: Detection, labels: dict[int, str]) -> list[int]:
    """The largest area first; of equal ones the more strongly active."""
    kept = np.flatnonzero(seen.auc >= settings.least_auc)
    if not len(kept):
        k = int(np.argmax(seen.auc))
        raise DataError(
            f"no latent tells mismatched from matched pairs with an area under the curve of {settings.least_auc:.2f}; the one that tells them "
            f"apart best, {_named(k, labels)}, has {seen.auc[k]:.2f}; there is nothing to ablate, {settings.block} in params.yaml says what counts"
        )
    return sorted(kept.tolist(), key=lambda k: (-seen.auc[k], -seen.mismatched_mean[k], k))


def _named(latent: int, labels: Mapping[int, str]) -> str:
    return f"latent {latent}{f' ({labels[latent]})' if latent in labels else ''}"


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
            auc=float(seen.auc[k]),
            **_held_out(seen.held_out, k),
        )
        for rank, k in enumerate(latents)
    ]


def _held_out(of: Areas | None, latent: int) -> dict[str, float | None]:
    if of is None:
        return {}
    found = {"auc_held_out": of.value[latent], "auc_low": of.low[latent], "auc_high": of.high[latent]}
    return {name: float(value) if np.isfinite(value) else None for name, value in found.items()}


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
