"""Whether a label tells where its latent fires, on texts that nobody looked at when it was made; 1/2 is chance in both scores.

    words       AUC: how often a text in which the latent fires holds a larger share of the label's words than one in which it does not
    detection   balanced accuracy of a judge who is shown the label and passages of both kinds

The interval of an AUC is Wilson's at n = 1 / (1 / fired + 1 / not fired), the smallest sample that could be worth so many texts,
because a share of comparisons varies at most like a share. Of a balanced accuracy it is put together from Wilson's of both halves.
Texts are drawn anew in both, the groups that they belong to are taken as given.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from esr.count.intervals import Interval, together
from esr.count.intervals import score as wilson
from esr.labelling.words import words

FIRST = {"about", "the", "word", "where", "text", "says"}
"""Words of a label's own form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    value: float
    """In [0, 1]; 0.5 is chance."""
    low: float
    high: float
    n: int
    """Held-out texts, or passages, that it rests on."""
    fired: int
    """Of them, those in which the latent fires."""
    method: str

    @property
    def better_than_chance(self) -> bool:
        return self.low > 0.5


def named(label: str) -> frozenset[str]:
    """The words that a label goes by: those in quotation marks, else all but the words of its form."""
    quoted = label.split('"')[1::2]
    return frozenset(words(" ".join(quoted))) if quoted else frozenset(words(label)) - FIRST


class Bag:
    """The words of the held-out texts, counted once."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.n = len(texts)
        counted = [Counter(words(text)) for text in texts]
        self._totals = np.array([max(sum(of.values()), 1) for of in counted], np.float64)
        places: dict[str, list[tuple[int, int]]] = {}
        for i, of in enumerate(counted):
            for word, n in of.items():
                places.setdefault(word, []).append((i, n))
        self._places = {word: np.array(found, np.int32) for word, found in places.items()}

    def share(self, label: str) -> NDArray[np.float64]:
        """By text: the share of its words that the label names."""
        found = np.zeros(self.n)
        for word in named(label) & self._places.keys():
            at, n = self._places[word].T
            found[at] += n
        return found / self._totals


def auc(shares: NDArray[np.float64], fires: NDArray[np.bool_], confidence: float) -> Score:
    """Ties count half."""
    yes, no = shares[fires], np.sort(shares[~fires])
    below, upto = np.searchsorted(no, yes, "left"), np.searchsorted(no, yes, "right")
    value = float((below + upto).sum() / (2 * len(yes) * len(no)))
    low, high = (float(bound[0]) for bound in _wilson(value, 1 / (1 / len(yes) + 1 / len(no)), confidence))
    return Score(value=value, low=low, high=high, n=len(shares), fired=len(yes), method="words")


def balanced(right_yes: int, yes: int, right_no: int, no: int, confidence: float) -> Score:
    """Of `yes` passages in which the latent fires and `no` others, how many were told as such."""
    told, wrongly = right_yes / yes, 1 - right_no / no
    found = together(
        np.array([told]), np.array([wrongly]), _wilson(told, yes, confidence), _wilson(wrongly, no, confidence), np.zeros(1)
    )
    low, high = (float(1 + bound[0]) / 2 for bound in found)
    return Score(value=(1 + told - wrongly) / 2, low=low, high=high, n=yes + no, fired=yes, method="detection")


def _wilson(p: float, n: float, confidence: float) -> Interval:
    return wilson(np.array([p]), np.array([n]), np.array(NormalDist().inv_cdf(0.5 + confidence / 2)))
