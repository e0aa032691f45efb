"""Which passages of a reply are attempts: what stands between restarts, or nothing at all."""

import re

from esr.judge.lexical.restarts import passages, restarts
from esr.judge.lexical.words import WORD
from esr.judge.locate import Span

ASKS_BACK = re.compile(r"\b(?:you|your)\b|^(?:what|which|could|can|would|do|did|are|is|please)\b", re.IGNORECASE)
DECLINES = re.compile(
    r"\b(?:i(?:'m|\s+am)\s+(?:sorry|unable|not\s+able)|i\s+(?:can(?:'t|not)|won't|will\s+not|must\s+decline)|please\s+(?:clarify|tell|provide|specify|give|let"
    r"\s+me\s+know)|i(?:'d|\s+would)\s+need\s+(?:to\s+know|more)|i\s+need\s+more|i\s+don't\s+(?:understand|know\s+what)|let\s+me\s+know|happy\s+to\s+help|thank(?:s|\s+you)\s+for)\b",
    re.IGNORECASE,
)
SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")


def attempts_nothing(reply: str) -> bool:
    """Nothing but a question back or a refusal."""
    if len(reply) > 400:
        return False
    pieces = [p.strip() for p in SENTENCE.findall(reply.replace("’", "'")) if WORD.search(p.lower())]
    return bool(pieces) and all((p.endswith("?") and ASKS_BACK.search(p)) or DECLINES.search(p) for p in pieces)


def nonsense(reply: str) -> list[Span]:
    """A reply of empty words that is no restart either: an attempt, if a vain one."""
    text = reply.strip()
    if restarts(reply) or not any(c.isalnum() for c in text):
        return []
    start = reply.index(text)
    return [Span(start, start + len(text))]


def attempts(reply: str) -> list[Span]:
    """In order; none where the reply only asks back or refuses."""
    return [] if attempts_nothing(reply) else passages(reply) or nonsense(reply)
