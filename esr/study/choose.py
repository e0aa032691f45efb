"""Which latents are steered: drawn, concrete by their label, and not what the questions are about anyway. Pure.

    drawn = candidates(params, labels, 500)                        # 3 × 500, from the root seed
    kept = concrete(drawn, ratings, "threshold(65)")               # the judge's ratings, 0 abstract … 100 concrete
    kept = irrelevant(kept, max_activations, "zero_activation")    # largest activation of every latent on each question
    latents = first(kept, 500)

The policies `threshold(65)` and `zero_activation` are the authors' code, `median` and `topk(100)` their paper's text.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

from esr.errors import DataError, ParamsError
from esr.params import Params
from esr.study.plan import stream
from esr.types import Latent

log = logging.getLogger(__name__)

PLACEHOLDER = re.compile(r"(feature_.*)?", re.IGNORECASE)
"""Labels that say nothing."""


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


def first(kept: Sequence[Latent], n: int) -> list[Latent]:
    """The first n; fewer, with a warning, when the filters left fewer."""
    if len(kept) < n:
        log.warning("%d latents were wanted and %d are left after the filters; raise candidates_per_latent", n, len(kept))
    return list(kept[:n])


def _policy(text: str, kind: str, known: tuple[str, ...]) -> tuple[str, float]:
    """`topk(100)` → ("topk", 100.0)"""
    found = re.fullmatch(r"(\w+)(?:\((\d+(?:\.\d+)?)\))?", text)
    if not found or found[1] not in known or (found[1] in ("threshold", "topk")) != (found[2] is not None):
        raise ParamsError(f"no {kind} policy {text!r}; it may be {', '.join(known)}, where threshold and topk take a number")
    return found[1], float(found[2] or 0)
