"""params.yaml, typed on load and frozen: every number and name of the study.

`load("70b", scale="smoke")` overlays, in this order, the preset, the scale, `by_model[70b]` … on the tree and returns what one
run works with. Scales overlay last, so a smoke run stays small for every model. Python holds no scientific default.
"""

import json
import os
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from esr.errors import ParamsError, one_of
from esr.params.tree import mapping, overlay, read_tree
from esr.types import Sampling, content_id

HOME = Path(__file__).resolve().parents[2]
"""The checkout: params.yaml and store/ live here unless $ESR_PARAMS and $ESR_STORE say otherwise."""


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Protocol(Block):
    target: float = Field(gt=0, lt=1)
    search_steps: int = Field(ge=1)
    samples_per_step: int = Field(ge=1)
    search_mode: Literal["adaptive", "reference"]
    early_stop: float = Field(ge=0)
    verify_samples: int = Field(ge=0)
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    max_tokens: int = Field(ge=1)
    search_max_tokens: int = Field(ge=1)
    prompt_format: Literal["clean", "double_header"]
    scope: str = Field(pattern=r"^(all|prompt|generated|\[\d+,\d+\))$")
    n_seeds: int = Field(ge=1)
    concreteness: str = Field(pattern=r"^(off|median|threshold\(\d+(\.\d+)?\))$")
    relevance: str = Field(pattern=r"^(off|zero_activation|topk\(\d+\))$")
    candidates_per_latent: int = Field(ge=1)
    exclude_degraded: bool
    degraded_run: int = Field(ge=2)
    bootstrap_draws: int = Field(ge=1)
    confidence: float = Field(gt=0, lt=1)


class Search(Block):
    lower: float
    upper: float
    prior_mean: float
    prior_std: float = Field(gt=0)

    @model_validator(mode="after")
    def bounds_in_order(self) -> "Search":
        if not self.lower < self.upper:
            raise ValueError(f"search bounds are not in order: {self.lower} and {self.upper}")
        if not self.lower <= self.prior_mean <= self.upper:
            raise ValueError(f"prior_mean {self.prior_mean} is outside the bounds {self.lower} to {self.upper}")
        return self


class SaeParams(Block):
    name: str
    loader: Literal["goodfire", "saelens", "folder"]
    repo: str | None = None
    """Hub repository (goodfire) or folder."""
    file: str | None = None
    release: str | None = None
    id: str | None = None
    layer: int = Field(ge=0)
    """Block whose output it was trained on."""
    d_in: int = Field(ge=1)
    d_sae: int = Field(ge=1)
    labels: str | None = None
    """CSV with index_in_sae,label; relative to the checkout or the store."""


class ModelParams(Block):
    name: str
    hub: str
    """Hub id, or a folder relative to the checkout."""
    revision: str
    family: Literal["llama3", "gemma2", "tiny"]
    """Chooses the chat rendering; never guessed from a path."""
    layers: int = Field(ge=1)
    width: int = Field(ge=1)
    dtype: Literal["float32", "bfloat16", "float16"]
    quantization: str | None
    max_model_len: int = Field(ge=16)
    sae: str
    steer_layer: int = Field(ge=0)
    read_layer: int = Field(ge=0)
    ablate_layer: int = Field(ge=0)
    allow_layer_mismatch: bool
    repetition_penalty: float = Field(gt=0)
    search: Search
    judge: str
    reference_names: tuple[str, ...]
    """What the authors' files call this model."""
    adapter: str | None = None
    """Folder of a LoRA adapter served on top."""
    tensor_parallel: int = Field(default=1, ge=1)
    protocol: dict[str, Any] = {}
    """Overlay on `protocol` for this model."""
    tokens_per_second: float | None = Field(default=None, gt=0)
    """Rough, with the batch full; for `plan` alone."""

    @property
    def weights(self) -> str:
        """What determines the replies beside the prompt and the ops; part of every trial's identity."""
        return f"{self.hub}@{self.revision}/{self.dtype}/{self.quantization or 'plain'}/{self.adapter or 'base'}"


class JudgeParams(Block):
    name: str
    client: Literal["anthropic", "litellm", "lexical"]
    model: str
    max_tokens: int
    concurrency: int = Field(ge=1)
    per_minute: int = Field(ge=0)
    """Calls a minute over all processes of one machine; 0: no limit."""
    timeout: float = Field(ge=0)
    price_in: float | None
    price_out: float | None
    price_in_batch: float | None = None
    price_out_batch: float | None = None
    api_base: str | None = None
    """Base URL of an OpenAI-compatible or Anthropic-compatible endpoint."""
    key_env: str | None = None
    """Environment variable (or line of .env) that holds the key; null: the endpoint needs none."""
    structured: bool = False
    """The provider takes a JSON schema; otherwise the judge writes its JSON between tags."""
    temperature: float | None = None
    """null: none is sent, as Claude's interface demands."""
    reference_names: tuple[str, ...] = ()


class Judging(Block):
    mode: Literal["live", "batch", "cache-only"]
    blind: bool
    max_cost: float | None
    attempts: int = Field(ge=1)
    concreteness_judge: str
    annotation_judge: str


class Work(Block):
    shard: int = Field(ge=1)
    judge_shard: int = Field(ge=1)
    calibrate_shard: int = Field(ge=1)
    batch: int = Field(ge=1)
    in_flight: int = Field(ge=1)


