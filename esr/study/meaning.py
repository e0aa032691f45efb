"""What stands behind the names in a study's trials, beside the weights: part of every trial's identity.

`chat` is a digest of what is rendered around a prompt; `saes` tells the content of the model's SAE, and a trial rests on those that
its ops name; `room` is the length that prompt, prefill and reply may share before the model's length could cut the reply, counted in
bytes and so without a tokenizer, and a trial that fits is none of its business. How the work is cut and spread changes no token and
is no part of it.
"""

import json
from collections.abc import Mapping

from esr.engine.chat import overhead, rendering
from esr.params import Params
from esr.sae.content import content


def of(params: Params, model: str, *, fetch: bool = True, directions: Mapping[str, str] | None = None) -> str:
    """The meaning of a whole study; `Trial.meant` takes of it what a trial rests on. Without `fetch` nothing is downloaded for it.
    `directions`: the hash of each set that may be steered along, by name; a set is told of as an SAE is."""
    m = params.model(model)
    told = {
        "chat": rendering(m.family),
        "room": m.max_model_len - overhead(m.family),
        "saes": {m.sae: content(params.sae(m.sae), fetch=fetch), **(directions or {})},
    }
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def covers(meaning: str, part: str) -> bool:
    """Whether a trial that rests on `part` is one of a study of this meaning."""
    whole, told = json.loads(meaning), json.loads(part)
    same = all(told[name] == whole[name] for name in ("chat", "room") if name in told)
    return same and all(whole["saes"].get(name) == one for name, one in told.get("saes", {}).items())
