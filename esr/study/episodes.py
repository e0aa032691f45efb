"""Episodes: replies that go off topic, say so and come back, each beside a reply under the same distractor that does not restart.

Which trials are episodes, and which reply is held against which, follows from what is graded and from nothing else, so flows and
exports work it out by the same function.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from esr.judge.lexical.restarts import restarts
from esr.judge.locate import Span
from esr.params import Settings
from esr.store import Store
from esr.types import BASELINE


class Watching(Settings):
    """What is read of episodes, and how it is counted: experiment 9's own numbers, which experiment 6 shares."""

    block: ClassVar[str] = "exp09"
    rule: Literal["two_attempts", "corrected"]
    """two_attempts: the authors', exactly two and the last one better · corrected: two or more and the last better than the first."""
    max_episodes: int = Field(ge=1)
    fewest: int = Field(ge=1)
    """Distractors with an episode; with fewer, replies that stay off topic are read beside them."""
    steering: tuple[Literal["on", "off"], ...] = Field(min_length=1)
    stage: Literal["before", "after"]
    largest: int = Field(ge=1)
    """Latents that are kept of each token of an episode, the largest."""
    marked_by: Literal["rule", "judge"]
    on_topic_score: float = Field(ge=0, le=100)
    label_score: float = Field(gt=0)
    contrast_latents: int = Field(ge=0)
    contrast_active: float = Field(ge=0)
    contrast_share: float = Field(ge=0, le=1)
    contrast_elsewhere: float = Field(ge=0, le=1)
    window: int = Field(ge=1)
    soon: int = Field(ge=1)
    hold: int = Field(ge=1)
    lead: int = Field(ge=1)
    error: float = Field(gt=0, lt=1)


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the regions of a reply lie, in characters; a region that is not there has no width."""

    off: Span
    correction: Span
    on: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One corrected reply."""

    trial_id: str
    latent: int
    question: str
    seed: int
    first_score: float
    last_score: float
    judge_prompt: str
    parts: Parts
    control: str | None
    """Trial of the restart-free reply that it is held against; None: its latent has none that is long enough."""

    @property
    def returns(self) -> bool:
        """It corrects itself; otherwise it stays off topic, and is read where no reply of the study does."""
        return self.parts.on.end > self.parts.on.start

    @property
    def gain(self) -> float:
        return self.last_score - self.first_score


ROWS = """
select o.trial_id, o.latent, o.question, o.seed, o.n_attempts, o.first_score, o.last_score, o.multi, o.corrected, o.judge_prompt, r.text, j.located
from outcomes o join replies r using (trial_id)
join judged j on j.experiment = o.experiment and j.model = o.model and j.arm = o.arm and j.scale = o.scale and j.trial_id = o.trial_id
    and j.latent = o.latent and j.judge = o.judge
where o.experiment = ? and o.arm = ? and o.model = ? and o.scale = ? and o.judge = ? and r.token_ids is not null
order by o.latent, o.question, o.seed, o.trial_id
"""


def episodes(store: Store, model: str, scale: str, judge: str, settings: Watching) -> list[Episode]:
    """Of experiment 1's steered trials as this judge graded them, at most `max_episodes`: one of every latent, then a second, …; where those
    are of fewer latents than `fewest`, after them as many that stay off topic."""
    asked = [BASELINE.experiment, BASELINE.name, model, scale, judge]
    rows = store.sql(ROWS, asked).to_pylist()
    some = found(rows, settings)
    return some if len({one.latent for one in some}) >= settings.fewest else [*some, *astray(rows, settings)]


def astray(rows: Sequence[Mapping[str, Any]], settings: Watching) -> list[Episode]:
    """Replies of one attempt that are off topic from end to end, with no word of a restart."""
    by_latent: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        if not row["multi"] and row["text"] and row["first_score"] < settings.on_topic_score and not restarts(row["text"]):
            by_latent.setdefault(row["latent"], []).append(row)
    taken = _in_turns(list(by_latent.values()), settings.max_episodes)
    return [_episode(row, Parts(Span(0, (end := len(row["text"]))), Span(end, end), Span(end, end)), None) for row in taken]


def found(rows: Sequence[Mapping[str, Any]], settings: Watching) -> list[Episode]:
    chosen: dict[str, Parts] = {}
    by_latent: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        fits = row["corrected"] and (settings.rule == "corrected" or row["n_attempts"] == 2)
        if fits and (parts := by_rule(row["text"], [Span(a["start"], a["end"]) for a in row["located"]])) is not None:
            chosen[row["trial_id"]] = parts
            by_latent.setdefault(row["latent"], []).append(row)
    taken = _in_turns(list(by_latent.values()), settings.max_episodes)
    free = [row for row in rows if not row["multi"] and not restarts(row["text"])]
    against = matched(taken, {key: parts.correction.start for key, parts in chosen.items()}, free)
    return [_episode(row, chosen[row["trial_id"]], against.get(row["trial_id"])) for row in taken]


def _episode(row: Mapping[str, Any], parts: Parts, control: str | None) -> Episode:
    return Episode(
        trial_id=row["trial_id"], latent=row["latent"], question=row["question"], seed=row["seed"], first_score=row["first_score"],
        last_score=row["last_score"], judge_prompt=row["judge_prompt"], parts=parts, control=control,
    )  # fmt: skip


def _in_turns(groups: Sequence[Sequence[Mapping[str, Any]]], most: int) -> list[Mapping[str, Any]]:
    """The first of each group, then the second of each, until there are enough; in the groups' own order."""
    ranked = sorted((i, g) for g, group in enumerate(groups) for i in range(len(group)))[:most]
    return [groups[g][i] for g, i in sorted((g, i) for i, g in ranked)]


def matched(taken: Sequence[Mapping[str, Any]], needs: Mapping[str, int], free: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """For each episode the restart-free reply under the same distractor whose first score is nearest, then whose length is; it reaches
    as far as the episode's correction begins, and none is used twice."""
    left: dict[int, list[Mapping[str, Any]]] = {}
    for row in free:
        left.setdefault(row["latent"], []).append(row)
    out: dict[str, str] = {}
    for row in sorted(taken, key=lambda row: (row["latent"], -needs[row["trial_id"]], row["trial_id"])):  # the most demanding first
        here = left.get(row["latent"], [])
        long_enough = [one for one in here if len(one["text"]) >= needs[row["trial_id"]]]
        if not long_enough:
            continue
        score, size = row["first_score"], len(row["text"])
        best = min(long_enough, key=lambda one: (abs(one["first_score"] - score), abs(len(one["text"]) - size), one["trial_id"]))
        here.remove(best)
        out[row["trial_id"]] = best["trial_id"]
    return out


def by_rule(text: str, attempts: Sequence[Span]) -> Parts | None:
    """Without a provider: the judge's located attempts, parted where the restart detector finds the words of the restart that opens the
    second. Where it finds none, the correction is what stands between the attempts, which may be nothing."""
    if len(attempts) < 2:
        return None
    first, second, last = attempts[0], attempts[1], attempts[-1]
    said = [span for span in restarts(text) if first.start < span.start < second.end and span.end > first.start]
    if said:
        words = min(said, key=lambda span: (abs(span.start - second.start), span.start))
    else:
        words = Span(min(first.end, second.start), second.start)
    begins = max(words.end, last.start)
    if words.start <= first.start or begins >= len(text):
        return None
    return Parts(Span(first.start, words.start), words, Span(begins, len(text)))
