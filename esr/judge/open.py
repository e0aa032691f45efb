"""`open_judge`: a name of params.yaml to a judge, once per process."""

import atexit
import os
import threading
import uuid
from pathlib import Path

from esr.errors import JudgeError
from esr.judge import Judge, Namer
from esr.judge.instructed.judge import InstructedJudge
from esr.judge.lexical import Lexical
from esr.judge.providers.answers import Answers
from esr.judge.providers.budget import Budget
from esr.judge.providers.call import Target
from esr.judge.providers.caller import Caller
from esr.judge.providers.claude import ClaudeClient
from esr.judge.providers.client import Client
from esr.judge.providers.keys import key_for, public
from esr.judge.providers.loop import loop
from esr.judge.providers.openai_like import LitellmClient
from esr.judge.topical.named import named
from esr.params import JudgeParams, Params

_open: dict[tuple[object, ...], InstructedJudge] = {}
_opening = threading.Lock()
_PROCESS = uuid.uuid4().hex


def open_judge(params: Params, name: str, *, store: Path, budget: str | None = None) -> Judge:
    """The judge `name`, whose answers are kept under `store`; the same one for every caller of this process.

    `budget` names what max_cost counts over, in whichever processes and at whatever time it is spent; None: this process.
    A missing key is said at once, before any work.
    """
    spec = params.judge(name)
    if spec.client == "lexical":
        return Lexical(name)
    if spec.client == "topical":
        return named(spec)
    return open_instructed(params, name, store=store, budget=budget)


def open_namer(params: Params, name: str, *, store: Path, budget: str | None = None) -> Namer:
    """The judge `name` as one who says what latents stand for."""
    if not params.judge(name).told:
        raise JudgeError(
            f"judge {name!r} counts words and writes no labels; name a judge behind an interface, or `local`, which needs no key"
        )
    return open_instructed(params, name, store=store, budget=budget)


def open_instructed(params: Params, name: str, *, store: Path, budget: str | None = None) -> InstructedJudge:
    """The same, of a judge that is told what to do; it also writes texts."""
    spec = params.judge(name)
    if not spec.told:
        raise JudgeError(f"the judge {name!r} counts words and was asked to write; name one of a provider, such as sonnet-4.5")
    budget = budget or _PROCESS
    identity = (str(store.resolve()), spec.model_dump_json(), params.judging.model_dump_json(), os.getpid(), budget)
    with _opening:
        judge = _open.get(identity)
        if judge is None or judge.closed:
            judge = _opened(params, spec, store, budget)
            _open[identity] = judge
        return judge


def _opened(params: Params, spec: JudgeParams, store: Path, run: str) -> InstructedJudge:
    judging = params.judging
    if judging.mode == "batch" and spec.client != "anthropic":
        raise JudgeError(
            f"judge {spec.name!r} ({spec.model}) has no batch interface; set judging.mode to live, or choose a Claude judge"
        )
    key = None if judging.mode == "cache-only" else key_for(spec)
    answers = Answers(store)
    budget = Budget(judging.max_cost, spec, lambda: answers.spent_by_others(run))

    async def caller() -> Caller:
        client = None if judging.mode == "cache-only" else open_client(spec, key)
        return Caller(spec, client, answers, budget, mode=judging.mode, tries=judging.attempts, run=run)

    return InstructedJudge(spec.name, target(spec), loop().run(caller()), blind=judging.blind)


def open_client(spec: JudgeParams, key: str | None) -> Client:
    return ClaudeClient(spec, key) if spec.client == "anthropic" else LitellmClient(spec, key)


def target(spec: JudgeParams) -> Target:
    return Target(
        client=spec.client, model=spec.model, max_tokens=spec.max_tokens, structured=spec.structured, temperature=spec.temperature,
        api_base=public(spec.api_base),
    )  # fmt: skip


@atexit.register
def close_all() -> None:
    for judge in _open.values():
        judge.close()
    _open.clear()
