"""params.yaml read: preset, model and scale laid over the tree, every name and type checked."""

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from esr.errors import ParamsError, one_of
from esr.params.blocks import Block, Params, first
from esr.params.defaults import KINDS, open_up, settle, settled
from esr.params.places import experiments, path
from esr.params.tree import mapping, overlay, read_tree


def load(model: str | None = None, scale: str = "full", *, file: Path | None = None) -> Params:
    """What one run of `model` at `scale` works with. `smollm2:50-1` is a checkpoint of experiment 4: its base's block and numbers with the
    adapter on top."""
    file = file or path()
    tree = read_tree(file, file.stat().st_mtime_ns) if file.is_file() else None
    if tree is None:
        raise ParamsError(f"no parameters at {str(file)!r}; set ESR_PARAMS or run in a checkout")
    base, _, tag = (model or "").partition(":")
    params = parse(tree, base or None, scale, where=file.name)
    return checkpoint(params, base, tag) if tag else params


COURSE = re.compile(r"(?P<steered>steered-)?(?P<ratio>\d+)-(?P<seed>\d+)")
"""How a training is named."""
ADAPTER = "checkpoints/{base}/{tag}/adapter"
"""Where the adapter of a checkpoint lies, by its base and by ratio and seed (`50-1`)."""


def checkpoint(params: Params, base: str, tag: str) -> Params:
    """Params in which the checkpoint is a model beside its base."""
    if not COURSE.fullmatch(tag):
        raise ParamsError(f"{base}:{tag} names no checkpoint; ratio and seed would, such as {base}:50-1")
    return adapted(params, base, f"{base}:{tag}", ADAPTER.format(base=base, tag=tag))


def adapted(params: Params, base: str, name: str, adapter: str | None) -> Params:
    """Params with a model more: the base's block under this name, with the adapter on top."""
    block = params.model(base).model_copy(update={"name": name, "adapter": adapter})
    return params.model_copy(update={"models": {**params.models, name: block}})


def parse(tree: dict[str, Any], model: str | None, scale: str, *, where: str = "params.yaml") -> Params:
    """`tree` with preset, model and scale overlaid, every name and type checked."""
    base = {key: value for key, value in tree.items() if key not in OVERLAYS}
    groups = {key: mapping(tree.get(key) or {}, key, where) for key in OVERLAYS}
    for group in KINDS:
        blocks = mapping(base.get(group, {} if group == "directions" else None), group, where)
        base[group] = {name: {**mapping(block, f"{group}.{name}", where), "name": name} for name, block in blocks.items()}
        for name, block in base[group].items():
            _known(block, KINDS[group], f"{group}.{name}", where)
        base[group] = {name: open_up(group, block) for name, block in base[group].items()}
    for name in [name for name in experiments() if name in base]:
        mapping(base[name], name, where)
    for key, field in Params.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Block) and key in base:
            _known(mapping(base[key], key, where), field.annotation, key, where)
    for ours in ("scale", "experiments"):
        if ours in tree:
            raise ParamsError(one_of("key", ours, sorted(tree), where))
    _names_exist(tree, groups, model, scale, list(base["models"]), where)
    for group, overlays in groups.items():
        for name, over in overlays.items():
            overlay(base, over, f"{group}.{name}", where)
    base = overlay(base, groups["presets"][tree["preset"]], f"presets.{tree['preset']}", where)
    for name, block in base["models"].items():
        laid = overlay(base, {"protocol": block.get("protocol", {})}, f"models.{name}", where)
        base = laid if name == model else base
    if model is not None:
        base = overlay(base, groups["by_model"].get(model), f"by_model.{model}", where)
    base = overlay(base, groups["scales"][scale], f"scales.{scale}", where)
    base["models"] = {name: settle(block, base["saes"], where) for name, block in base["models"].items()}
    base["directions"] = {name: settled(block) for name, block in base["directions"].items()}
    base["experiments"] = {name: base.pop(name) for name in experiments() if name in base}
    try:
        params = Params.model_validate_json(json.dumps({**base, "scale": scale}, default=repr), strict=True)
    except ValidationError as error:
        raise ParamsError(first(error, where, Params)) from None
    _check(params, where)
    return params


def _known(block: dict[str, Any], kind: type[BaseModel], spot: str, where: str) -> None:
    """A key that no block of this kind has is said before any overlay can stumble over the one that it was meant to be."""
    keys = [name for name in kind.model_fields if name != "name"]
    for key, value in block.items():
        if key not in kind.model_fields:
            raise ParamsError(one_of("key", f"{spot}.{key}", [f"{spot}.{name}" for name in keys], where))
        inner = kind.model_fields[key].annotation
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, BaseModel):
            _known(value, inner, f"{spot}.{key}", where)


def _names_exist(
    tree: dict[str, Any], groups: dict[str, dict[str, Any]], model: str | None, scale: str, models: list[str], where: str
) -> None:
    if "preset" not in tree:
        raise ParamsError(f"{where} lacks the key 'preset'; add it")
    if model is not None and model not in models:
        raise ParamsError(one_of("model", model, models, where))
    for kind, name, known in (("preset", str(tree["preset"]), groups["presets"]), ("scale", scale, groups["scales"])):
        if name not in known:
            raise ParamsError(one_of(kind, name, list(known), where))
    for name in groups["by_model"]:
        if name not in models:
            raise ParamsError(one_of("model", name, models, f"by_model of {where}"))


OVERLAYS = ("presets", "scales", "by_model")


def _check(params: Params, where: str) -> None:
    """What ties one block to another."""
    for model in params.models.values():
        sae = params.sae(model.sae)
        params.judge(model.judge)
        if model.directions is not None and (beyond := max(params.directions_of(model.directions).layers)) >= model.layers:
            raise ParamsError(
                f"{where}: directions.{model.directions}.layers has {beyond} and the model {model.name!r} has {model.layers} layers"
            )
        if sae.d_in != model.width:
            raise ParamsError(f"{where}: SAE {sae.name!r} reads {sae.d_in} dimensions and model {model.name!r} has {model.width}")
        for role in ("steer_layer", "read_layer", "ablate_layer"):
            layer = getattr(model, role)
            if not layer < model.layers:
                raise ParamsError(f"{where}: models.{model.name}.{role} is {layer} and the model has {model.layers} layers")
            if layer != sae.layer and not model.allow_layer_mismatch:
                raise ParamsError(
                    f"{where}: models.{model.name}.{role} is {layer} but SAE {sae.name!r} was trained at {sae.layer}; "
                    "set allow_layer_mismatch: true if that is meant"
                )
    for name in (params.judging.concreteness_judge, params.judging.annotation_judge):
        params.judge(name)
