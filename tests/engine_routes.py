"""Every route of vLLM's server that takes a body, what it does with a steering spec, and a body that it takes without one."""

from dataclasses import dataclass
from typing import Any

CHAT = [{"role": "user", "content": "How do I whittle a spoon?"}]


@dataclass(frozen=True, slots=True)
class Route:
    """What becomes of a spec in one route, as docs/engine.md has it."""

    newest: str
    """vLLM 0.32: steers · refuses · reads none (no body is read, nothing is generated)."""
    oldest: str
    """vLLM 0.26; — where there is no such route."""
    body: dict[str, Any]
    field: str = "vllm_xargs"

    @property
    def here(self) -> str:
        """With the vLLM that is installed."""
        from vllm import __version__

        return self.oldest if __version__.startswith("0.26.") else self.newest


ROUTES = {
    "/v1/chat/completions": Route("steers", "steers", {"messages": CHAT, "max_tokens": 4}),
    "/v1/completions": Route("steers", "steers", {"prompt": [1, 3, 4], "max_tokens": 4}),
    "/v1/responses": Route("steers", "steers", {"input": "Why is the sky blue?", "max_output_tokens": 4}),
    "/v1/messages": Route("steers", "refuses", {"messages": CHAT, "max_tokens": 4}),
    "/v1/chat/completions/batch": Route("steers", "steers", {"messages": [CHAT, CHAT], "max_tokens": 4}),
    "/invocations": Route("steers", "steers", {"messages": CHAT, "max_tokens": 4}),
    "/inference/v1/generate": Route(
        "steers", "steers", {"token_ids": [1, 3, 4], "sampling_params": {"max_tokens": 4}}, "sampling_params.extra_args"
    ),
    "/generative_scoring": Route("refuses", "refuses", {"query": [1, 3, 4], "items": [[5, 6], [7]], "label_token_ids": [8, 9]}),
    "/v1/systemone": Route("refuses", "—", {"state": "It rains.", "questions": {"wet": {"type": "noyes"}}}),
    "/v1/messages/count_tokens": Route("refuses", "refuses", {"messages": CHAT}),
    "/v1/chat/completions/render": Route("refuses", "refuses", {"messages": CHAT}),
    "/v1/completions/render": Route("refuses", "refuses", {"prompt": [1, 3, 4]}),
    "/v1/messages/render": Route("refuses", "—", {"messages": CHAT, "max_tokens": 4}),
    "/v1/responses/render": Route("refuses", "—", {"input": "Why?"}),
    "/v1/chat/completions/derender": Route("refuses", "refuses", {"generate_response": {}}),
    "/v1/completions/derender": Route("refuses", "refuses", {"generate_response": {}}),
    "/tokenize": Route("refuses", "refuses", {"prompt": "Hello"}),
    "/detokenize": Route("refuses", "refuses", {"tokens": [1, 3, 4]}),
    "/ping": Route("reads none", "reads none", {}),
    "/v1/responses/{response_id}/cancel": Route("reads none", "reads none", {}),
    "/scale_elastic_ep": Route("refuses", "refuses", {}),
    "/is_scaling_elastic_ep": Route("reads none", "reads none", {}),
    "/v1/sae/directions": Route("refuses", "refuses", {}),
    "/inference/v1/abort_requests": Route("refuses", "—", {"request_ids": []}),
}
DROPS = "/generative_scoring"
"""Answers from the model and knows no vllm_xargs."""


def with_spec(route: Route, spec: str) -> dict[str, Any]:
    if route.field == "vllm_xargs":
        return route.body | {"vllm_xargs": {"sae": spec}}
    return route.body | {"sampling_params": {**route.body["sampling_params"], "extra_args": {"sae": spec}}}
