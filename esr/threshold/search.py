"""Many latents searched in step: one batch of (latent, boost) a step, told together.

    search = Search(latents, bounds, protocol)
    while not search.done:
        search.tell(scores_of(search.ask()))
    search.results()

In reference mode each latent has the authors' bisection to itself. In adaptive mode the latents of one search teach one another
(`esr.threshold.pool`). Its state is the answers it was given: what it asks next, and where it stops, follows from them alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from esr.errors import DataError
from esr.params import Protocol
from esr.params import Search as Bounds
from esr.threshold.bisection import TOLERANCE, Bisection, Status
from esr.threshold.family import Family
from esr.threshold.pool import Ask, Known, Pool

PATIENCE = 3
"""Steps without a single valid score after which a latent is given up as unresolved."""
CERTAIN = 0.9
"""Posterior probability with which a latent is said never, or always, to bite."""
FEWEST = 4
"""Answers of its own that a latent has before it may stop early, however much the others taught."""


class Score(NamedTuple):
    """What one step found for one latent."""

    mean: float
    """Mean first-attempt score of the valid samples, in [0, 1]."""
    n: int
    """How many samples were valid."""


@dataclass(frozen=True, slots=True)
class Found:
    """One latent's calibration."""

    latent: int
    threshold: float
    low: float
    high: float
    status: Status
    asks: tuple[Ask, ...]


