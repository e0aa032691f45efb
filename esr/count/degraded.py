"""Degraded replies: the model stuck on one word."""

from operator import eq


def degraded(text: str, run: int = 5) -> bool:
    """Whether the whitespace-split words hold a run of at least `run` identical consecutive words longer than one character."""
    words = text.split()
    same = bytes(map(eq, words, words[1:]))  # 1 where a word equals the next; searched as bytes, for replies come by the 100,000
    at = same.find(b"\1" * (run - 1))
    while 0 <= at < len(words) and len(words[at]) < 2:
        at = same.find(b"\1" * (run - 1), at + 1)
    return 0 <= at < len(words)
