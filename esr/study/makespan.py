"""How long many experiments on several models take on so many GPUs: shards dealt out by simulation, nothing run.

Per model the thresholds come first, in steps, each of which waits for the judge; then everything else may go side by side. A GPU stays
with a model as long as that has shards left; opening another engine costs LOADING. Shards are SHARD long, and shorter towards the end
of a part, so that no GPU holds the others up. The judge answers at its limit of calls a minute, first what a search waits for; models
that give it the most to do for a second of a GPU come first, so that it has never to wait.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from esr.experiment import Experiment
from esr.judge.estimate import estimate
from esr.params import Params
from esr.study.choose import Baseline
from esr.study.workload import searched_replies, workload

LOADING = 180.0
"""Seconds to open an engine: the weights of 70b from a local disk take about that; smaller models less."""
WORTH = 2
"""Times LOADING that each engine of a model has to do before another is opened beside it."""
SHARD, SHORTEST = 1200.0, 60.0
"""Seconds of one engine: a shard at most, and at least."""
FULL = 256
"""Replies at once that fill an engine: the searches of N latents keep N / 256 engines busy, each step being one reply a latent."""


@dataclass(frozen=True, slots=True)
class Part:
    """Of the work on a model, what may be cut into shards and dealt out in any order."""

    name: str
    tokens: int
    calls: int
    searches: bool = False
    """Whether the others wait for it, and it for the judge."""


@dataclass(frozen=True, slots=True)
class Load:
    """All that experiments ask of one model; what they share is there once."""

    model: str
    speed: float
    """Tokens a second of one engine."""
    gpus: int
    """Of one engine."""
    judge: str
    per_minute: int
    """Calls; 0: no limit."""
    cost: float | None
    """US dollars of the judge; None: the price is unknown."""
    replies: int
    most: int
    """Engines that its searches keep busy."""
    parts: tuple[Part, ...]

    @property
    def tokens(self) -> int:
        return sum(part.tokens for part in self.parts)

    @property
    def calls(self) -> int:
        return sum(part.calls for part in self.parts)

    @property
    def hours(self) -> float:
        """Of its GPUs, generating alone."""
        return self.tokens / self.speed / 3600 * self.gpus


def load_of(params: Params, model: str, experiments: Sequence[Experiment], judge: str | None = None) -> Load:
    """At most; some searches end early and some arms are others' in part."""
    block, p, latents = params.model(model), params.protocol, params.of(Baseline).latents
    shared = searched_replies(params, latents)
    asked = {one.name: workload(params, one) for one in experiments}
    searched = shared if any(one.searched is None for one in experiments) else 0
    found = max((one.discovery for one in asked.values()), default=0)
    steered = max((one.baseline for one in asked.values()), default=0)
    parts = [
        Part("search", searched * p.search_max_tokens, searched, searches=True),
        Part("discovery", found * p.max_tokens, 0),
        Part("baseline", steered * p.max_tokens, steered + sum(one.further for one in asked.values())),
    ]
    for one in experiments:
        w = asked[one.name]
        anew = w.search - (shared if one.searched is None else 0)
        parts.append(Part(one.name, w.own * p.max_tokens + anew * p.search_max_tokens, w.own + anew))
    kept = tuple(part for part in parts if part.tokens or part.calls)
    spec = params.judge(judge or block.judge)
    judging = estimate(params, spec.name, sum(part.calls for part in kept), reply_tokens=p.max_tokens)
    replies = (
        searched
        + found
        + steered
        + sum(w.own + w.search - (shared if e.searched is None else 0) for e, w in zip(experiments, asked.values(), strict=True))
    )
    return Load(
        model, block.tokens_per_second or 0.0, block.gpus, spec.name, spec.per_minute, judging.cost, replies,
        max(ceil(latents * p.samples_per_step / FULL), 1), kept,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Makespan:
    """What came of one simulation."""

    gpus: int
    hours: float
    """From the first engine's opening to the last grade."""
    busy: float
    """Share of the GPUs' time in which they generate."""
    opened: int
    """Engines."""
    shards: int
    judging: float
    """Hours that the busiest provider takes at its limit; 0: there is none."""

    @property
    def bottleneck(self) -> str:
        if self.judging > 0.9 * self.hours:
            return "the judge's calls a minute"
        return "the GPUs" if self.busy > 0.8 else "the searches, whose steps wait for one another"


class _Work:
    """One model's, as it is dealt out."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.left = {part.name: part.tokens / load.speed for part in load.parts}
        """Seconds of one engine."""
        self.rate = {part.name: part.calls / seconds if (seconds := self.left[part.name]) else 0.0 for part in load.parts}
        self.searching = next((part.name for part in load.parts if part.searches), None)
        self.at_work = 0
        self.judged = 0.0
        """When the searches' last grades are there."""

    @property
    def seconds(self) -> float:
        return sum(self.left.values())

    @property
    def turn(self) -> float:
        """Smaller comes first."""
        spread = self.seconds / (self.at_work + 1)
        return self.seconds / self.load.calls if self.load.per_minute and self.load.calls else -spread

    def next(self, now: float, engines: int, warm: bool) -> tuple[str, float] | None:
        """A part and seconds of it; None: nothing can be begun now, or it is not worth an engine more."""
        if not warm and self.at_work and self.seconds < WORTH * LOADING * (self.at_work + 1):
            return None
        if self.searching is not None:
            if self.left[self.searching] <= 0 or self.at_work >= self.load.most:
                return None
            return self.searching, self._cut(self.searching, min(engines, self.load.most))
        if now < self.judged:
            return None
        for name, left in self.left.items():
            if left > 0:
                return name, self._cut(name, engines)
        return None

    def _cut(self, name: str, engines: int) -> float:
        left = self.left[name]
        size = min(SHARD, max(SHORTEST, left / (2 * engines)), left)
        return left if left - size < SHORTEST / 2 else size


def simulate(loads: Sequence[Load], gpus: int, providers: Mapping[str, str]) -> Makespan:
    """`providers`: of each judge, whose limit its calls count against."""
    works = [_Work(load) for load in loads]
    holds: list[str | None] = [None] * gpus
    free, ends = set(range(gpus)), list[tuple[float, int, list[int], _Work, str, float]]()
    answered: dict[str, float] = {}
    ahead: dict[str, float] = {}
    wakes: list[float] = []
    now, generating, opened, shards, last = 0.0, 0.0, 0, 0, 0.0
    while True:
        while (dealt := _deal(works, holds, free, now, gpus)) is not None:
            work, part, seconds, taken = dealt
            cold = any(holds[gpu] != work.load.model for gpu in taken)
            opened, shards = opened + cold, shards + 1
            for gpu in taken:
                holds[gpu] = work.load.model
                free.discard(gpu)
            work.left[part] -= seconds
            work.at_work += 1
            generating += seconds * work.load.gpus
            heapq.heappush(ends, (now + seconds + cold * LOADING, shards, taken, work, part, seconds))
        if not ends and not wakes:
            break
        if ends and (not wakes or ends[0][0] <= wakes[0]):
            now, _, taken, work, part, seconds = heapq.heappop(ends)
            free.update(taken)
            work.at_work -= 1
            provider, calls = providers[work.load.judge], work.rate[part] * seconds
            took = calls / work.load.per_minute * 60 if work.load.per_minute else 0.0
            answered[provider] = max(answered.get(provider, 0.0), now) + took
            if part == work.searching:
                ahead[provider] = work.judged = max(ahead.get(provider, 0.0), now) + took
            last = max(last, now, answered[provider])
            if part == work.searching and work.left[part] <= 0 and not work.at_work:
                work.searching = None
                heapq.heappush(wakes, work.judged)
        else:
            now = max(now, heapq.heappop(wakes))
    limits: dict[str, float] = {}
    for load in loads:
        limits[providers[load.judge]] = limits.get(providers[load.judge], 0.0) + (
            load.calls / load.per_minute / 60 if load.per_minute else 0.0
        )
    return Makespan(
        gpus, last / 3600, generating / (last * gpus) if last else 0.0, opened, shards, max(limits.values(), default=0.0)
    )


def _deal(
    works: Sequence[_Work], holds: Sequence[str | None], free: set[int], now: float, gpus: int
) -> tuple[_Work, str, float, list[int]] | None:
    """To free GPUs a shard of the model that they hold, else of the one with the most left for each engine at it."""
    warm = {holds[gpu] for gpu in free}
    order = sorted(works, key=lambda work: (work.load.model not in warm, work.turn))
    for work in order:
        mine = [gpu for gpu in sorted(free) if holds[gpu] == work.load.model]
        taken = (mine + [gpu for gpu in sorted(free, key=lambda gpu: (holds[gpu] is not None, gpu)) if gpu not in mine])[
            : work.load.gpus
        ]
        if (
            len(taken) == work.load.gpus
            and (found := work.next(now, max(gpus // work.load.gpus, 1), len(mine) >= work.load.gpus)) is not None
        ):
            return work, *found, taken
    return None