class Exp01(Block):
    latents: int = Field(ge=1)
    trials_per_latent: int = Field(ge=1)


class Exp02(Block):
    latents: int = Field(ge=1)
    trials_per_latent: int = Field(ge=1)
    levels: int = Field(ge=2)
    range_std: float = Field(gt=0)
    relative: tuple[float, ...]
    kinds: tuple[Literal["absolute", "relative"], ...]


class Exp03(Block):
    derangements: int = Field(ge=1)
    pooling: Literal["response", "all"]
    active: float
    mismatched_share: float = Field(ge=0, le=1)
    matched_share: float = Field(ge=0, le=1)
    max_detectors: int = Field(ge=1)
    replies_per_question: int = Field(ge=1)


class Exp05(Block):
    variants: tuple[str, ...]


class Exp08(Block):
    pass


class Exp10(Block):
    sets: int = Field(ge=1)
    matchings: tuple[Literal["matched", "uniform"], ...]
    first_seed: int


class Params(Block):
    """The tree as one run sees it, with `model` and `scale` already overlaid."""

    seed: int
    preset: str
    scale: str
    protocol: Protocol
    models: dict[str, ModelParams]
    saes: dict[str, SaeParams]
    judges: dict[str, JudgeParams]
    judging: Judging
    work: Work
    exp01: Exp01
    exp02: Exp02
    exp03: Exp03
    exp05: Exp05
    exp08: Exp08
    exp10: Exp10

    def model(self, name: str) -> ModelParams:
        return _get(self.models, name, "model")

    def judge(self, name: str) -> JudgeParams:
        return _get(self.judges, name, "judge")

    def sae(self, name: str) -> SaeParams:
        return _get(self.saes, name, "SAE")

    def sampling(self, model: str, *, search: bool = False) -> Sampling:
        p = self.protocol
        return Sampling(
            temperature=p.temperature,
            top_p=p.top_p,
            repetition_penalty=self.model(model).repetition_penalty,
            max_tokens=p.search_max_tokens if search else p.max_tokens,
        )

    @property
    def digest(self) -> str:
        """Hash of the whole tree, for manifests."""
        return content_id(self.model_dump(mode="json"), length=16)


T = TypeVar("T")


def _get(known: dict[str, T], name: str, kind: str) -> T:
    if name not in known:
        raise ParamsError(one_of(kind, name, list(known), "params.yaml"))
    return known[name]


def path() -> Path:
    return Path(os.environ.get("ESR_PARAMS", HOME / "params.yaml"))


def resolve(relative: str) -> Path:
    """A path written in params.yaml: absolute, or relative to the checkout."""
    return Path(relative) if Path(relative).is_absolute() else HOME / relative


def load(model: str | None = None, scale: str = "full", *, file: Path | None = None) -> Params:
    """What one run of `model` at `scale` works with."""
    file = file or path()
    tree = read_tree(file, file.stat().st_mtime_ns) if file.is_file() else None
    if tree is None:
        raise ParamsError(f"no parameters at {str(file)!r}; set ESR_PARAMS or run in a checkout")
    return parse(tree, model, scale, where=file.name)


def parse(tree: dict[str, Any], model: str | None, scale: str, *, where: str = "params.yaml") -> Params:
    """`tree` with preset, model and scale overlaid, every name and type checked."""
    base = {key: value for key, value in tree.items() if key not in OVERLAYS}
    groups = {key: mapping(tree.get(key) or {}, key, where) for key in OVERLAYS}
    for group in ("models", "saes", "judges"):
        blocks = mapping(base.get(group), group, where)
        base[group] = {name: {**mapping(block, f"{group}.{name}", where), "name": name} for name, block in blocks.items()}
    for key, field in Params.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Block) and key in base:
            mapping(base[key], key, where)
    if "scale" in tree:
        raise ParamsError(one_of("key", "scale", sorted(tree), where))
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
    try:
        params = Params.model_validate_json(json.dumps({**base, "scale": scale}, default=repr), strict=True)
    except ValidationError as error:
        raise ParamsError(_first(error, where)) from None
    _check(params, where)
    return params


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


def _first(error: ValidationError, where: str) -> str:
    """The first problem as one sentence, with the nearest valid key for an unknown one."""
    found = error.errors()[0]
    *parents, last = [str(part) for part in found["loc"]] or ["?"]
    spot = ".".join([*parents, last])
    if found["type"] == "extra_forbidden":
        return one_of("key", spot, [".".join([*parents, k]) for k in _fields(parents)], where)
    if found["type"] == "missing":
        return f"{where} lacks the key {spot!r}; add it"
    return f"{where}: {spot} is {found.get('input')!r:.200}: {found['msg']}"


def _fields(parents: list[str]) -> list[str]:
    block: Any = Params
    for part in parents:
        field = block.model_fields.get(part)
        inner: Any = field.annotation if field is not None else block  # a member's own name keeps its group's block
        block = inner.__args__[1] if getattr(inner, "__origin__", None) is dict else inner
    return [name for name in block.model_fields if name not in ("name", "scale")]


def _check(params: Params, where: str) -> None:
    """What ties one block to another."""
    for model in params.models.values():
        sae = _get(params.saes, model.sae, "SAE")
        _get(params.judges, model.judge, "judge")
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
        _get(params.judges, name, "judge")
