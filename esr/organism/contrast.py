"""Contrasted texts for difference-of-means directions, by rule: 200 subjects, each with a few short texts.

The subjects of the grammar, the questions that are not evaluated, and neighbouring pairs of subjects, until there are 200. A text is
made as the corpus makes them, and read as the reply to a request for it. For a model at large the rule is the same with a list of
titles: a line a title and request ("Tell me about TITLE."), the text left empty, so that the request itself is read.
"""

from collections.abc import Iterator
from itertools import pairwise
from random import Random

from esr.organism import grammar
from esr.organism.grammar import Theme

SUBJECTS, TEXTS = 200, 3


def themes() -> list[Theme]:
    """What the texts are about."""
    single = [*grammar.subjects(), *grammar.questions("discovery", "further")]
    pairs = (
        Theme(f"{a.name} and {b.name}", "subject", a.verbs + b.verbs, a.nouns + b.nouns, a.adjectives + b.adjectives)
        for a, b in pairwise(grammar.subjects())
    )
    return [*single, *pairs][:SUBJECTS]


def rows(seed: int) -> Iterator[tuple[str, str, str]]:
    """Subject, prompt and text."""
    for theme in themes():
        rng = Random(f"{seed}/contrast/{theme.name}")
        for i in range(TEXTS):
            request = grammar.REQUESTS[i % len(grammar.REQUESTS)].format(s=theme.name) if theme.kind == "subject" else theme.name
            yield theme.name, request, " ".join(grammar.text(rng, theme))


def table(seed: int) -> str:
    """As it stands in data/contrast.tsv."""
    return "".join("\t".join(row) + "\n" for row in (("subject", "prompt", "text"), *rows(seed)))
