"""Each request on its way in: checked, made canonical, and set apart in the prefix cache. A ValueError here is HTTP 400."""

from copy import copy
from functools import cache
from typing import Any

from esr.engine.admission import check_marker, check_size
from esr.engine.plugin import mark, wire
from esr.engine.plugin.mark import SESSION
from esr.engine.plugin.spec import FIELD, KEY, SALT, Sites, parse
from esr.errors import SpecError

_SITES: list[tuple[object, Sites]] = []
"""Each engine's block of this process and what it says."""


def sites_of(config: Any) -> Sites:
    block = (config.additional_config or {}).get(KEY)
    if not block:
        raise SpecError(f"the request asks for steering and this engine has none; start it with additional_config[{KEY!r}]")
    for known, sites in _SITES:
        if known is block:
            return sites
    _SITES.append((block, Sites.parse(block)))
    return _SITES[-1][1]


def admit(config: Any, request: Any) -> None:
    """Of a request that vLLM's own front end has laid out; one without a spec is left as it is."""
    params = request.sampling_params
    if (request.cache_salt or "").startswith(SALT):
        raise refusal(f"a `cache_salt` that begins with {SALT!r} is set for steered requests; choose another")
    if params is None or not params.extra_args:
        return
    try:
        wire.check_keys({key: value for key, value in params.extra_args.items() if key != mark.MARK}, "extra_args")
        if FIELD in params.extra_args:
            _admit(config, request)
    except SpecError as error:
        raise refusal(str(error)) from None


def recheck(config: Any, request: Any, params: Any = None) -> None:
    """Of a request on its way to the engine, wherever it comes from; params: what else was handed over with it."""
    try:
        if FIELD in (getattr(request.sampling_params, "extra_args", None) or ()):
            mark.check_request(request, sites_of(config))
        elif FIELD in (getattr(params, "extra_args", None) or ()):
            raise SpecError("a request that was built before takes no steering spec; hand over the prompt itself")
    except SpecError as error:
        raise refusal(str(error)) from None


def refusal(message: str) -> SpecError:
    """A SpecError that is also of the kind for which vLLM's server, of each version, answers 400 and not 500."""
    return _kind()(message)


@cache
def _kind() -> type[SpecError]:
    from vllm.exceptions import VLLMValidationError

    class Refusal(SpecError, VLLMValidationError):
        __str__ = Exception.__str__

        def __init__(self, message: str) -> None:
            Exception.__init__(self, message)
            self.parameter, self.value = FIELD, None

    return Refusal


def _admit(config: Any, request: Any) -> None:
    params = request.sampling_params = copy(request.sampling_params)  # which the caller may use for another request
    sites = sites_of(config)
    model = config.model_config
    text = wire.spec(params.extra_args[FIELD])
    spec = parse(text, sites, layers=model.get_total_num_hidden_layers(), width=model.get_hidden_size())
    if request.prompt_embeds is not None:
        raise SpecError("steering takes token ids, not prompt embeddings")
    if request.resumable:
        raise SpecError(SESSION)
    n_prompt = len(request.prompt_token_ids)
    rows = min(n_prompt + (params.max_tokens or model.max_model_len), model.max_model_len)
    entries = spec.check(sites, n_prompt, rows - 1)
    check_marker(entries, model.get_vocab_size())
    if spec.capture is not None:
        wide = model.get_hidden_size() if spec.capture.mode == "residual" else sites.sae(spec.capture.sae).d_sae
        check_size(spec.capture, wide, n_prompt, rows)
    if spec.id and params.n > 1:
        raise SpecError(f"an `id` names one reply and n is {params.n}; send {params.n} requests")
    request.cache_salt = spec.salt(sites, request.cache_salt, entries)
    if spec.capture is not None:
        params.skip_reading_prefix_cache = True
    params.extra_args = mark.seal({**params.extra_args, FIELD: spec.as_json(n_prompt)}, request.cache_salt, n_prompt, sites)
