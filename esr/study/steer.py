"""Trials in, replies out: batches go to the engine, and each is kept the moment it comes.

`keep` makes a batch durable before the next is counted, so a crash loses at most the batches in flight.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from esr.engine import Engine, Output, Request
from esr.engine.entries import resolved, windows
from esr.errors import EngineError, Halted
from esr.study import older
from esr.study.batches import work
from esr.study.progress import Tick
from esr.types import Reply, Trial

if TYPE_CHECKING:
    from esr.study.study import Study

log = logging.getLogger(__name__)

Keep = Callable[[list[Reply]], object]


def replies(study: "Study", trials: Sequence[Trial], stage: str = "steer") -> int:
    """Generates what the store lacks; how many that were."""
    ids = [trial.id for trial in trials]
    with study.alone("replies", ids):
        known = study.store.known("replies", ids)
        lacking = list({trial.id: trial for trial in trials if trial.id not in known}.values())
        if lacking and older.replies(study, lacking):
            known = study.store.known("replies", ids)
            lacking = [trial for trial in lacking if trial.id not in known]
        study.progress.stored(stage, len(trials) - len(lacking))
        if not lacking:
            return 0

        def keep(some: list[Reply]) -> None:
            study.store.put_replies(some)
            study.progress.tick(Tick(stage, len(some)))

        w = study.params.work
        adapters = {name: study.params.model(name).adapter or "" for name in {trial.model for trial in lacking}}
        return steer(
            study.engine, lacking, keep, batch=w.batch, in_flight=w.in_flight, go_on=study.progress.go_on, adapters=adapters
        )


def request(trial: Trial, adapter: str = "") -> Request:
    """What an engine is asked; `adapter`: that of the trial's model, where one engine serves several."""
    return Request(
        prompt=trial.prompt,
        prompt_format=trial.prompt_format,
        prefill=trial.prefill,
        sampling=trial.sampling,
        seed=trial.seed,
        ops=trial.ops,
        scope=trial.scope,
        adapter=adapter,
    )


def reply(trial: Trial, output: Output) -> Reply:
    """What the trial got; a steered trial whose intervention touched nothing is refused, unless the reply ended before its positions."""
    ids = (*output.prompt_token_ids, *output.token_ids[:-1])
    where = windows(resolved(trial.ops, trial.scope, len(output.prompt_token_ids)))
    if trial.ops and output.applied == 0 and where.touched(0, len(ids), where.since(ids)):
        raise EngineError(
            f"trial {trial.id} asks for {len(trial.ops)} interventions and the engine applied none; nothing of it is kept"
        )
    return Reply(
        trial_id=trial.id,
        text=output.text,
        token_ids=output.token_ids,
        n_prompt_tokens=len(output.prompt_token_ids),
        finish_reason=output.finish_reason,
        applied=output.applied,
    )


def steer(
    engine: Engine,
    trials: Sequence[Trial],
    keep: Keep,
    *,
    batch: int,
    in_flight: int,
    go_on: Callable[[], None] = lambda: None,
    adapters: Mapping[str, str] = {},
) -> int:
    """The replies of `trials`, kept batch by batch; how many there were. `go_on` may raise before a batch is begun; `adapters` are those
    of the trials' models."""

    halted: list[Halted] = []

    def generate(some: Sequence[Trial]) -> list[Reply]:
        go_on()
        if halted:
            raise halted[0]
        try:
            outputs: Mapping[int, Output] = dict(enumerate(engine.generate([request(t, adapters.get(t.model, "")) for t in some])))
        except Halted as error:  # what had finished is kept like any other
            halted.append(error)
            outputs = error.finished
        return [reply(some[i], output) for i, output in outputs.items()]

    start, n = time.monotonic(), 0
    for replies in work(generate, trials, size=batch, in_flight=in_flight):
        if replies:
            keep(replies)
        n += len(replies)
    if halted:
        raise halted[0]
    log.info("steered %d trials in %.0f s", n, time.monotonic() - start)
    return n
