"""Calibration: many latents' threshold searches in step, asked of whoever can score trials.

Every ask follows from the answers before it and every question and seed from the root seed, so a search that was killed is
resumed by doing it again: what was generated and graded is found and only the rest is computed.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from esr.params import Params
from esr.study.plan import search_step
from esr.threshold import Score, Search
from esr.types import Grade, Latent, Member, content_id

log = logging.getLogger(__name__)

Scores = Callable[[list[Member]], Mapping[str, float | None]]
"""First-attempt score in [0, 1] of each trial by id; None: no valid grade."""

BITES = ("converged", "unresolved")
"""Statuses with which a latent is steered; one that never or always bites has no boost that meets the target."""


def calibrate(
    params: Params, model: str, weights: str, latents: Sequence[Latent], questions: Sequence[str], scores: Scores
) -> list[dict[str, Any]]:
    """One row of the table `thresholds` a latent."""
    search = Search([latent.index for latent in latents], params.model(model).search, params.protocol)
    named = {latent.index: latent for latent in latents}
    step = 0

    def ask(asks: Iterable[tuple[int, float]], name: int | str, samples: int | None = None) -> dict[int, Score | None]:
        pairs = [(named[index], boost) for index, boost in asks]
        members = search_step(params, model=model, weights=weights, asks=pairs, step=name, questions=questions, samples=samples)
        return means(members, scores(members))

    while not search.done:
        search.tell(ask(search.ask(), step))
        step += 1
    found = search.results()
    n = params.protocol.verify_samples
    verified = ask([(k, f.threshold) for k, f in found.items() if f.status in BITES], "verify", n) if n else {}
    log.info("calibrated %d latents in %d steps", len(latents), step)
    return [
        {
            "calibration_id": content_id("calibration", weights, params.protocol.model_dump(mode="json"), latent.index),
            "model": model,
            "latent": latent.index,
            "label": latent.label,
            "threshold": found[latent.index].threshold,
            "low": found[latent.index].low,
            "high": found[latent.index].high,
            "status": found[latent.index].status,
            "target": params.protocol.target,
            "verified_score": score.mean if (score := verified.get(latent.index)) else None,
            "asks": [{"boost": ask.boost, "score": ask.score, "n": ask.n} for ask in found[latent.index].asks],
        }
        for latent in latents
    ]


def means(members: Sequence[Member], scores: Mapping[str, float | None]) -> dict[int, Score | None]:
    """Each latent's mean over its valid samples; None when it has none."""
    valid: dict[int, list[float]] = defaultdict(list)
    for member in members:
        score = scores.get(member.trial.id)
        valid[member.trial.latent.index] += [] if score is None else [score]
    return {latent: Score(fmean(values), len(values)) if values else None for latent, values in valid.items()}


def first_score(grade: Grade) -> float | None:
    """The first attempt's score in [0, 1]; None when the grade is missing."""
    return grade.attempts[0].score / 100 if grade.attempts and grade.missing is None else None
