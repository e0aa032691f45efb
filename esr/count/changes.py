"""What became of each trial on the other side: which have a partner there, which changed, and where their replies part.

Rows are the planned trials of one arm with one judge's verdict: columns of the view `outcomes`, where each attempt `begins`, the
reply's `text`, and `lacks`, which says why a trial has no outcome and is empty where it has one. A partner is the trial of the same
latent, question and seed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from esr.count.metrics import PAIRING
from esr.errors import DataError

OUTCOMES = ("single", "multi", "corrected")
"""One attempt; a second one that is no better; a second one that is: in this order a reply is further from no correction."""
AROUND = 5
"""Words that are told from where replies part."""
Row = Mapping[str, Any]
Keyed = Mapping[tuple[Any, ...], Row]


@dataclass(frozen=True, slots=True)
class Partners:
    """How many trials of one side are in a pair, and why the others are not."""

    planned: int
    graded: int
    paired: int
    lacking: Mapping[str, int]
    """By reason, the trials without a graded partner, most first."""


@dataclass(frozen=True, slots=True)
class Side:
    """One trial of a pair."""

    trial_id: str
    outcome: str
    scores: tuple[float, ...]
    """Of its attempts, in order."""
    begins: tuple[int | None, ...]
    """Where in the reply each of them begins."""
    degraded: bool | None
    boost: float | None


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two replies part, in words."""

    words: int
    """That they begin with alike."""
    before: str
    """The last of them."""
    a: str
    """What the first goes on with; empty: it ends here."""
    b: str


@dataclass(frozen=True, slots=True)
class Change:
    """A pair of which something differs."""

    latent: int
    label: str
    question: str
    seed: int | None
    a: Side
    b: Side
    parting: Parting | None
    """None: word for word the same reply, or one of them is not here."""

    @property
    def what(self) -> tuple[str, ...]:
        """Which of outcome, scores, degraded and text."""
        names = ("outcome", "scores", "degraded")
        return (*(n for n in names if getattr(self.a, n) != getattr(self.b, n)), *(["text"] if self.parting else []))

    @property
    def far(self) -> tuple[int, float, int]:
        """How much changed: by outcomes, then by the first and the last score, then by how early the replies part."""
        steps = abs(OUTCOMES.index(self.a.outcome) - OUTCOMES.index(self.b.outcome))
        scores = sum(abs(self.a.scores[i] - self.b.scores[i]) for i in (0, -1))
        return steps, scores, -self.parting.words if self.parting else 0


@dataclass(frozen=True, slots=True)
class Changes:
    """Two arms, trial by trial."""

    a: Partners
    b: Partners
    outcomes: Mapping[tuple[str, str], int]
    """Pairs by the outcome on either side."""
    changed: tuple[Change, ...]
    """Those that changed most first."""


def changes(a: Sequence[Row], b: Sequence[Row]) -> Changes:
    """Of the planned trials of two arms."""
    one, two = _keyed(a), _keyed(b)
    pairs = [_pair(row, two[key]) for key, row in one.items() if key in two and not row["lacks"] and not two[key]["lacks"]]
    found = [pair for pair in pairs if pair.what]
    found.sort(key=lambda pair: (*(-n for n in pair.far), pair.latent, pair.question, pair.a.trial_id))
    outcomes = Counter((pair.a.outcome, pair.b.outcome) for pair in pairs)
    return Changes(_partners(one, two), _partners(two, one), outcomes, tuple(found))


def _keyed(rows: Sequence[Row]) -> Keyed:
    found = {tuple(row[key] for key in PAIRING): row for row in rows}
    if len(found) < len(rows):
        raise DataError(f"an arm holds one trial per {PAIRING} and this one holds several; compare arm with arm")
    return found


def _partners(own: Keyed, others: Keyed) -> Partners:
    latents, questions = {key[0] for key in others}, {key[:2] for key in others}
    lacking = Counter[str]()
    for key, row in own.items():
        other = others.get(key)
        if row["lacks"]:
            lacking[row["lacks"]] += 1
        elif other is not None:
            lacking.update([f"its partner: {other['lacks']}"] if other["lacks"] else [])
        elif key[0] not in latents:
            lacking["the other side has no trial of its latent"] += 1
        elif key[:2] not in questions:
            lacking["the other side has its latent, and not with its question"] += 1
        else:
            lacking["the other side has its latent and question, and not with its seed"] += 1
    graded = sum(not row["lacks"] for row in own.values())
    return Partners(len(own), graded, len(own) - lacking.total(), dict(lacking.most_common()))


def _pair(a: Row, b: Row) -> Change:
    label, texts = a["latent_label"] or b["latent_label"] or "", [a["text"], b["text"]]
    told = None if None in texts else parting(*texts)
    return Change(a["latent"], label, a["question"] or "", a["seed"], _side(a), _side(b), told)


def _side(row: Row) -> Side:
    outcome = OUTCOMES[0 if not row["multi"] else 2 if row["corrected"] else 1]
    return Side(row["trial_id"], outcome, tuple(row["scores"]), tuple(row["begins"]), row["degraded"], row["boost"])


def parting(a: str, b: str) -> Parting | None:
    """None where they are the same but for blanks."""
    one, two = a.split(), b.split()
    if one == two:
        return None
    same = next((i for i, (x, y) in enumerate(zip(one, two, strict=False)) if x != y), min(len(one), len(two)))
    return Parting(
        same, " ".join(one[max(0, same - AROUND) : same]), *(" ".join(words[same : same + AROUND]) for words in (one, two))
    )
