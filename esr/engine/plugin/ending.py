"""Requests that a worker cannot serve as asked end in an error, and nothing of them stays in the prefix cache."""

from collections.abc import Iterable, Mapping
from typing import Any

SALTS = "esr_salts"
"""On a scheduler: of its last requests that are steered, by name, what sets them apart in the prefix cache."""
KNOWN = 4096
"""So many of them."""


def remember(scheduler: Any, request: Any) -> None:
    """A steered request enters."""
    salts: dict[str, str] = scheduler.__dict__.setdefault(SALTS, {})
    salts[request.request_id] = request.cache_salt or ""
    if len(salts) > KNOWN:
        del salts[next(iter(salts))]


def end(scheduler: Any, out: Any, failed: Mapping[str, str]) -> None:
    """Before the scheduler looks at what a step brought: by the way of requests whose grammar could not be compiled.

    The tokens of the step are taken away, since a request that they complete would be answered before its error is looked at.
    Requests that may have read blocks of a failed one end with it.
    """
    here = [name for name in failed if name in scheduler.requests]
    gone = {scheduler.__dict__.get(SALTS, {}).get(name) for name in failed if name not in scheduler.requests}
    pool = scheduler.kv_cache_manager.block_pool
    blocks = {block for name in here for block in _blocks(scheduler, name)}
    for name, request in scheduler.requests.items():
        alike = bool(request.cache_salt) and request.cache_salt in gone
        if name in failed or alike or not blocks.isdisjoint(_blocks(scheduler, name)):
            scheduler.grammar_compile_error_reqs.add(name)
            _silence(out, name)
    pool.evict_blocks(blocks if len(here) == len(failed) else set(range(len(pool.blocks))))


def _blocks(scheduler: Any, name: str) -> Iterable[int]:
    manager = scheduler.kv_cache_manager
    nothing = manager.block_pool.null_block.block_id
    return [block for group in manager.get_block_ids(name) for block in group if block != nothing]


def _silence(out: Any, name: str) -> None:
    at = out.req_id_to_index.get(name)
    if at is not None and out.sampled_token_ids:
        out.sampled_token_ids = [[] if i == at else tokens for i, tokens in enumerate(out.sampled_token_ids)]
    for said in (out.prompt_logprobs_dict, getattr(out, "prompt_token_id_logprobs_dict", {})):
        said.pop(name, None)
