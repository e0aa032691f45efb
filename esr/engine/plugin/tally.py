"""What one HTTP request had steered: its sequences as they enter the engine, how long they become, what the device counted.

A server's handlers run in the request's own context, so a context variable says whose a sequence is.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from esr.engine.plugin import mark
from esr.engine.plugin.admission import refusal, sites_of
from esr.engine.plugin.desk import Desk
from esr.engine.plugin.spec import FIELD, Admitted, Spec
from esr.engine.plugin.text import dumps, loads
from esr.errors import EngineError

NOW: "ContextVar[Tally | None]" = ContextVar("esr_tally", default=None)


@dataclass(slots=True)
class Sequence:
    id: str
    """By which the workers keep its counts."""
    request: str
    """vLLM's name for it."""
    named: bool
    """By the client, who may come for a capture."""
    spec: Spec
    prompt: list[int]
    hashes: Mapping[str, str]
    """Of the sets of directions that it names."""
    cached: int
    """Tokens of the prompt that need not have been computed."""
    reply: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Tally:
    """One HTTP request."""

    config: Any
    """vLLM's, of the engine behind the server."""
    owner: str
    """Before every id, so that nobody reaches another's captures."""
    sequences: dict[tuple[str, int], Sequence] = field(default_factory=dict)
    """By the request's outer name and the number of the reply."""
    counted: bool = False

    def enter(self, request: Any, index: int, *, alone: bool) -> None:
        """An admitted request of vLLM's, about to be sent: the workers shall keep its counts under a name of its own."""
        params = request.sampling_params = copy(request.sampling_params)
        block = loads(params.extra_args[FIELD])
        named = bool(block.get("id"))
        id = block["id"] = f"{self.owner}:{block['id']}" if named else request.request_id
        if any(id == other.id for other in self.sequences.values()):
            raise refusal("an `id` names one reply and this request has several prompts; send one request each")
        text, sites = dumps(block), sites_of(self.config)
        n_prompt, spec = len(request.prompt_token_ids), Admitted.read(text).spec
        params.extra_args = mark.seal({**params.extra_args, FIELD: text}, request.cache_salt, n_prompt, sites)
        # of several replies to one prompt vLLM says only for one how much was cached
        cached = 0 if alone else n_prompt
        self.sequences[request.external_req_id, index] = Sequence(
            id, request.request_id, named, spec, request.prompt_token_ids, spec.hashes(sites), cached
        )

    def follow(self, name: str, output: Any, *, whole: bool) -> None:
        """An output on its way to the client; whole: it has the reply from its start, not from the last output on."""
        for part in output.outputs:
            sequence = self.sequences.get((name, part.index))
            if sequence is not None:
                if whole:
                    sequence.reply.clear()
                sequence.reply.extend(part.token_ids)
                sequence.cached = max(sequence.cached, output.num_cached_tokens or 0)

    async def applied(self, desk: Desk) -> dict[str, Any]:
        """Positions times blocks: due in all sequences, done by the device, read from the prefix cache; and the hashes of the
        directions that were used. EngineError where the numbers do not add up."""
        from esr.engine.plugin.records import BROKEN
        from esr.engine.taken import Taken, applied

        due = done = 0
        hashes: dict[str, str] = {}
        for sequence in self.sequences.values():
            found = await desk.count(sequence.id, keep=sequence.named)
            if found is None or found.pop("request") != sequence.request:
                raise EngineError("the workers keep no count of this reply; was its `id` used for another at the same time?")
            taken = Taken(**found, capture=None)
            if taken.error == BROKEN:
                raise EngineError(f"a request failed: {taken.error}")
            ids = (*sequence.prompt, *sequence.reply[:-1])
            here = applied(sequence.spec, taken, ids, len(sequence.prompt), sequence.cached)
            due, done = due + here, done + min(here, taken.executed)
            hashes |= sequence.hashes
        self.counted = True
        return {"due": due, "done": done, "cached": due - done} | ({"directions": hashes} if hashes else {})

    async def leave(self, desk: Desk, *, failed: bool) -> None:
        """Nobody will ask for what has no name or was not answered."""
        ids = [sequence.id for sequence in self.sequences.values() if failed or not (sequence.named or self.counted)]
        if ids:
            await desk.forget(ids)


def entering(plain: Any) -> Any:
    """Of OutputProcessor.add_request, through which every sequence of a server passes just before it is sent."""

    def add_request(
        self: Any, request: Any, prompt: Any, parent_req: Any = None, request_index: int = 0, queue: Any = None
    ) -> None:  # fmt: skip
        tally, params = NOW.get(), request.sampling_params
        if tally is not None and params is not None and FIELD in (params.extra_args or {}):
            tally.enter(request, request_index, alone=parent_req is None)
        plain(self, request, prompt, parent_req, request_index, queue)

    return add_request


def following(plain: Any) -> Any:
    """Of AsyncLLM.generate, whose outputs say how long a reply is and what was cached."""

    def generate(self: Any, prompt: Any, sampling_params: Any, request_id: str, *args: Any, **kwargs: Any) -> Any:
        outputs = plain(self, prompt, sampling_params, request_id, *args, **kwargs)
        tally = NOW.get()
        return outputs if tally is None else _followed(outputs, tally, request_id, sampling_params)

    return generate


async def _followed(outputs: Any, tally: Tally, name: str, params: Any) -> AsyncGenerator[Any, None]:
    from vllm.sampling_params import RequestOutputKind

    async with aclosing(outputs):
        async for output in outputs:
            tally.follow(name, output, whole=params.output_kind != RequestOutputKind.DELTA)
            yield output
