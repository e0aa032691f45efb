"""The topical judge: local, deterministic and free, for any model that answers the evaluation questions in real English.

Attempts are those of the lexical judge. Each is scored by how near its words are to a model's own unsteered replies to the question,
and how much nearer than to its replies to the others (reference.py, score.py), scaled down by loops and by word salad. It never looks
at the distractor it is told of, nor at how the reply was made.
"""

from esr.judge.topical.judge import Topical
from esr.judge.topical.reference import Reference

__all__ = ["Reference", "Topical"]
