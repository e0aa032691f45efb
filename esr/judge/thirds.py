"""A reply's first and last third, in whole sentences: what recovery without words is read from."""

import re
from typing import NamedTuple

FEWEST = 3
"""Sentences of a reply, below which it has no thirds."""
SHORT = "too short"
"""Why such a reply has no recovery."""
END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+|\n+")


class Thirds(NamedTuple):
    first: str
    last: str
    sentences: int


def thirds(reply: str) -> Thirds | None:
    """None: the reply has fewer than three sentences."""
    sentences = [part.strip() for part in END.split(reply) if part.strip()]
    if len(sentences) < FEWEST:
        return None
    third = len(sentences) // 3
    return Thirds(" ".join(sentences[:third]), " ".join(sentences[-third:]), len(sentences))
