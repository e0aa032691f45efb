"""Where a quotation stands in a text: exactly, else by its words, else by its two ends, else nearly. Not there: None.

Judges straighten quotes, drop markdown, change case and spacing, escape line breaks and shorten with dots; they also make things up,
and that must not be found. The time it takes grows with the text and not with its square: degraded replies are long and repeat themselves.
"""

import difflib
import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

HIDDEN = "\u00ad\u200b-\u200d\u2060\ufeff"
"""Soft hyphens and characters of no width, which no judge copies."""
WORD = re.compile(rf"[^\W_](?:[^\W_]|[\u0300-\u036f{HIDDEN}])*")
UNSEEN = re.compile(f"[{HIDDEN}]")
DOTS = re.compile(r"\s*(?:\[\s*)?(?:\.{3,}|…)(?:\s*\])?\s*")
ESCAPED = re.compile(r"\\[nrt\"'\\]")
NEARLY = 0.85
"""Share of a quotation's words, in order, that must stand in a passage hardly longer than it."""
SHORTEST, LONGEST = 6, 800
"""Words that a quotation needs, and may have, to be looked for nearly."""
INSIDE = 20
"""Characters that a quotation needs to begin or end within a word."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text, `text[start:end]`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Words:
    """A text's words as they are compared, and where each stands."""

    forms: tuple[str, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]


def locate(quote: str, text: str, start: int = 0) -> Span | None:
    """The first place at or after `start`."""
    quote = quote.strip()
    if not quote or DOTS.fullmatch(quote):
        return None
    found = exactly(quote, text, start) or by_words(quote, text, start) or by_ends(quote, text, start) or nearly(quote, text, start)
    if found is None and ESCAPED.search(quote):
        return locate(ESCAPED.sub(" ", quote), text, start)
    return found


def exactly(quote: str, text: str, start: int = 0) -> Span | None:
    at = text.find(quote, start)
    while at >= 0:
        end = at + len(quote)
        if len(quote) >= INSIDE or not (_within_word(text, at) or _within_word(text, end)):
            return Span(at, end)
        at = text.find(quote, at + 1)
    return None


def _within_word(text: str, at: int) -> bool:
    return 0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum()


def by_words(quote: str, text: str, start: int = 0) -> Span | None:
    """The same words in the same order, whatever stands between them."""
    wanted, words = words_of(quote).forms, words_of(text)
    at = _run(wanted, words.forms, bisect_left(words.starts, start))
    return None if at is None else Span(words.starts[at], words.ends[at + len(wanted) - 1])


def _run(wanted: Sequence[str], words: Sequence[str], low: int) -> int | None:
    """Where `wanted` begins in `words`, looking at each word once (Knuth, Morris and Pratt)."""
    if not wanted:
        return None
    back = [0] * len(wanted)
    for i in range(1, len(wanted)):
        k = back[i - 1]
        while k and wanted[i] != wanted[k]:
            k = back[k - 1]
        back[i] = k + (wanted[i] == wanted[k])
    k = 0
    for i in range(low, len(words)):
        while k and words[i] != wanted[k]:
            k = back[k - 1]
        k += words[i] == wanted[k]
        if k == len(wanted):
            return i - k + 1
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
    wanted, words = words_of(quote).forms, words_of(text)
    if not SHORTEST <= len(wanted) <= LONGEST:
        return None
    low = _richest(wanted, words.forms, bisect_left(words.starts, start))
    if low is None:
        return None
    slack = len(wanted) // 8
    low, high = max(bisect_left(words.starts, start), low - slack), low + len(wanted) + 2 * slack
    near = difflib.SequenceMatcher(None, words.forms[low:high], wanted, autojunk=False)
    blocks = [block for block in near.get_matching_blocks() if block.size]
    if sum(block.size for block in blocks) < NEARLY * len(wanted):
        return None
    return Span(words.starts[low + blocks[0].a], words.ends[low + blocks[-1].a + blocks[-1].size - 1])


def _richest(wanted: Sequence[str], words: Sequence[str], low: int) -> int | None:
    """Where the first window as long as the quotation begins that holds most of its words in any order; None: none holds enough."""
    need, have = Counter(wanted), Counter[str]()
    size, shared = len(wanted), 0
    most, at = NEARLY * len(wanted) - 1e-9, None
    width = size + size // 8
    for i in range(low, len(words)):
        word = words[i]
        have[word] += 1
        shared += have[word] <= need[word]
        if i - low >= width:
            left = words[i - width]
            shared -= have[left] <= need[left]
            have[left] -= 1
        if shared > most:
            most, at = shared, max(low, i - width + 1)
    return at


@lru_cache(maxsize=64)
def words_of(text: str) -> Words:
    found = list(WORD.finditer(text))
    forms = tuple(_form(match.group()) for match in found)
    return Words(forms, tuple(match.start() for match in found), tuple(match.end() for match in found))


def _form(word: str) -> str:
    return word.casefold() if word.isascii() else unicodedata.normalize("NFKC", UNSEEN.sub("", word)).casefold()
