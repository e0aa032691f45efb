"""The first whole sentences of a text."""

import re

END = re.compile(r"(?<!^\d)(?<!\n\d)(?<!\n\d\d)[.!?](?=\s|$)")
"""The stop after the number of an item in a list ends no sentence."""


def first_sentences(text: str, most: int) -> str:
    """At most so many; one that breaks off is left out. Empty: there is no whole one."""
    ends = [found.end() for found in END.finditer(text)][:most]
    return text[: ends[-1]].strip() if ends else ""
