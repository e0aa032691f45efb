"""Which episodes are shown token by token: one by its id, or the best by a stated rule, and others beside it."""

from collections.abc import Sequence
from statistics import median
from typing import ClassVar

from pydantic import Field

from esr.errors import DataError, one_of
from esr.params import Block, Settings
from esr.study.episodes import Episode
from esr.study.plan import steer_op
from esr.study.study import Study
from esr.types import Arm, Latent, Member, Trial

SHORTEST = 20
"""Characters that each region of the best example has at least."""
SHOWN = Arm("exp06", "shown", "episode", order=0, against="")
PUBLISHED = Arm("exp06", "published", "published", order=1, against="")


class Case(Block):
    """A steered trial by what makes it."""

    latent: int = Field(ge=0)
    question: str
    seed: int
    boost: float

    def __str__(self) -> str:
        return f"latent {self.latent} at boost {self.boost:g}, “{self.question}”, seed {self.seed}"


class Traces(Settings):
    """What experiment 6 shows."""

    block: ClassVar[str] = "exp06"
    episode: str
    """`best`, or a trial's id or its beginning."""
    examples: int = Field(ge=0)
    """Episodes shown small beside it, each of another distractor."""
    smoothing: float = Field(gt=0, le=1)
    """Weight of a token against all before it."""
    published: Case | None
    """The paper's example, generated anew; null: there is none of this model."""


def shown(found: Sequence[Episode], settings: Traces) -> list[Episode]:
    """The episode and its examples, in the order in which they are shown."""
    ranked = by_rule(found)
    if settings.episode != "best":
        named = [one for one in found if one.trial_id.startswith(settings.episode)]
        if len(named) != 1:
            raise DataError(one_of("episode", settings.episode, [one.trial_id for one in ranked[:8]], "exp06.episode"))
        ranked = [*named, *(one for one in ranked if one is not named[0])]
    out: list[Episode] = []
    for one in ranked:
        if one.latent not in {other.latent for other in out}:
            out.append(one)
    return out[: 1 + settings.examples]


def by_rule(found: Sequence[Episode]) -> list[Episode]:
    """Best first: regions that can be seen (each of SHORTEST characters), the largest gain, a length nearest the median, the id."""
    if not found:
        return []
    middle = median(one.parts.on.end for one in found)

    def place(one: Episode) -> tuple[bool, float, float, str]:
        widths = [part.end - part.start for part in (one.parts.off, one.parts.correction, one.parts.on)]
        return min(widths) < SHORTEST, -one.gain, abs(one.parts.on.end - middle), one.trial_id

    return sorted(found, key=place)


def published(study: Study, case: Case | None) -> list[Member]:
    """The case, if there is one, as a trial of today's engine: the same latent, boost, question and seed, whose
    reply may be another."""
    params, model = study.params, study.model
    if case is None:
        return []
    label = next((latent for latent in study.labels if latent.index == case.latent), Latent(case.latent))
    trial = Trial(
        model=model, weights=study.weights, meaning=study.meaning, prompt=case.question, prompt_format=params.protocol.prompt_format,
        seed=case.seed, sampling=params.sampling(model), ops=steer_op(params, model, case.latent, case.boost),
        scope=params.protocol.scope, question=case.question, latent=label, boost=case.boost,
    )  # fmt: skip
    return [Member(arm=PUBLISHED, model=model, scale=params.scale, trial=trial)]
