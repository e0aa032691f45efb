"""A judge that is told what to do and answers in words: many replies at once on one event loop, called from any thread."""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from esr import prompts
from esr.judge import Abilities, Guess, JudgeQuestion, Passage, Regions, Relevance, Said
from esr.judge.instructed import concreteness, naming, regions, relevance
from esr.judge.instructed.form import Malformed
from esr.judge.instructed.grading import PROMPTS, Verdict, better, call_about, read, repair, shown
from esr.judge.providers.call import Answer, Call, Kind, Target
from esr.judge.providers.caller import Caller, StoredAnswer, Unanswered
from esr.judge.providers.loop import loop
from esr.judge.thirds import SHORT, thirds
from esr.types import BLIND, Grade, content_id

log = logging.getLogger(__name__)
T = TypeVar("T")

LONG = 20_000
"""Characters of a reply, or of an answer about it, beyond which it is read beside the event loop, which others wait for."""


class InstructedJudge:
    def __init__(self, name: str, target: Target, caller: Caller, *, blind: bool) -> None:
        self.name, self.target, self.caller, self.blind = name, target, caller, blind
        self.abilities = Abilities(
            structured=target.structured, batches=caller.mode == "batch", ratings=True, regions=True, blind=blind
        )
        self._loop = loop()
        self.prompt_hash = content_id("judging", target.hash, prompts.digest(*PROMPTS), blind, length=16)
        self.label_hash = content_id("naming", target.hash, prompts.digest(*naming.NAMES), length=16)
        self.relevance_hash = content_id("relevance", target.hash, prompts.digest(*relevance.PROMPTS), length=16)
        self._active = 0
        self._lock = threading.Lock()
        self.closed = False

    @property
    def spent(self) -> float:
        """US dollars of this run's calls whose price is known, other processes' calls of the same run included."""
        return self.caller.budget.spent

    @property
    def calls(self) -> int:
        """Calls that this process sent."""
        return self.caller.calls

    def shown(self, question: JudgeQuestion) -> str:
        return shown(question, blind=self.blind)

    def grades(self, questions: Sequence[JudgeQuestion], *, again: bool = False) -> list[Grade]:
        """One grade per question, in order. What is stored is not asked; with `again`, stored answers that gave no grade get one more
        try."""
        began, calls = time.monotonic(), self.caller.calls
        grades = self._run(self._grades(questions, again))
        missing = sum(grade.missing is not None for grade in grades)
        log.debug("%s graded %d replies, %d missing, %d calls, in %.1f s", self.name, len(grades), missing, self.caller.calls - calls, time.monotonic() - began)  # fmt: skip
        return grades

    def ratings(self, labels: Sequence[str]) -> list[float | None]:
        """How concrete each label is, 0 to 100; None: a placeholder, or no rating came. A label is asked about once, in whatever list."""
        asked = sorted({concreteness.line(label) for label in labels if concreteness.rateable(label)})
        known = self._rated()
        unknown = [label for label in asked if label not in known]
        found = known | (self._run(self._rate(unknown)) if unknown else {})
        return [found.get(concreteness.line(label)) for label in labels]

    def regions(self, questions: Sequence[JudgeQuestion]) -> list[Regions]:
        return self._run(_all(self._region(question) for question in questions))

    def labels(self, shown: Sequence[Sequence[Passage]]) -> list[Said]:
        return self._run(_all(self._name(passages) for passages in shown))

    def guesses(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[Guess]:
        return self._run(_all(self._guess(label, passages) for label, passages in asked))

    def relevances(self, questions: Sequence[JudgeQuestion]) -> list[Relevance]:
        return self._run(_all(self._relevance(question) for question in questions))

    def texts(self, calls: Sequence[Call]) -> list[str | None]:
        """What is answered to each call, in order, from what is stored or asked once; None: a refusal, a text that broke off, or none."""
        return self._run(_all(self._text(call) for call in calls))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._active == 0:
                self.caller.start_afresh()
            self._active += 1
        try:
            return self._loop.run(work)
        finally:
            with self._lock:
                self._active -= 1

    async def _grades(self, questions: Sequence[JudgeQuestion], again: bool) -> list[Grade]:
        order = random.Random(self.caller.answers.owner).sample(range(len(questions)), len(questions))
        # not in the order given: of two processes with the same work, the second would always come to what the first has just begun
        tasks = {i: asyncio.ensure_future(self._grade(questions[i], again)) for i in order}
        try:
            return list(await asyncio.gather(*(tasks[i] for i in range(len(questions)))))
        except BaseException:
            for task in tasks.values():
                task.cancel()
            if self._active == 1:
                await self.caller.drain()
            raise

    async def _grade(self, question: JudgeQuestion, again: bool) -> Grade:
        if not question.reply.strip():
            return self._made(question, Verdict(missing="no attempt"), [])
        used: list[StoredAnswer] = []
        call = call_about(question, self.target, blind=self.blind)
        while True:
            try:
                verdict = await self._verdict(call, question.reply, used)
            except Unanswered as error:
                log.debug("%s: no answer about %s: %s %s", self.name, question.trial_id, error.reason, error.detail)
                return self._made(question, Verdict(missing=error.reason), used)
            if verdict.missing in (None, "no attempt"):
                return self._made(question, verdict, used)
            call = call_about(question, self.target, blind=self.blind, round=call.round + 1)
            if not again and self.caller.stored(call.key) is None:
                return self._made(question, verdict, used)
            again = again and self.caller.stored(call.key) is not None

    async def _verdict(self, call: Call, reply: str, used: list[StoredAnswer]) -> Verdict:
        """What an answer says, and its repair if it needs one."""
        first = await self.caller.ask(call)
        used.append(first)
        verdict = await _read(first.answer, reply)
        self._note(first, verdict)
        if verdict.problem is None:
            return verdict
        second = await self.caller.ask(repair(call, first.answer, verdict.problem))
        used.append(second)
        mended = await _read(second.answer, reply)
        self._note(second, mended)
        return better(verdict, mended)

    async def _rate(self, labels: Sequence[str]) -> dict[str, float]:
        parts = await _all(self._rate_part(part) for part in concreteness.in_parts(labels))
        return {label: rating for part in parts for label, rating in part.items()}

    async def _rate_part(self, labels: list[str]) -> dict[str, float]:
        try:
            call = concreteness.call_about(labels, self.target)
            ratings, _ = await self._value(call, lambda text: concreteness.complete(text, labels))
        except Unanswered:
            return {}
        return ratings or {}

    def _rated(self) -> dict[str, float]:
        """Ratings that this judge has given before, in any call."""
        known: dict[str, float] = {}
        kinds: tuple[Kind, ...] = ("concreteness", "concreteness-repair")
        for kind in kinds:
            for messages, answer in self.caller.answers.of_kind(kind, concreteness.roomy(self.target)):
                known = concreteness.ratings_in(messages[0].text, answer.text) | known
        return known

    async def _text(self, call: Call) -> str | None:
        try:
            said = (await self.caller.ask(call)).answer
        except Unanswered as error:
            log.debug("%s: no text: %s %s", self.name, error.reason, error.detail)
            return None
        return said.text if said.stop == "end" else None

    async def _region(self, question: JudgeQuestion) -> Regions:
        try:
            call = regions.call_about(question, self.target)
            found, missing = await self._value(call, lambda text: regions.placed(text, question.reply))
        except Unanswered as error:
            return Regions(trial_id=question.trial_id, missing=error.reason)
        if found is None:
            return Regions(trial_id=question.trial_id, missing=missing)
        off, correction, on = found
        return Regions(trial_id=question.trial_id, off=off, correction=correction, on=on)

    async def _name(self, passages: Sequence[Passage]) -> Said:
        try:
            said, missing = await self._value(naming.call_for(passages, self.target), naming.label_in)
        except Unanswered as error:
            return Said(missing=error.reason)
        return Said(label=said or "", missing=missing or (None if said else "the judge sees nothing in common"))

    async def _guess(self, label: str, passages: Sequence[str]) -> Guess:
        try:
            call = naming.call_about(label, passages, self.target)
            fires, missing = await self._value(call, lambda text: naming.active_in(text, len(passages)))
        except Unanswered as error:
            return Guess(missing=error.reason)
        return Guess(fires=fires or frozenset(), missing=missing)

    async def _relevance(self, question: JudgeQuestion) -> Relevance:
        parts = thirds(question.reply)
        if parts is None:
            return Relevance(trial_id=question.trial_id, missing=SHORT)
        try:
            call = relevance.call_about(question, parts, self.target)
            found, missing = await self._value(call, lambda text: relevance.read(text, question))
        except Unanswered as error:
            return Relevance(trial_id=question.trial_id, missing=error.reason)
        if found is None:
            return Relevance(trial_id=question.trial_id, missing=missing)
        answered = self.caller.stored(call.key)
        cost = answered.answer.cost if answered is not None else None
        return Relevance(trial_id=question.trial_id, first=found[0], last=found[1], cost=cost)

    async def _value(self, call: Call, parse: Callable[[str], T]) -> tuple[T | None, str | None]:
        """What `parse` makes of the answer or of its repair, or None and why."""
        first = await self.caller.ask(call)
        try:
            return await _parsed(first, parse, call), None
        except Malformed as error:
            if first.answer.stop == "refusal":
                return None, "refused"
            second = await self.caller.ask(repair(call, first.answer, str(error)))
        try:
            return await _parsed(second, parse, call), None
        except Malformed:
            return None, "refused" if second.answer.stop == "refusal" else "malformed"

    def _note(self, stored: StoredAnswer, verdict: Verdict) -> None:
        self.caller.answers.verdict(stored.key, verdict.missing or ("not in the reply" if verdict.problem else "valid"))

    def _made(self, question: JudgeQuestion, verdict: Verdict, used: Sequence[StoredAnswer]) -> Grade:
        costs = [stored.answer.cost for stored in used]
        known = [cost for cost in costs if cost is not None]
        return Grade(
            trial_id=question.trial_id,
            latent=BLIND if self.blind else question.latent.index,
            judge=self.name,
            judge_prompt=self.prompt_hash,
            shown=self.shown(question),
            attempts=() if verdict.missing else verdict.attempts,
            missing=verdict.missing,
            answer_key=used[-1].key if used else "",
            input_tokens=sum(stored.answer.input_tokens or 0 for stored in used),
            output_tokens=sum(stored.answer.output_tokens or 0 for stored in used),
            cost=sum(known) if len(known) == len(costs) else None,
        )

    def close(self) -> None:
        with self._lock:
            if self.closed:
                return
            self.closed = True
        self._loop.run(self.caller.close())
        self.caller.answers.close()


async def _all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    return list(await asyncio.gather(*work))


async def _read(answer: Answer, reply: str) -> Verdict:
    return await _aside(len(reply) + len(answer.text), lambda: read(answer, reply))


async def _parsed(stored: StoredAnswer, parse: Callable[[str], T], call: Call) -> T:
    if stored.answer.stop == "refusal":
        raise Malformed("it is a refusal")
    return await _aside(call.characters, lambda: parse(stored.answer.text))


async def _aside(characters: int, work: Callable[[], T]) -> T:
    """Long texts are read in a thread: others wait for the event loop."""
    return work() if characters < LONG else await asyncio.to_thread(work)
