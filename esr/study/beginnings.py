"""Beginnings: parts of earlier replies that the assistant's turn is begun with, as the tokens that they had.

    known = graded(study, members, judge)                             # replies with their grades, from the store
    some = off_topic(known, below=30, at_least=40, per_latent=8)      # first attempt low, no restart in the first 40 characters
    spans = spans_of(study, [one.id for one in some])
    cuts(some[0], spans[0], 40, (1, 2), sentences=True)               # {"40": Beginning(tokens=(…), text=" claw grit the"), "80": …}

Text that is tokenised again may come apart in other places than where the model had put it, and would be another beginning.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from esr.errors import DataError
from esr.judge.lexical.restarts import restarts
from esr.params import Params
from esr.study.plan import stream
from esr.types import Attempt, Member, Trial

if TYPE_CHECKING:
    from esr.judge import Judge
    from esr.study.study import Study

Spans = Sequence[Sequence[int]]
"""[start, end) of each token of a reply in its text; a special token at its end has none."""
STOPS = (".", "!", "?")


@dataclass(frozen=True, slots=True)
class Beginning:
    """What the assistant's turn is begun with."""

    tokens: tuple[int, ...]
    text: str

    def __call__(self, trial: Trial) -> Trial:
        """The trial begun with it."""
        return replace(trial, prefill=self.tokens, prefill_text=self.text)


@dataclass(frozen=True, slots=True)
class Graded:
    """A trial's reply and its judge's verdict."""

    member: Member
    text: str
    token_ids: tuple[int, ...]
    attempts: tuple[Attempt, ...]
    """Those that stand in the reply."""

    @property
    def id(self) -> str:
        return self.member.trial.id

    @property
    def corrected(self) -> bool:
        return len(self.attempts) >= 2 and self.attempts[-1].score > self.attempts[0].score


VERDICTS = """
select g.trial_id, g.latent, r.text, r.token_ids, list_filter(g.attempts, lambda a: a."start" is not null and a.score is not null) as attempts
from grades g join replies r using (trial_id)
where g.judge = ? and g.judge_prompt = ? and g.missing is null and g.trial_id in (select unnest(?))
"""


def graded(study: "Study", members: Sequence[Member], judge: "Judge") -> list[Graded]:
    """Those of the members that have a valid grade, in their order."""
    rows = study.store.sql(VERDICTS, [judge.name, judge.prompt_hash, [member.trial.id for member in members]]).to_pylist()
    found = {(row["trial_id"], row["latent"]): row for row in rows if row["attempts"]}
    out = []
    for member in members:
        row = found.get((member.trial.id, member.trial.latent.index), found.get((member.trial.id, -1)))
        if row is not None:
            attempts = tuple(Attempt(a["score"], a["text"], a["start"], a["end"]) for a in row["attempts"])
            out.append(Graded(member, row["text"], tuple(row["token_ids"]), attempts))
    return out


def off_topic(some: Sequence[Graded], *, below: float, at_least: int, per_latent: int) -> list[Graded]:
    """The first `per_latent` replies of each latent whose first attempt scores below a bound and goes on for so many characters."""
    found, taken = [], Counter[int]()
    for one in some:
        latent = one.member.trial.latent.index
        if one.attempts[0].score < below and taken[latent] < per_latent and limit(one) >= at_least:
            found.append(one)
            taken[latent] += 1
    return found


def episodes(some: Sequence[Graded], per_latent: int) -> list[Graded]:
    """The first `per_latent` replies of each latent that ended in a correction."""
    found, taken = [], Counter[int]()
    for one in some:
        latent = one.member.trial.latent.index
        if one.corrected and taken[latent] < per_latent:
            found.append(one)
            taken[latent] += 1
    if not found:
        raise DataError(f"none of {len(some):,} graded replies ended in a correction, and there is nothing to go on from")
    return found


def limit(one: Graded) -> int:
    """How far a beginning may go: no restart, by the judge's attempts or by rule, stands before it."""
    starts = [span.start for span in restarts(one.text)]
    ends = [attempt.end for attempt in one.attempts[:1] if len(one.attempts) > 1 and attempt.end is not None]
    return min([len(one.text), *starts, *ends])


