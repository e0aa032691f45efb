"""Labels without a key: the word that a latent fires on, or the words that are over-represented around it.

    the word "hive"                      most of its passages are marked at this word
    about hive, nectar, bee, honey       these words of content are characteristic of its passages
    the word "the"                       most are marked at a word that belongs to no subject, and no content is characteristic
    where the text says "next", "then"   only words that belong to no subject are

The same passages always get the same label.
"""

from collections import Counter
from collections.abc import Sequence

from esr.judge import Passage, Said
from esr.judge.lexical.words import FUNCTION, HOW_TO, META
from esr.labelling.passages import whole_word
from esr.labelling.words import WORD, Counts, characteristic
from esr.types import content_id

ONE_WORD = 0.6
"""Share of the passages marked at one word above which the label is that word."""
CLEARLY = 3.0
"""Standard errors by which a word must be over-represented to be named."""
OFTEN = 0.25
"""Share of the passages that must hold it."""
NAMED = 4
NAME = "local"
EMPTY = FUNCTION | HOW_TO | META
"""Words that belong to no subject."""
HASH = content_id("local", 2, ONE_WORD, CLEARLY, OFTEN, NAMED, sorted(EMPTY), length=16)


def label(passages: Sequence[Passage], background: Counts) -> Said:
    """A subject before a word of none: a latent for a subject fires on `the` and `,` within texts about it."""
    marked = Counter(whole_word(passage).lower() for passage in passages)
    word, most = min(marked.items(), key=lambda item: (-item[1], item[0]))
    one = f'the word "{word}"' if word and most >= ONE_WORD * len(passages) else ""
    if one and WORD.fullmatch(word) and word not in EMPTY:
        return Said(label=one)
    here = Counts.among(passage.text for passage in passages)
    clear = [w for w, z in characteristic(here, background).items() if z >= CLEARLY and here.of[w] >= OFTEN * len(passages)]
    content = [w for w in clear if w not in EMPTY][:NAMED]
    if content:
        return Said(label="about " + ", ".join(content))
    if one:
        return Said(label=one)
    if clear:
        return Said(label="where the text says " + ", ".join(f'"{w}"' for w in clear[:NAMED]))
    return Said(missing="no word is characteristic of where it fires")