class Search:
    def __init__(self, latents: Sequence[int], bounds: Bounds, protocol: Protocol) -> None:
        if len(set(latents)) != len(latents):
            raise DataError("a search was given the same latent twice")
        self.bounds, self.protocol, self.latents = bounds, protocol, list(latents)
        self._asks: dict[int, list[Ask]] = {latent: [] for latent in latents}
        self._misses = dict.fromkeys(latents, 0)
        self._again: dict[int, float] = {}
        self._open: dict[int, float] | None = None
        self._found: dict[int, Found] | None = None
        b = bounds
        if self._reference:
            self._alone = {i: Bisection(b.lower, b.upper, b.prior_mean, b.prior_std, protocol.target) for i in latents}
        else:
            self._pool = Pool(Family(b.lower, b.upper, b.prior_mean, b.prior_std, protocol.target))
            self._known: Known | None = None

    @property
    def step(self) -> int:
        """How many answered steps the furthest latent has behind it."""
        return max((len(asks) for asks in self._asks.values()), default=0)

    @property
    def done(self) -> bool:
        return not self.ask()

    def ask(self) -> list[tuple[int, float]]:
        """The batch to try next, empty when every latent is finished; the same until it is told."""
        if self._open is None:
            unfinished = [latent for latent in self.latents if not self._finished(latent)]
            boosts = self._boosts() if unfinished else {}
            self._open = {latent: self._again.get(latent, boosts[latent]) for latent in unfinished}
        return list(self._open.items())

    def tell(self, scores: Mapping[int, Score | None]) -> None:
        """The scores of the batch; None, or a latent left out: no valid sample, asked again at the same boost."""
        asked = dict(self.ask())
        strangers = sorted(set(scores) - set(asked))
        if strangers:
            raise DataError(f"a search was told of latents {strangers[:5]} that it did not ask for")
        for latent, boost in asked.items():
            score = scores.get(latent)
            if score is None or score.n == 0:
                self._misses[latent] += 1
                self._again[latent] = boost
                continue
            self._misses[latent] = 0
            self._again.pop(latent, None)
            self._answer(latent, boost, score.mean, score.n)
        self._settle()

    def results(self) -> dict[int, Found]:
        if self._found is None:
            self._found = {i: self._alone_found(i) for i in self.latents} if self._reference else self._together_found()
        return self._found

    def state(self) -> dict[str, Any]:
        """As JSON: what was answered, from which `resume` comes back to the same next batch."""
        return {
            "bounds": self.bounds.model_dump(mode="json"),
            "protocol": self.protocol.model_dump(mode="json"),
            "asks": {str(i): [list(ask) for ask in asks] for i, asks in self._asks.items()},
            "misses": {str(i): n for i, n in self._misses.items()},
            "again": {str(i): boost for i, boost in self._again.items()},
        }

    @classmethod
    def resume(cls, state: Mapping[str, Any]) -> Self:
        search = cls([int(i) for i in state["asks"]], Bounds(**state["bounds"]), Protocol(**state["protocol"]))
        for latent, asks in state["asks"].items():
            for boost, score, n in asks:
                search._answer(int(latent), boost, score, n)
            search._misses[int(latent)] = state["misses"][latent]
        search._again = {int(i): boost for i, boost in state["again"].items()}
        return search

    @property
    def _reference(self) -> bool:
        return self.protocol.search_mode == "reference"

    def _answer(self, latent: int, boost: float, mean: float, n: int) -> None:
        if not (0.0 <= mean <= 1.0):
            raise DataError(f"a search is told scores in [0, 1] and was told {mean!r}; divide the judge's score by 100")
        if self._reference:
            self._alone[latent].tell(mean, boost=boost)
        self._asks[latent].append(Ask(float(boost), float(mean), 0 if self._reference else n))

    def _settle(self) -> None:
        self._open = self._found = None
        if not self._reference:
            self._known = None

    def _posterior(self) -> tuple[list[int], Known]:
        """In the order of the latents' indices, so that it does not depend on the order in which they were given."""
        order = sorted(self.latents)
        if self._known is None:
            self._known = self._pool.posterior([self._asks[latent] for latent in order])
        return order, self._known

    def _boosts(self) -> dict[int, float]:
        if self._reference:
            return {latent: search.ask() for latent, search in self._alone.items()}
        order, known = self._posterior()
        return dict(zip(order, known.place(self.protocol.samples_per_step).tolist(), strict=True))

    def _finished(self, latent: int) -> bool:
        if len(self._asks[latent]) >= self.protocol.search_steps or self._misses[latent] >= PATIENCE:
            return True
        share = self.protocol.early_stop
        if share <= 0 or not self._asks[latent]:
            return False
        return self._alone[latent].done(share) if self._reference else self._settled(latent, share)

    def _settled(self, latent: int, share: float) -> bool:
        """Whether the threshold is known to within `share` of itself, and the score there to within `share` of the target: on a steep
        curve a threshold known to a tenth may still leave the score anywhere."""
        if len(self._asks[latent]) < FEWEST:
            return False
        found = self.results()[latent]
        if found.status in ("never_bites", "always_bites"):
            return True
        order, known = self._posterior()
        score_width = known.score_widths[order.index(latent)]
        narrow = found.high - found.low <= share * max(found.threshold - self.bounds.lower, 1e-12)
        return bool(narrow and score_width <= share * self.protocol.target)

    def _alone_found(self, latent: int) -> Found:
        search = self._alone[latent]
        low, high = search.interval()
        status = "unresolved" if self._misses[latent] >= PATIENCE else search.status
        return Found(latent, search.estimate(), low, high, status, tuple(self._asks[latent]))

    def _together_found(self) -> dict[int, Found]:
        order, known = self._posterior()
        out = {}
        for i, latent in enumerate(order):
            at, low, high = float(known.estimates[i]), float(known.low[i]), float(known.high[i])
            status: Status = "unresolved"
            if self._misses[latent] < PATIENCE and self._asks[latent]:
                narrow = high - low <= TOLERANCE * max(at - self.bounds.lower, 1e-12)
                status = "converged" if narrow else "unresolved"
                status = "never_bites" if known.never[i] > CERTAIN else "always_bites" if known.always[i] > CERTAIN else status
            out[latent] = Found(latent, at, low, high, status, tuple(self._asks[latent]))
        return {latent: out[latent] for latent in self.latents}
