"""What a block of params.yaml may leave out: filled in twice, before overlays so that they find every key, and after them.

A default that follows from another value (a layer from the SAE, the middle of the search's bounds) stays open until the overlays
have had their say.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from esr.errors import ParamsError, one_of
from esr.params.blocks import DirectionsParams, JudgeParams, ModelParams, SaeParams, Search
from esr.params.places import resolve

KINDS: dict[str, type[BaseModel]] = {
    "models": ModelParams, "saes": SaeParams, "directions": DirectionsParams, "judges": JudgeParams,
}  # fmt: skip
LAYERS = ("steer_layer", "read_layer", "ablate_layer")


def open_up(group: str, block: Mapping[str, Any]) -> dict[str, Any]:
    """The block with every key that it may leave out; what follows from another value is None for now."""
    filled = {**_defaults(KINDS[group]), **block}
    if group in ("models", "directions") and isinstance(filled.get("search"), dict):
        filled["search"] = {**_defaults(Search), **filled["search"]}
    return filled


def _defaults(kind: type[BaseModel]) -> dict[str, Any]:
    return {name: field.get_default() for name, field in kind.model_fields.items() if not field.is_required()}


def settle(model: dict[str, Any], saes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A model's block after the overlays: what still is open follows from its SAE, its search bounds and its folder."""
    settled = dict(model)
    name = model.get("sae")
    if isinstance(name, str) and name not in saes:
        raise ParamsError(one_of("SAE", name, list(saes), where))
    sae = saes.get(str(name))
    layer = sae.get("layer") if isinstance(sae, dict) else None
    for name in LAYERS:
        if settled.get(name) is None and layer is not None:
            settled[name] = layer
    if settled.get("revision") is None:
        hub = settled.get("hub")
        settled["revision"] = "local" if isinstance(hub, str) and (resolve(hub) / "config.json").is_file() else "main"
    search = settled.get("search")
    if isinstance(search, dict):
        settled["search"] = _search(search)
    return settled


def settled(block: dict[str, Any]) -> dict[str, Any]:
    """A set's block after the overlays."""
    search = block.get("search")
    return {**block, "search": _search(search)} if isinstance(search, dict) else block


def _search(search: dict[str, Any]) -> dict[str, Any]:
    """Without a prior it is the middle of the bounds, with half of their distance as its spread."""
    lower, upper = search.get("lower"), search.get("upper")
    if not isinstance(lower, (int, float)) or not isinstance(upper, (int, float)):
        return search
    follow = {"prior_mean": (lower + upper) / 2, "prior_std": (upper - lower) / 2}
    return {**search, **{name: value for name, value in follow.items() if search.get(name) is None}}
