"""A checkpoint: a LoRA adapter with what it was made from beside it, and whether it is one that this study can serve.

checkpoints/tiny-plain/50-1/adapter/    adapter_config.json, adapter_model.safetensors: what an engine is given
                           loss.csv    step, epoch, loss, eval_loss, learning_rate
                           about.json  base, hashes of mixture and recipe, versions, steps, seconds
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esr.engine.adapter import CONFIG, WEIGHTS, Adapter
from esr.errors import DataError
from esr.params import ModelParams, Params
from esr.params.load import adapted
from esr.params.weights import file_digest, identity
from esr.tune.places import Course, Places, stage

ABOUT, LOSS, ADAPTER = "about.json", "loss.csv", "adapter"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One that has been checked."""

    name: str
    """As a model of params: `tiny-plain:50-1`."""
    course: Course
    adapter: str
    """Its folder, relative to the checkout. Empty with the fake engine, which has no weights to adapt."""


def name(model: str, course: Course) -> str:
    return f"{model}:{course}"


def opened(params: Params, places: Places, course: Course) -> Checkpoint:
    """The checkpoint where it lies, checked against its base."""
    folder = places.checkpoint(course)
    if not (folder / ABOUT).is_file():
        where = places.relative(folder)
        raise DataError(
            f"no checkpoint in {where}; `dvc pull {stage(places.model, course)}` fetches it and `dvc repro` of it makes it"
        )
    check(params, params.model(places.model), folder)
    return Checkpoint(name(places.model, course), course, places.relative(folder / ADAPTER))


def made_from(params: Params, places: Places, course: Course) -> dict[str, str]:
    """What a training depends on as it lies here; a file that does not has no part in it."""
    files = {"recipe": places.recipe(course), "mixture": places.mixture(course.ratio)}
    return {kind: file_digest(file) for kind, file in files.items() if file.is_file()} | {"base": identity(params, places.model)}


def differs(params: Params, places: Places, course: Course) -> list[str]:
    """What has changed since the checkpoint was made, of what lies here: its recipe, its mixture, its base."""
    about = read(places.checkpoint(course))
    return [kind for kind, digest in made_from(params, places, course).items() if about.get(kind) != digest]


def check(params: Params, model: ModelParams, folder: Path) -> None:
    """That it was trained on this base, that peft can put it on, that vLLM can serve its rank."""
    from esr.engine.options import lora

    about = read(folder)
    base = identity(params, model.name)
    if about.get("base") != base:
        raise DataError(
            f"the checkpoint {folder.name!r} was trained on {about.get('base')!r} and {model.name!r} is {base!r}; train it anew"
        )
    lora([Adapter.of(str(folder / ADAPTER))])
    fits(model, folder / ADAPTER)


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return found


def fits(model: ModelParams, adapter: Path) -> None:
    """Held against the base as peft would put it on: every tensor has its place and its shape, and is finite. The base's weights are
    not read, so that this costs the same for any size."""
    import torch
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    from esr.params import resolve

    local = resolve(model.hub)
    config = AutoConfig.from_pretrained(local if local.is_dir() else model.hub)
    with torch.device("meta"):
        auto: Any = AutoModelForCausalLM
        bare = auto.from_config(config)
        put_on: Any = get_peft_model(bare, PeftConfig.from_pretrained(str(adapter)))
    wanted = {key: tuple(value.shape) for key, value in get_peft_model_state_dict(put_on, save_embedding_layers=False).items()}
    tensors = load_file(adapter / WEIGHTS[0])
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    if wanted != found:
        odd = sorted(set(wanted.items()) ^ set(found.items()))[0]
        raise DataError(
            f"the adapter in {adapter.parent.name!r} does not fit {model.name!r}: {odd[0]} is {list(odd[1])} in one of them; train it on this base"
        )
    broken = sorted(key for key, value in tensors.items() if not bool(value.isfinite().all()))
    if broken:
        raise DataError(
            f"the adapter in {adapter.parent.name!r} holds numbers that are not finite, in {broken[0]}; its training diverged, so lower learning_rate"
        )


def with_checkpoints(params: Params, model: str, found: list[Checkpoint]) -> Params:
    """Params in which each checkpoint is a model of its own: its base's block with the adapter on top. All share one engine."""
    for one in found:
        params = adapted(params, model, one.name, one.adapter or None)
    return params


__all__ = ["CONFIG", "Checkpoint", "check", "differs", "fits", "made_from", "name", "opened", "read", "with_checkpoints"]
