"""A model's block for params.yaml, from the config.json of a Hugging Face folder: what can be read is read, what was guessed is said."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esr.errors import ParamsError
from esr.params.blocks import ModelParams, Params

FAMILIES = {("llama", 128256): "llama3", ("gemma2", 256000): "gemma2", ("llama", 49152): "smollm"}
"""Chat family by model_type and vocabulary; Llama 2 and others are of Llama's type and are spoken to differently."""
WINDOW = 4096
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Draft:
    """Blocks to be pasted, by the group of params.yaml that they belong under."""

    groups: Mapping[str, str]
    """YAML of one block each, indented by two."""
    guessed: tuple[str, ...]
    """What was guessed, a clause each."""

    def text(self) -> str:
        return "\n".join([*(f"# {line}" for line in self.guessed), *(f"{group}:\n{block}" for group, block in self.groups.items())])

    def added(self, yaml: str) -> str:
        """The text of params.yaml with the blocks in their groups."""
        for group, block in self.groups.items():
            head = re.search(rf"^{group}:[ \t]*(#.*)?$", yaml, flags=re.M)
            at = head.end() if head else len(yaml)
            yaml = f"{yaml[:at]}{'' if head else f'{chr(10)}{group}:'}\n{block}{yaml[at:]}"
        return yaml


def draft(config: Mapping[str, Any], params: Params, *, hub: str, name: str, sae: str | None, judge: str | None) -> Draft:
    """The block of a model whose config.json is `config`; raises ParamsError where something is missing that cannot be guessed."""
    if name in params.models:
        raise ParamsError(f"params.yaml has a model {name!r} already; give another --name")
    lacking = [key for key in ("num_hidden_layers", "hidden_size") if not isinstance(config.get(key), int)]
    if lacking:
        raise ParamsError(f"config.json of {hub!r} lacks {' and '.join(lacking)}; only decoders of text can be steered")
    layers, width = int(config["num_hidden_layers"]), int(config["hidden_size"])
    family, told = _family(config, params, hub)
    found = _sae(params, width, sae, name)
    like = _alike(params, found, family, width)
    grader = params.judge(judge or like.judge)
    window = min(int(config.get("max_position_embeddings") or WINDOW), WINDOW)
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    quantization = (config.get("quantization_config") or {}).get("quant_method")
    s = like.search
    lines = [
        f"  {name}:",
        f"    hub: {json.dumps(hub)}",
        f"    family: {family}",
        f"    layers: {layers}",
        f"    width: {width}",
        f"    dtype: {dtype if dtype in DTYPES else 'bfloat16'}",
        *([f"    quantization: {quantization}"] if quantization else []),
        f"    max_model_len: {window}",
        f"    sae: {found}",
        f"    search: {{lower: {s.lower:g}, upper: {s.upper:g}, prior_mean: {s.prior_mean:g}, prior_std: {s.prior_std:g}}}",
        f"    judge: {grader.name}",
    ]
    if window < 2 * params.protocol.max_tokens:
        lines.append(f"    protocol: {{max_tokens: {window // 4}, search_max_tokens: {window // 8}}}")
    groups = {"models": "\n".join(lines) + "\n"}
    if grader.key_env != params.judge(params.judging.concreteness_judge).key_env:
        groups["by_model"] = f"  {name}:\n    judging: {{concreteness_judge: {grader.name}}}\n"
    guesses = (
        told,
        f"sae {found}: {'as asked' if sae else f'the only one here that reads {width} dimensions'}",
        f"search and judge are those of {like.name}; raise search.upper when the search ends with latents that never bit",
        "all other keys have defaults: the SAE's own layer, the paper's sampling",
    )
    return Draft(groups, guesses)


def _family(config: Mapping[str, Any], params: Params, hub: str) -> tuple[str, str]:
    kind, words = str(config.get("model_type")), config.get("vocab_size")
    made = ", ".join(map(str, config.get("architectures") or [])) or "no architecture"
    if (kind, words) in FAMILIES:
        family = FAMILIES[kind, int(str(words))]
        return family, f"family {family}: guessed from model_type {kind} ({made}) and its vocabulary of {words:,}"
    if kind == "llama" and isinstance(words, int) and words < 10_000:
        return "tiny", f"family tiny: guessed from model_type llama ({made}) and a vocabulary of only {words:,}"
    raise ParamsError(
        f"{hub!r} is of model_type {kind!r} ({made}, vocabulary {words}) and no chat family is known for it; "
        "llama3, gemma2, smollm and tiny are, and esr/engine/chat.py is where one is added"
    )


def _sae(params: Params, width: int, asked: str | None, name: str) -> str:
    fitting = [one.name for one in params.saes.values() if one.d_in == width]
    if asked:
        found = params.sae(asked)
        if found.d_in != width:
            raise ParamsError(
                f"SAE {asked!r} reads {found.d_in} dimensions and {name!r} has {width}; fitting: {', '.join(fitting) or 'none'}"
            )
        return asked
    if len(fitting) != 1:
        have = f"these do: {', '.join(fitting)}; choose with --sae" if fitting else "add one under saes: and name it with --sae"
        raise ParamsError(
            f"{'several SAEs' if fitting else 'no SAE'} of params.yaml read the {width} dimensions of {name!r}; {have}"
        )
    return fitting[0]


def _alike(params: Params, sae: str, family: str, width: int) -> ModelParams:
    """The model whose search bounds fit best: of the same SAE, else of the family, nearest in width."""
    return min(params.models.values(), key=lambda m: (m.sae != sae, m.family != family, abs(m.width - width), m.name))


def config_of(hub: str) -> dict[str, Any]:
    """config.json of a folder, of the cache, or of the hub."""
    file = Path(hub).expanduser() / "config.json"
    if not file.is_file():
        if Path(hub).expanduser().is_dir() or hub.count("/") != 1:
            raise ParamsError(f"no config.json in {hub!r}; name the folder of a model, or a hub id such as google/gemma-2-2b-it")
        file = _fetched(hub)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ParamsError(f"config.json of {hub!r} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ParamsError(f"config.json of {hub!r} holds no names with values")
    return found


def _fetched(hub: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(hub, "config.json"))
    except GatedRepoError:
        raise ParamsError(f"{hub!r} is gated; accept its licence at https://huggingface.co/{hub} and run `hf auth login`") from None
    except (RepositoryNotFoundError, EntryNotFoundError):
        raise ParamsError(
            f"neither a folder nor a model of the hub is called {hub!r}, or its config.json cannot be reached"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ParamsError(f"config.json of {hub!r} is not here and the hub did not answer ({type(error).__name__})") from None
