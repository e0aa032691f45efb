"""The lexical judge: local, deterministic and free, under the contract of every judge.

It marks off attempts at explicit restarts (restarts.py) and scores each by what its words are about (score.py): the share of
on-topic words among those that tell, less for words of an unrelated subject, scaled down by loops and by word salad. What
questions and subjects are about comes from public data (topics.py); for any other how-to question, from the question's own
words. It never looks at the distractor it is told of, nor at how the reply was made.
"""

from esr.judge.lexical.concreteness import concreteness
from esr.judge.lexical.judge import Lexical
from esr.judge.lexical.score import score

__all__ = ["Lexical", "concreteness", "score"]
