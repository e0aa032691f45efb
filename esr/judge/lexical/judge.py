"""The judge `lexical` under the contract of every judge: attempts by rule, scores by counting words, offsets that always stand."""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from esr.errors import JudgeError
from esr.judge import Abilities, JudgeQuestion, Regions, Relevance
from esr.judge.lexical.attempts import attempts
from esr.judge.lexical.concreteness import concreteness
from esr.judge.lexical.score import score
from esr.judge.thirds import SHORT, thirds
from esr.types import Attempt, Grade, content_id


class Lexical:
    abilities = Abilities(ratings=True, local=True)

    def __init__(self, name: str = "lexical") -> None:
        self.name = name
        self.prompt_hash = fingerprint()
        self.relevance_hash = content_id("relevance", self.prompt_hash, length=16)

    def shown(self, question: JudgeQuestion) -> str:
        """It reads the prompt and never the label."""
        return content_id("shown", question.prompt, None, length=16)

    def grades(self, questions: Sequence[JudgeQuestion], *, again: bool = False) -> list[Grade]:
        """`again` changes nothing: the same reply always gets the same grade."""
        return [self._grade(question) for question in questions]

    def ratings(self, labels: Sequence[str]) -> list[float | None]:
        return [concreteness(label) for label in labels]

    def regions(self, questions: Sequence[JudgeQuestion]) -> list[Regions]:
        raise JudgeError(f"judge {self.name!r} counts words and marks no regions; choose a judge behind an interface")

    def relevances(self, questions: Sequence[JudgeQuestion]) -> list[Relevance]:
        """Each third scored as one attempt would be."""
        return [self._relevance(question) for question in questions]

    def _relevance(self, question: JudgeQuestion) -> Relevance:
        parts = thirds(question.reply)
        if parts is None:
            return Relevance(trial_id=question.trial_id, missing=SHORT)
        first, last = (score(question.prompt, text) for text in (parts.first, parts.last))
        return Relevance(trial_id=question.trial_id, first=first, last=last)

    def close(self) -> None:
        """It holds nothing."""

    def _grade(self, question: JudgeQuestion) -> Grade:
        texts = [(span, question.reply[span.start : span.end]) for span in attempts(question.reply)]
        return Grade(
            trial_id=question.trial_id,
            latent=question.latent.index,
            judge=self.name,
            judge_prompt=self.prompt_hash,
            shown=self.shown(question),
            attempts=tuple(Attempt(score(question.prompt, text), text, span.start, span.end) for span, text in texts),
            missing=None if texts else "no attempt",
            cost=0.0,
        )


RULES = ("attempts.py", "concreteness.py", "restarts.py", "score.py", "topics.py", "words.py")


@cache
def fingerprint() -> str:
    """Hash of the judge's rules and data: another rule or another word list is another judge."""
    parts = [files(__package__).joinpath(name).read_bytes() for name in RULES]
    parts += [files("esr").joinpath("organism", "data", name).read_bytes() for name in ("topics.tsv", "subjects.tsv")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
