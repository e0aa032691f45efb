"""Params, questions and child processes for the tests of judges."""

import json
import multiprocessing
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from judge_server import Provider, named

from esr.judge import JudgeQuestion
from esr.judge.instructed.judge import InstructedJudge
from esr.judge.open import open_judge
from esr.params import Params, load
from esr.types import Latent

KEY = "not-a-real-key-" + "0123456789abcdef" * 2
forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["anthropic", "esr.judge.open", "judge_setup"])


def forked(target: Callable[..., None], *args: object) -> Any:
    """A process with the environment of now: the server that forks may have been started by another test's, long ago."""
    return forks.Process(target=in_environment, args=(dict(os.environ), target, *args), daemon=True)


def in_environment(environment: dict[str, str], target: Callable[..., None], *args: object) -> None:
    os.environ.update(environment)
    target(*args)


def opened(params: Params, name: str, store: Path, budget: str | None = None) -> InstructedJudge:
    """A judge behind an interface, with all that the tests look into."""
    judge = open_judge(params, name, store=store, budget=budget)
    assert isinstance(judge, InstructedJudge)
    return judge


def params_at(url: str, name: str = "haiku-4.5", *, judging: dict[str, Any] | None = None, **judge: Any) -> Params:
    """The shipped params with one judge moved to a local server and freed of its limit."""
    params = load("tiny")
    spec = params.judge(name)
    base = url if spec.client == "anthropic" else f"{url}/v1"
    spec = spec.model_copy(update={"api_base": base, "per_minute": 0, "timeout": 30.0} | judge)
    return params.model_copy(
        update={"judges": params.judges | {name: spec}, "judging": params.judging.model_copy(update=judging or {})}
    )


def questions(n: int, first: int = 0) -> list[JudgeQuestion]:
    """Replies with two attempts where the number is odd."""
    replies = []
    for i in range(first, first + n):
        reply = f"First, grind {i} beans for the castle moat."
        if i % 2:
            reply += f" Wait, that is not right. Let me grind {i + 1} coffee beans and pour the water."
        replies.append(reply)
    return [
        JudgeQuestion(trial_id=f"t{first + i}", prompt="How do you make a good cup of coffee?", reply=reply, latent=Latent(i % 7, "castles"))
        for i, reply in enumerate(replies)
    ]  # fmt: skip


def grade_in_child(params: Params, name: str, store: Path, n: int, out: Path | None, first: int = 0) -> None:
    judge = opened(params, name, store=store)
    began = time.time()
    grades = judge.grades(questions(n, first))
    if out is not None:
        rows = [{"trial": grade.trial_id, "missing": grade.missing, "attempts": len(grade.attempts)} for grade in grades]
        out.write_text(json.dumps({"grades": rows, "calls": judge.calls, "began": began, "ended": time.time()}))
    judge.close()


def grade_in_batches(params: Params, name: str, store: Path, n: int, out: Path | None, size: int) -> None:
    """Several batches of one size at once."""
    from esr.judge.providers import batch

    batch.LARGEST = size
    grade_in_child(params, name, store, n, out)


def killed_among_batches(
    provider: Provider,
    params: Params,
    store: Path,
    out: Path,
    *,
    kills: int,
    size: int,
    rng: random.Random,
    last: int | None = None,
) -> int:
    """A process that hands over three more batches of `size` at once every time, killed every time while it does; then one that may
    end, with `last` questions if given. How many questions it was about."""
    os.environ.setdefault("ANTHROPIC_API_KEY", KEY)
    for i in range(1, kills + 1):
        process = forked(grade_in_batches, params, "haiku-4.5", store, 3 * size * i, None, size)
        before, deadline = len(provider.batches), time.time() + 120
        process.start()
        while len(provider.batches) == before and time.time() < deadline:
            time.sleep(0.005)
        time.sleep(rng.choice([0.0, 0.02, 0.05, 0.1, 0.3]) * rng.random())
        process.kill()
        process.join()
    n = last or 3 * size * kills
    process = forked(grade_in_batches, params, "haiku-4.5", store, n, out, size)
    process.start()
    process.join(180)
    return n


def paid_twice(provider: Provider) -> list[str]:
    """Questions that were handed over in more than one batch."""
    handed = Counter(item["custom_id"] for batch in provider.batches.values() for item in batch["requests"])
    return [key for key, times in handed.items() if times > 1]


def grade_on_a_full_disk(params: Params, name: str, store: Path, n: int, out: Path, room: int) -> None:
    """Files may not grow beyond `room` bytes."""
    import resource
    import signal

    judge = opened(params, name, store=store)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        judge.grades(questions(n))
        said = "nothing"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    out.write_text(said)


def child(params: Params, name: str, store: Path, n: int, out: Path | None = None, first: int = 0) -> Any:
    """A process of its own that grades and may be killed."""
    os.environ.setdefault("ANTHROPIC_API_KEY", KEY)
    process = forked(grade_in_child, params, name, store, n, out, first)
    process.start()
    return process


def on_disk(store: Path) -> set[str]:
    """The server's names of the questions whose answers are stored."""
    file = store / "answers.sqlite"
    if not file.exists():
        return set()
    db = sqlite3.connect(file, timeout=30)
    try:
        rows = db.execute("SELECT turns FROM answers").fetchall()
    except sqlite3.OperationalError:  # killed before there was a table
        return set()
    finally:
        db.close()
    return {named([{"role": role, "content": text} for role, text in json.loads(row[0])]) for row in rows}


def asked_after(provider: Provider, moment: float) -> set[str]:
    with provider.lock:
        return {entry["question"] for entry in provider.requests if entry["at"] > moment}
