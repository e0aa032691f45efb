"""Regions of replies in characters and tokens: marked by rule without a key, or quoted by a provider's model and located here.

    regions.mark(study, marked, judge)      # rows of the table `regions`, and of `tokens`

Tokens are the ones that were generated, and where each stands in the text is the engine's to say; text is never encoded again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from esr.judge import Judge, JudgeQuestion
from esr.study.batches import cut
from esr.study.episodes import Episode, Watching
from esr.study.progress import Tick
from esr.types import Member

if TYPE_CHECKING:
    from esr.store import Store
    from esr.study.study import Study

OFF, CORRECTION, ON, PROMPT = "off-topic", "correction", "on-topic", "prompt"
Offsets = Sequence[tuple[int, int]]
STAGE = "regions"


@dataclass(frozen=True, slots=True)
class Marked:
    """A reply with its regions in characters, in order."""

    trial_id: str
    source: str
    parts: tuple[tuple[str, int, int], ...]
    """Kind, start, end."""


def token_at(offsets: Offsets, character: int) -> int:
    """The token that holds this character of the reply, or the first after it; their number where none does. Tokens that share a
    character begin with the first of them."""
    return next((i for i, (start, end) in enumerate(offsets) if end > character and end > start), len(offsets))


def spans(offsets: Offsets, start: int, end: int, n_prompt: int) -> tuple[int, int]:
    """A region's positions in prompt and reply. A token that holds characters of two regions belongs to the later one."""
    low, high = token_at(offsets, start), token_at(offsets, end)
    return n_prompt + low, n_prompt + max(low, high)


def source(judge: str, prompt_hash: str, by: str) -> str:
    """Who marks: `rule` over the attempts of a judge under its instructions, or that judge itself."""
    return f"{by}/{judge}/{prompt_hash[:8]}"


def of_episode(one: Episode, judge: str) -> Marked:
    parts = [(OFF, one.parts.off), (CORRECTION, one.parts.correction), (ON, one.parts.on)]
    return Marked(
        one.trial_id, source(judge, one.judge_prompt, "rule"), tuple((kind, span.start, span.end) for kind, span in parts)
    )


WHOLE = "select trial_id, any_value(first_score) as score, any_value(judge_prompt) as judge_prompt from outcomes where trial_id in (select unnest(?)) and judge = ? group by trial_id"


def of_single(store: "Store", ids: Sequence[str], judge: str, settings: Watching) -> list[Marked]:
    """Replies of one attempt are one region: on topic from `on_topic_score` on, off topic below."""
    rows = store.sql(WHOLE, [list(ids), judge]).to_pylist()
    return [
        Marked(
            row["trial_id"], source(judge, row["judge_prompt"], "rule"), ((ON if row["score"] >= settings.on_topic_score else OFF, 0, -1),)
        )
        for row in sorted(rows, key=lambda row: row["trial_id"])
    ]  # fmt: skip


def asked(store: "Store", members: Sequence[Member], judge: Judge) -> list[Marked]:
    """What the judge marks off in these replies; those that it could not are left out, and counted as missing."""
    texts = _replies(store, [member.trial.id for member in members])
    known = [m for m in members if m.trial.id in texts]
    questions = [
        JudgeQuestion(trial_id=m.trial.id, prompt=m.trial.prompt, reply=texts[m.trial.id]["text"], latent=m.trial.latent)
        for m in known
    ]
    out = []
    for question, one in zip(questions, judge.regions(questions), strict=True):
        if one.off is None or one.correction is None or one.on is None:
            continue
        parts = ((OFF, one.off, one.correction), (CORRECTION, one.correction, one.on), (ON, one.on, len(question.reply)))
        out.append(Marked(one.trial_id, source(judge.name, judge.prompt_hash, "judge"), parts))
    return out


def mark(study: "Study", marked: Sequence[Marked]) -> int:
    """Puts the regions that the store lacks, and where each token of their replies stands; how many replies were new."""
    with study.alone("regions", [[one.trial_id, one.source] for one in marked]):
        there = {
            (row["trial_id"], row["source"])
            for row in study.store.sql("select distinct trial_id, source from regions where trial_id in (select unnest(?))", [[one.trial_id for one in marked]]).to_pylist()
        }  # fmt: skip
        lacking = [one for one in marked if (one.trial_id, one.source) not in there]
        study.progress.expect(STAGE, len(marked))
        study.progress.stored(STAGE, len(marked) - len(lacking))
        for some in cut(lacking, study.params.work.batch):
            study.progress.go_on()
            replies = _replies(study.store, [one.trial_id for one in some])
            offsets = {key: study.engine.offsets(row["token_ids"]) for key, row in replies.items()}
            study.store.put("tokens", [_tokens(key, places) for key, places in sorted(offsets.items())])
            study.store.put("regions", [row for one in some for row in rows(one, replies[one.trial_id], offsets[one.trial_id])])
            study.progress.tick(Tick(STAGE, len(some)))
    return len(lacking)


def _replies(store: "Store", ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    query = "select trial_id, text, token_ids, n_prompt_tokens from replies where trial_id in (select unnest(?))"
    return {row["trial_id"]: row for row in store.sql(query, [list(ids)]).to_pylist()}


def _tokens(trial_id: str, offsets: Offsets) -> dict[str, Any]:
    return {"trial_id": trial_id, "char_starts": [low for low, _ in offsets], "char_ends": [high for _, high in offsets]}


def rows(one: Marked, reply: Mapping[str, Any], offsets: Offsets) -> list[dict[str, Any]]:
    """The prompt first, whose characters are nowhere told; an end of −1 is the reply's."""
    n_prompt = int(reply["n_prompt_tokens"])
    about = {"trial_id": one.trial_id, "source": one.source}
    out: list[dict[str, Any]] = [about | {"kind": PROMPT, "place": 0, "token_start": 0, "token_end": n_prompt}]
    for place, (kind, start, end) in enumerate(one.parts, 1):
        end = len(reply["text"]) if end < 0 else end
        low, high = spans(offsets, start, end, n_prompt)
        out.append(
            about | {"kind": kind, "place": place, "char_start": start, "char_end": end, "token_start": low, "token_end": high}
        )
    return out


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two sources mark the same replies alike."""

    n: int
    """Replies that both marked."""
    within_five: float
    """Share whose corrections begin within five tokens of one another."""
    apart_median: float
    """Tokens between their beginnings."""
    overlap_mean: float
    """Of the off-topic regions: tokens in both over tokens in either."""


def agreement(
    one: Mapping[str, Mapping[str, tuple[int, int]]], other: Mapping[str, Mapping[str, tuple[int, int]]]
) -> Agreement | None:
    """Of regions by trial and kind, in tokens; None: nothing was marked by both."""
    both = [key for key in one if key in other and {OFF, CORRECTION} <= one[key].keys() & other[key].keys()]
    if not both:
        return None
    apart = np.array([abs(one[key][CORRECTION][0] - other[key][CORRECTION][0]) for key in both])
    overlaps = []
    for key in both:
        (a, b), (c, d) = one[key][OFF], other[key][OFF]
        shared, whole = max(0, min(b, d) - max(a, c)), max(b, d) - min(a, c)
        overlaps.append(shared / whole if whole else 1.0)
    return Agreement(len(both), float((apart <= 5).mean()), float(np.median(apart)), float(np.mean(overlaps)))