def spans_of(study: "Study", ids: Sequence[str]) -> list[list[list[int]]]:
    """Where each token of these replies stands in its text."""
    _ = study.weights, study.meaning, study.backend
    rows = study.store.sql("select trial_id, token_ids from replies where trial_id in (select unnest(?))", [list(ids)]).to_pylist()
    tokens = {row["trial_id"]: row["token_ids"] for row in rows}
    return [[list(span) for span in study.engine.offsets(tokens[one])] for one in ids]


def token(study: "Study", text: str) -> int:
    """The one token that a text is in the middle of a reply."""
    _ = study.weights, study.meaning, study.backend
    around = study.engine.render("?"), study.engine.render("?", prefill=text)
    ids = around[1][len(around[0]) :]
    if len(ids) != 1:
        raise DataError(
            f"{text!r} is {len(ids)} tokens of {study.model!r}; a word that is one, perhaps with the blank before it, would do"
        )
    return ids[0]


def worded(spans: Spans) -> int:
    """Tokens of a reply without the special ones at its end."""
    n = len(spans)
    while n and spans[n - 1][0] == spans[n - 1][1]:
        n -= 1
    return n


def cut(one: Graded, spans: Spans, characters: int) -> Beginning | None:
    """The tokens that end within the first `characters`; None: none does."""
    n = bisect_right([end for _, end in spans[: worded(spans)]], characters)
    return _beginning(one, spans, 0, n) if n else None


def sentence(one: Graded, spans: Spans, characters: int) -> tuple[Beginning, int] | None:
    """Up to the first token that ends a sentence at so many characters or later, and how many those are."""
    for n in range(1, worded(spans) + 1):
        end = spans[n - 1][1]
        if end >= characters and one.text[:end].rstrip().endswith(STOPS):
            return _beginning(one, spans, 0, n), end
    return None


def cuts(one: Graded, spans: Spans, characters: int, multiples: Sequence[int], sentences: bool) -> dict[str, Beginning]:
    """The beginnings of one reply by their name, shortest first: at multiples of `characters`, and at a sentence's end; as many as
    stand before its limit."""
    found, far = {}, limit(one)
    for multiple in multiples:
        at = multiple * characters
        begun = cut(one, spans, at) if at <= far else None
        if begun is not None:
            found[str(at)] = begun
    ended = sentence(one, spans, characters) if sentences else None
    if ended is not None and ended[1] <= far:
        found["sentence"] = ended[0]
    return found


def corrective(one: Graded, spans: Spans, tokens: int) -> Beginning | None:
    """A reply's own corrective text: from the last restart before its last attempt on, so many tokens; None: it has fewer, or its judge
    saw a restart where no rule finds one."""
    starts = [span.start for span in restarts(one.text) if span.start < (one.attempts[-1].start or 0)]
    if not one.corrected or not starts:
        return None
    first = next((i for i, (_, end) in enumerate(spans) if end > starts[-1]), len(spans))
    return _beginning(one, spans, first, first + tokens) if first + tokens < worded(spans) else None


def opening(one: Graded, spans: Spans, tokens: int) -> Beginning | None:
    """The first tokens of a reply; None: it has no more than these."""
    return _beginning(one, spans, 0, tokens) if tokens < worded(spans) else None


def shuffled(params: Params, one: Graded, spans: Spans, tokens: int) -> Beginning:
    """The first tokens of a reply in another order, from the root seed."""
    trial = one.member.trial
    order = stream(params, "shuffled", trial.latent.index, trial.question, trial.seed).sample(range(tokens), tokens)
    pieces = (one.text[slice(*spans[i])] for i in order)
    return Beginning(tuple(one.token_ids[i] for i in order), "".join(pieces))


def _beginning(one: Graded, spans: Spans, first: int, stop: int) -> Beginning:
    return Beginning(one.token_ids[first:stop], one.text[spans[first][0] : spans[stop - 1][1]])
