"""Which latents are steered: drawn, concrete by their label, and not what the questions are about anyway.

    chosen = latents(study, 500)                                   # all of it, for a study
    drawn = candidates(params, labels, 500)                        # 3 × 500, from the root seed
    kept = concrete(drawn, ratings, "threshold(65)")               # the judge's ratings, 0 abstract … 100 concrete
    kept = irrelevant(kept, max_activations, "zero_activation")    # largest activation of every latent on each question

The policies `threshold(65)` and `zero_activation` are the authors' code, `median` and `topk(100)` their paper's text.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from esr.engine import Capture, Request
from esr.errors import DataError, ParamsError
from esr.params import Params, Settings
from esr.prompts import evaluation
from esr.study.plan import stream
from esr.types import Latent, Sampling

if TYPE_CHECKING:
    from esr.study.study import Study

log = logging.getLogger(__name__)


class Baseline(Settings):
    """How many latents are steered and how often each: experiment 1's own numbers, which every replay shares."""

    block: ClassVar[str] = "exp01"
    latents: int = Field(ge=1)
    trials_per_latent: int = Field(ge=1)


PLACEHOLDER = re.compile(r"(feature_.*|latent \d+)?", re.IGNORECASE)
"""Labels that say nothing."""


def latents(study: "Study", n: int) -> list[Latent]:
    """At most n latents to steer: concrete by their label, and silent on the evaluation questions."""
    p = study.params.protocol
    drawn = candidates(study.params, study.labels, n)
    policy = study.concreteness
    if policy != "off":
        rated = zip(drawn, ratings(study, [latent.label for latent in drawn]), strict=True)
        drawn = concrete(drawn, {latent.index: rating for latent, rating in rated if rating is not None}, policy)
    if p.relevance != "off":
        drawn = irrelevant(drawn, maxima(study, evaluation()), p.relevance)
    if said := shortfall(n, len(drawn)):
        log.warning(said)
    return drawn[:n]


def shortfall(wanted: int, found: int) -> str:
    """What a person should know before fewer latents are taken for many; empty: as many as were wanted."""
    if found >= wanted:
        return ""
    return f"{wanted:,} latents were asked for and {found:,} are used: no more have a label and pass the filters; raise protocol.candidates_per_latent, or label more"


def ratings(study: "Study", labels: Sequence[str]) -> list[float | None]:
    """How concrete each label is, 0 to 100; None: no rating."""
    return study.rater.ratings(labels)


def maxima(study: "Study", questions: Sequence[str]) -> NDArray[np.float32]:
    """[questions, d_sae]: each latent's largest activation on the whole prompt."""
    m, prompt_format = study.spec, study.params.protocol.prompt_format
    capture = Capture(layer=m.read_layer, sae=m.sae, mode="max")
    sampling = Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=1)
    requests = [Request(prompt=q, prompt_format=prompt_format, sampling=sampling, capture=capture) for q in questions]
    _ = study.weights, study.meaning, study.backend
    return np.stack([reading.values for reading in study.engine.read(requests)])


def candidates(params: Params, labels: Sequence[Latent], n: int) -> list[Latent]:
    """A draw without replacement, `candidates_per_latent` times as large as the n wanted, or all there are.

    A larger draw begins with a smaller one, so asking again for more repeats no rating.
    """
    if not labels:
        raise DataError("latents are drawn from the labelled ones and no latent has a label")
    pool = sorted(labels)
    order = stream(params, "latents").sample(range(len(pool)), len(pool))
    return [pool[i] for i in order[: n * params.protocol.candidates_per_latent]]


def concrete(drawn: Sequence[Latent], ratings: Mapping[int, float], policy: str) -> list[Latent]:
    """Those whose label is concrete. A latent that has no rating is left out and counted, never taken for abstract."""
    name, number = _policy(policy, "concreteness", ("off", "median", "threshold"))
    if name == "off":
        return list(drawn)
    named = [latent for latent in drawn if not PLACEHOLDER.fullmatch(latent.label)]
    rated = [latent for latent in named if latent.index in ratings]
    if len(rated) < len(named):
        log.warning("%d of %d candidates have no concreteness rating and are left out", len(named) - len(rated), len(named))
    if not rated:
        return []
    least = median(ratings[latent.index] for latent in rated) if name == "median" else number
    return [latent for latent in rated if ratings[latent.index] >= least]


def irrelevant(drawn: Sequence[Latent], max_activations_QL: NDArray[np.floating], policy: str) -> list[Latent]:
    """Those that no question wakes. Axes: questions × all latents of the SAE."""
    name, number = _policy(policy, "relevance", ("off", "zero_activation", "topk"))
    if name == "off":
        return list(drawn)
    questions, width = max_activations_QL.shape
    beyond = [latent.index for latent in drawn if latent.index >= width]
    if beyond or not questions:
        raise DataError(f"activations of {questions} questions × {width} latents say nothing of latents {beyond[:5]}")
    if name == "zero_activation":
        awake = (max_activations_QL != 0).any(axis=0)
    else:
        awake = np.zeros(width, dtype=bool)
        for row in max_activations_QL:
            top = np.argsort(-row, kind="stable")[: int(number)]
            awake[top[row[top] > 0]] = True
    return [latent for latent in drawn if not awake[latent.index]]


def _policy(text: str, kind: str, known: tuple[str, ...]) -> tuple[str, float]:
    """`topk(100)` → ("topk", 100.0)"""
    found = re.fullmatch(r"(\w+)(?:\((\d+(?:\.\d+)?)\))?", text)
    if not found or found[1] not in known or (found[1] in ("threshold", "topk")) != (found[2] is not None):
        raise ParamsError(f"no {kind} policy {text!r}; it may be {', '.join(known)}, where threshold and topk take a number")
    return found[1], float(found[2] or 0)
