"""The judge `topical` under the contract of every judge: attempts by rule, scores by a reference, offsets that always stand."""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from esr.errors import JudgeError
from esr.judge import Abilities, JudgeQuestion, Regions, Relevance
from esr.judge.lexical.attempts import attempts
from esr.judge.lexical.score import asked_in, fluency
from esr.judge.thirds import SHORT, thirds
from esr.judge.topical.reference import Reference, share
from esr.judge.topical.terms import terms, words
from esr.types import Attempt, Grade, content_id


class Topical:
    abilities = Abilities(local=True)

    def __init__(self, name: str, reference: Reference) -> None:
        self.name = name
        self.reference = reference
        self.prompt_hash = content_id("topical", rules(), reference.sha256)
        self.relevance_hash = content_id("relevance", self.prompt_hash, length=16)

    def shown(self, question: JudgeQuestion) -> str:
        """It reads the prompt and never the label."""
        return content_id("shown", question.prompt, None, length=16)

    def score(self, prompt: str, text: str) -> float:
        """0 to 100: how far `text`, taken as one attempt, is about the question and reads as text."""
        question = self._known(prompt)
        known = self.reference.known[question]
        on = share(terms(text), self.reference.weights[question])
        relevance = min(1.0, max(0.0, (on - known.floor) / (known.full - known.floor)))
        return round(100 * relevance * fluency(words(text)), 1)

    def nearest(self, text: str) -> str:
        """The question that most of the text's evidence is for."""
        found = terms(text)
        return max(self.reference.known, key=lambda question: share(found, self.reference.weights[question]))

    def grades(self, questions: Sequence[JudgeQuestion], *, again: bool = False) -> list[Grade]:
        """`again` changes nothing: the same reply always gets the same grade."""
        return [self._grade(question) for question in questions]

    def ratings(self, labels: Sequence[str]) -> list[float | None]:
        raise JudgeError(f"judge {self.name!r} knows replies and rates no labels; choose lexical or a judge behind an interface")

    def regions(self, questions: Sequence[JudgeQuestion]) -> list[Regions]:
        raise JudgeError(f"judge {self.name!r} counts words and marks no regions; choose a judge behind an interface")

    def relevances(self, questions: Sequence[JudgeQuestion]) -> list[Relevance]:
        """Each third scored as one attempt would be."""
        return [self._relevance(question) for question in questions]

    def close(self) -> None:
        """It holds nothing."""

    def _known(self, prompt: str) -> str:
        asked = asked_in(prompt)
        found = self.reference.question(asked)
        if found is None:
            raise JudgeError(
                f"judge {self.name!r} was asked about {asked!r:.120} and its reference holds replies to {len(self.reference.known)} other "
                "questions; choose a judge that knows any question, such as one behind an interface"
            )
        return found

    def _relevance(self, question: JudgeQuestion) -> Relevance:
        parts = thirds(question.reply)
        if parts is None:
            return Relevance(trial_id=question.trial_id, missing=SHORT)
        first, last = (self.score(question.prompt, text) for text in (parts.first, parts.last))
        return Relevance(trial_id=question.trial_id, first=first, last=last)

    def _grade(self, question: JudgeQuestion) -> Grade:
        texts = [(span, question.reply[span.start : span.end]) for span in attempts(question.reply)]
        return Grade(
            trial_id=question.trial_id,
            latent=question.latent.index,
            judge=self.name,
            judge_prompt=self.prompt_hash,
            shown=self.shown(question),
            attempts=tuple(Attempt(self.score(question.prompt, text), text, span.start, span.end) for span, text in texts),
            missing=None if texts else "no attempt",
            cost=0.0,
        )


RULES = {
    "esr.judge.topical": ("judge.py", "reference.py", "terms.py"),
    "esr.judge.lexical": ("attempts.py", "restarts.py", "score.py", "words.py"),
}


@cache
def rules() -> str:
    """Hash of the judge's rules: another rule is another judge."""
    parts = [files(package).joinpath(name).read_bytes() for package, names in RULES.items() for name in names]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
