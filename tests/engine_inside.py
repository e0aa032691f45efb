"""vLLM inside this process, so that a fault can be put into its worker, with the checks that the production engine makes."""

import uuid
from collections.abc import Sequence
from typing import Any

from esr.engine import Output, Request
from esr.engine.chat import Chat
from esr.engine.plugin import Spec
from esr.engine.taken import Taken, applied
from esr.errors import EngineError


class Checked:
    """What `Talks` asks of an engine, answered by an `LLM` of this process."""

    def __init__(self, llm: Any, chat: Chat) -> None:
        self.llm, self.chat = llm, chat

    def render(self, prompt: str) -> tuple[int, ...]:
        return self.chat.render(prompt)

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        from vllm import SamplingParams, TokensPrompt

        specs = [Spec(ops=request.ops, scope=request.scope, id=uuid.uuid4().hex if request.ops else "") for request in requests]
        params = [
            SamplingParams(
                temperature=0, max_tokens=request.sampling.max_tokens, ignore_eos=True, stop_token_ids=list(self.chat.stop_ids),
                extra_args={"sae": spec.as_json()} if spec.ops else None,
            )
            for request, spec in zip(requests, specs, strict=True)
        ]  # fmt: skip
        prompts = [TokensPrompt(prompt_token_ids=list(request.token_ids)) for request in requests]
        found = self.llm.generate(prompts, params, use_tqdm=False)
        return [self._output(request, spec, reply) for request, spec, reply in zip(requests, specs, found, strict=True)]

    def _output(self, request: Request, spec: Spec, reply: Any) -> Output:
        one, ids = reply.outputs[0], request.token_ids
        if one.finish_reason not in ("stop", "length"):
            raise EngineError(f"a request ended with {one.finish_reason!r}")
        whole = (*ids, *one.token_ids)[:-1]
        [[taken]] = self.llm.collective_rpc("esr_take", args=([spec.id], [len(whole)])) if spec.id else [[None]]
        count = applied(spec, Taken(**taken) if taken else None, whole, len(ids), reply.num_cached_tokens or 0)
        return Output(
            text="",
            token_ids=tuple(one.token_ids),
            prompt_token_ids=ids,
            finish_reason=one.finish_reason,
            applied=count,
            reading=None,
        )

    def forget(self) -> None:
        """A request that was refused on its way in, what is in the prefix cache, and that the worker counted wrong, which it finds as
        the last request leaves it."""
        engine = self.llm.llm_engine
        engine.abort_request(list(engine.output_processor.request_states), internal=True)
        engine.step()
        [state] = self.llm.collective_rpc("esr_state")
        state.synchronize()
        state.failed = ""
        assert self.llm.reset_prefix_cache()
