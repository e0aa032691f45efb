"""Calibration: many latents' threshold searches in step, asked of whoever can score trials.

Every ask follows from the answers before it and every question and seed from the root seed, so a search that was killed is
resumed by doing it again: what was generated and graded is found and only the rest is computed.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from esr.params import Params
from esr.prompts import evaluation
from esr.study import grade, steer
from esr.study.plan import search_step
from esr.study.reader import Reader
from esr.threshold import Ask, Score, Search, Status
from esr.types import Latent, Member, content_id

if TYPE_CHECKING:
    from esr.study.study import Study

log = logging.getLogger(__name__)

Scores = Callable[[list[Member]], Mapping[str, float | None]]
"""First-attempt score in [0, 1] of each trial by id; None: no valid grade."""

BITES = ("converged", "unresolved")
"""Statuses with which a latent is steered."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """What calibration found for one latent."""

    latent: Latent
    boost: float
    """At which the mean first-attempt score meets the target."""
    low: float
    """Lower end of the 95 % posterior interval."""
    high: float
    status: Status
    target: float
    """The score looked for, in [0, 1]."""
    verified: float | None
    """Mean first-attempt score at the boost afterwards, in [0, 1]; None: not asked, or without a valid grade."""
    asks: tuple[Ask, ...]
    """The search: boosts tried, mean scores, samples."""

    @property
    def bites(self) -> bool:
        """Whether the latent is steered; one that never or always bites has no boost that meets the target."""
        return self.status in BITES


def thresholds(study: "Study", latents: Sequence[Latent], clamped: Sequence[int] = ()) -> list[Threshold]:
    """The boost at which each latent bites, by the model's own judge; also recorded, under an id of all that was read. With `clamped`,
    while these other latents are held at zero."""
    reader = Reader.on(study)

    def scores(members: list[Member]) -> dict[str, float | None]:
        steer.replies(study, [member.trial for member in members], "calibrate")
        found = grade.grades(study, members, study.grader, "calibrate: judge")
        return {member.trial.id: grade.of(found, member) for member in members}

    found = calibrate(reader.params, reader.model, reader.weights, reader.meaning, latents, evaluation(), scores, clamped)
    facts = {**reader.read, "calibration": sorted(latent.index for latent in latents)}
    if clamped:
        facts["clamped"] = sorted(clamped)
    study.store.put_thresholds([row(one, reader.model, facts) for one in found])
    return found


def row(found: Threshold, model: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table `thresholds`; `facts` is all that the search rested on."""
    return {
        "calibration_id": content_id("calibration", facts, found.latent.index),
        "model": model,
        "latent": found.latent.index,
        "label": found.latent.label,
        "threshold": found.boost,
        "low": found.low,
        "high": found.high,
        "status": found.status,
        "target": found.target,
        "verified_score": found.verified,
        "asks": [{"boost": ask.boost, "score": ask.score, "n": ask.n} for ask in found.asks],
        "clamped": facts.get("clamped"),
    }


def calibrate(
    params: Params,
    model: str,
    weights: str,
    meaning: str,
    latents: Sequence[Latent],
    questions: Sequence[str],
    scores: Scores,
    clamped: Sequence[int] = (),
) -> list[Threshold]:
    """The searches in step, whoever scores."""
    search = Search([latent.index for latent in latents], params.model(model).search, params.protocol)
    named = {latent.index: latent for latent in latents}
    step = 0

    def ask(asks: Iterable[tuple[int, float]], name: int | str, samples: int | None = None) -> dict[int, Score | None]:
        pairs = [(named[index], boost) for index, boost in asks]
        members = search_step(
            params,
            model=model,
            weights=weights,
            meaning=meaning,
            asks=pairs,
            step=name,
            questions=questions,
            samples=samples,
            clamped=clamped,
        )
        return means(members, scores(members))

    while not search.done:
        search.tell(ask(search.ask(), step))
        step += 1
    found = search.results()
    n = params.protocol.verify_samples
    verified = ask([(k, f.threshold) for k, f in found.items() if f.status in BITES], "verify", n) if n else {}
    log.info("calibrated %d latents in %d steps", len(latents), step)
    return [
        Threshold(
            latent=latent,
            boost=found[latent.index].threshold,
            low=found[latent.index].low,
            high=found[latent.index].high,
            status=found[latent.index].status,
            target=params.protocol.target,
            verified=score.mean if (score := verified.get(latent.index)) else None,
            asks=found[latent.index].asks,
        )
        for latent in latents
    ]


def means(members: Sequence[Member], scores: Mapping[str, float | None]) -> dict[int, Score | None]:
    """Each latent's mean over its valid samples; None when it has none."""
    valid: dict[int, list[float]] = defaultdict(list)
    for member in members:
        score = scores.get(member.trial.id)
        valid[member.trial.latent.index] += [] if score is None else [score]
    return {latent: Score(fmean(values), len(values)) if values else None for latent, values in valid.items()}
