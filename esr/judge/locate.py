"""Where a quotation stands in a text: exactly, else by its words, else by its two ends, else nearly. Not there: None.

Judges straighten quotes, drop markdown, close up spaces and shorten with dots; they also make things up, and that must not be found.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

WORD = re.compile(r"\w+")
DOTS = re.compile(r"\s*(?:\[\s*)?(?:\.{3,}|…)(?:\s*\])?\s*")
NEARLY = 0.85
"""Share of a quotation's words, in order, that must stand in a passage hardly longer than it."""
SHORTEST, LONGEST = 6, 800
"""Words that a quotation needs, and may have, to be looked for nearly."""


@dataclass(frozen=True, slots=True)
class Span:
    start: int
    end: int


def locate(quote: str, text: str, start: int = 0) -> Span | None:
    """The first place at or after `start`."""
    quote = quote.strip()
    if not quote:
        return None
    return exactly(quote, text, start) or by_words(quote, text, start) or by_ends(quote, text, start) or nearly(quote, text, start)


def exactly(quote: str, text: str, start: int = 0) -> Span | None:
    at = text.find(quote, start)
    return Span(at, at + len(quote)) if at >= 0 else None


def by_words(quote: str, text: str, start: int = 0) -> Span | None:
    """The same words in the same order, whatever stands between them."""
    wanted = [word.casefold() for word in WORD.findall(quote)]
    spans, words = _words(text, start)
    if not wanted:
        return None
    first = wanted[0]
    for i in range(len(words) - len(wanted) + 1):
        if words[i] == first and words[i : i + len(wanted)] == wanted:
            return Span(spans[i].start, spans[i + len(wanted) - 1].end)
    return None


def by_ends(quote: str, text: str, start: int = 0) -> Span | None:
    """A quotation shortened with dots: every piece, in order."""
    pieces = [piece for piece in DOTS.split(quote) if WORD.search(piece)]
    if len(pieces) < 2 and not (pieces and DOTS.search(quote)):
        return None
    found: list[Span] = []
    for piece in pieces:
        after = found[-1].end if found else start
        span = exactly(piece, text, after) or by_words(piece, text, after)
        if span is None:
            return None
        found.append(span)
    return Span(found[0].start, found[-1].end)


def nearly(quote: str, text: str, start: int = 0) -> Span | None:
    """A passage about as long that holds nearly all of the words in order."""
    wanted = [word.casefold() for word in WORD.findall(quote)]
    if not SHORTEST <= len(wanted) <= LONGEST:
        return None
    spans, words = _words(text, start)
    matcher = difflib.SequenceMatcher(None, words, wanted, autojunk=False)
    longest = matcher.find_longest_match()
    # the passage lies around the longest run in common
    low = max(0, longest.a - longest.b - len(wanted) // 8)
    high = min(len(words), longest.a + (len(wanted) - longest.b) + len(wanted) // 8)
    near = difflib.SequenceMatcher(None, words[low:high], wanted, autojunk=False)
    blocks = [block for block in near.get_matching_blocks() if block.size]
    if sum(block.size for block in blocks) < NEARLY * len(wanted):
        return None
    return Span(spans[low + blocks[0].a].start, spans[low + blocks[-1].a + blocks[-1].size - 1].end)


def _words(text: str, start: int) -> tuple[Sequence[Span], list[str]]:
    matches = list(WORD.finditer(text, start))
    return [Span(*match.span()) for match in matches], [match.group().casefold() for match in matches]
