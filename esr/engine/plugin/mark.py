"""The mark that admission leaves on a request, without which nothing is steered.

It is a keyed digest over the spec as admission wrote it, the salt that it set and the prompt's length. Whatever reaches the engine
past admission has none, and whatever copies one onto another request, another salt or another prompt has a wrong one. The key
comes from the sites, so every process of an engine has it; it guards against accidents, not against someone who means to forge.
"""

import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from esr.engine.plugin.spec import FIELD, FORMAT, Sites
from esr.errors import SpecError

MARK = "sae_admitted"
"""In `extra_args`, beside the spec."""
KNOWN, SHORT = 4096, 4096
"""Digests kept, of texts of so many characters: where the engine's process is the worker's too, each is asked for twice."""
SESSION = "a session of streamed inputs takes no steering spec, since its chunks would share one prefix cache"


def seal(extra: Mapping[str, Any], salt: str | None, n_prompt: int, sites: Sites) -> dict[str, Any]:
    """`extra` with the mark of its spec; what was there as a mark goes."""
    return {**extra, MARK: f"{_digest(extra[FIELD], salt, n_prompt, sites.digest)}:{'' if salt is None else '=' + salt}"}


def check(extra: Mapping[str, Any] | None, n_prompt: int, sites: Sites) -> None:
    """A spec of a request, if there is one, was admitted for a prompt of this length."""
    if not extra or FIELD not in extra:
        return
    text, mark = extra[FIELD], extra.get(MARK)
    if not (isinstance(mark, str) and isinstance(text, str)):
        raise SpecError("a steering spec came past admission and is not applied; send it through vLLM's own front end")
    digest, _, salt = mark.partition(":")
    if not hmac.compare_digest(digest.encode(), _digest(text, salt[1:] if salt else None, n_prompt, sites.digest).encode()):
        raise SpecError("a steering spec has the mark of another request and is not applied; send it through vLLM's own front end")


def check_request(request: Any, sites: Sites) -> None:
    """The same of a whole EngineCoreRequest, whose salt must be the one that admission set."""
    params = request.sampling_params
    extra = params.extra_args if params is not None else None
    if not extra or FIELD not in extra:
        return
    if request.resumable:
        raise SpecError(SESSION)
    check(extra, len(request.prompt_token_ids or ()), sites)
    salt = extra[MARK].partition(":")[2]
    if (salt[1:] if salt else None) != request.cache_salt:
        raise SpecError("a steered request has another cache_salt than admission set and is not applied")


def _digest(text: str, salt: str | None, n_prompt: int, sites: str) -> str:
    return (_kept if len(text) <= SHORT else _made)(text, salt, n_prompt, sites)


def _made(text: str, salt: str | None, n_prompt: int, sites: str) -> str:
    key = f"esr {FORMAT} {sites}".encode()
    return hashlib.blake2b(f"{(salt, n_prompt)!r}{text}".encode(), key=key, digest_size=16).hexdigest()


_kept = lru_cache(maxsize=KNOWN, typed=True)(_made)
