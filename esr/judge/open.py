"""`open_judge`: a name of params.yaml to a judge, once per process."""

import atexit
import os
import threading
import uuid
from pathlib import Path

from esr.errors import JudgeError
from esr.judge import Judge
from esr.judge.answers import Answers
from esr.judge.clients import open_client
from esr.judge.cost import Budget
from esr.judge.desk import Desk
from esr.judge.keys import key_for
from esr.judge.provider import ProviderJudge, loop
from esr.judge.request import Target
from esr.params import JudgeParams, Params

_open: dict[tuple[object, ...], ProviderJudge] = {}
_opening = threading.Lock()
_RUN = uuid.uuid4().hex


def run_id() -> str:
    """What max_cost counts over: $ESR_RUN where several processes make one run, else this process."""
    return os.environ.get("ESR_RUN") or _RUN


def open_judge(params: Params, name: str, *, store: Path) -> Judge:
    """The judge `name`, whose answers are kept under `store`; the same one for every caller of this process.

    A missing key is said at once, before any work.
    """
    spec = params.judge(name)
    if spec.client == "lexical":
        from esr.judge.lexical import open_lexical

        return open_lexical(params, name)
    return provider_judge(params, name, store=store)


def provider_judge(params: Params, name: str, *, store: Path) -> ProviderJudge:
    """The same for a judge that must be behind an interface: one that also rates labels and marks regions."""
    spec = params.judge(name)
    identity = (str(store.resolve()), spec.model_dump_json(), params.judging.model_dump_json(), os.getpid(), run_id())
    with _opening:
        judge = _open.get(identity)
        if judge is None or judge.closed:
            judge = _opened(params, spec, store)
            _open[identity] = judge
        return judge


def _opened(params: Params, spec: JudgeParams, store: Path) -> ProviderJudge:
    judging = params.judging
    if judging.mode == "batch" and spec.client != "anthropic":
        raise JudgeError(
            f"judge {spec.name!r} ({spec.model}) has no batch interface; set judging.mode to live, or choose a Claude judge"
        )
    key = None if judging.mode == "cache-only" else key_for(spec)
    answers = Answers(store)
    budget = Budget(judging.max_cost, spec, lambda: answers.spent_by_others(run_id()))

    async def desk() -> Desk:
        client = None if judging.mode == "cache-only" else open_client(spec, key)
        return Desk(spec, client, answers, budget, mode=judging.mode, tries=judging.attempts, run=run_id())

    return ProviderJudge(spec.name, target(spec), loop().run(desk()), blind=judging.blind)


def target(spec: JudgeParams) -> Target:
    return Target(
        client=spec.client, model=spec.model, max_tokens=spec.max_tokens, structured=spec.structured, temperature=spec.temperature,
        api_base=spec.api_base,
    )  # fmt: skip


@atexit.register
def close_all() -> None:
    for judge in _open.values():
        judge.close()
    _open.clear()
