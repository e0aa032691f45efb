"""Tags around texts that a judge is shown, which no text can close.

A text that holds anything like a tag gets tags with a number that it does not hold.
"""

import re
import unicodedata
from itertools import count

NAMES = ("question", "reply", "unrelated_topic")
SPACE = re.compile(r"\s+")
ENDS = tuple(f"/{name}" for name in NAMES)
LOOKS_LIKE_A_TAG = ("<", "‹", "⟨", "〈", "«", "&lt", "&#", "%3c", "\\u003c", "\\x3c", "\\074", *ENDS)


def fence(*texts: str) -> str:
    """What follows the names of the tags: nothing, or the first of -1, -2, … that none of the texts holds."""
    seen = [_bare(text) for text in texts]
    if not any(sign in text for sign in LOOKS_LIKE_A_TAG for text in seen):
        return ""
    marks = (f"-{i}" for i in count(1))
    return next(mark for mark in marks if not any(f"{name}{mark}" in text for name in NAMES for text in seen))


def _bare(text: str) -> str:
    """As a reader sees it who minds neither case nor width nor space."""
    if text.isascii():
        return SPACE.sub("", text).lower()
    text = unicodedata.normalize("NFKC", text).casefold()
    return "".join(sign for sign in text if not sign.isspace() and unicodedata.category(sign) != "Cf")
