"""Which words are over-represented where a latent fires: log-odds with an informative Dirichlet prior.

With y words counted out of n there, y′ out of n′ in the background, and a = PRIOR · y′ / n′ the prior of the word, A = PRIOR of all:

    δ = ln((y + a) / (n + A − y − a)) − ln((y′ + a) / (n′ + A − y′ − a))        z = δ / √(1 / (y + a) + 1 / (y′ + a))

(Monroe, Colaresi and Quinn, Fightin' Words, 2008). A word counts once a passage, however often it stands there.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|['’](?=[^\W\d_]))*")
PRIOR = 100.0
"""Words' worth of belief that a latent's passages are like any other text."""


def words(text: str) -> list[str]:
    return [word.lower().replace("’", "'") for word in WORD.findall(text)]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many passages hold each word."""

    of: Mapping[str, int]
    total: int

    @classmethod
    def among(cls, passages: Iterable[str]) -> "Counts":
        of = Counter(word for passage in passages for word in set(words(passage)))
        return cls(of, sum(of.values()))


def z_score(here: int, n_here: int, elsewhere: int, n_elsewhere: int) -> float:
    """How many standard errors a word is over-represented."""
    prior = PRIOR * elsewhere / n_elsewhere if elsewhere else PRIOR / n_elsewhere
    one, two = here + prior, elsewhere + prior
    delta = math.log(one / (n_here + PRIOR - one)) - math.log(two / (n_elsewhere + PRIOR - two))
    return delta / math.sqrt(1 / one + 1 / two)


def characteristic(here: Counts, background: Counts) -> dict[str, float]:
    """The z score of every word that stands there, the largest first."""
    found = {word: z_score(n, here.total, background.of.get(word, 0), background.total) for word, n in here.of.items()}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
