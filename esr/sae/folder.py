"""SAELens' own folders: cfg.json and sae_weights.safetensors, read without importing sae_lens.

Only configurations whose every field is understood are read; the rest is refused by the field's name.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from esr.errors import SaeError
from esr.sae.canonical import Activation, Sae, canonical, site_layer
from esr.sae.content import CONFIG, WEIGHTS

ARCHITECTURES: dict[str, Activation] = {"standard": "relu", "jumprelu": "jumprelu"}


def load(path: Path, *, name: str) -> Sae:
    for file in (CONFIG, WEIGHTS):
        if not (path / file).is_file():
            raise SaeError(f"SAE {name!r}: {str(path)!r} has no {file}; a SAELens folder holds {CONFIG} and {WEIGHTS}")
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        weights = load_file(path / WEIGHTS)
    except RecursionError:
        raise SaeError(f"SAE {name!r}: {CONFIG} is nested too deeply to be read; SAELens writes plain fields") from None
    except (ValueError, SafetensorError, OSError) as error:
        raise SaeError(f"SAE {name!r}: {str(path)!r} cannot be read: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(config, dict):
        raise SaeError(f"SAE {name!r}: {CONFIG} holds {type(config).__name__}, not fields")
    return from_saelens(config, weights, name=name)


def from_saelens(config: Mapping[str, Any], weights: Mapping[str, Tensor], *, name: str) -> Sae:
    """From SAELens' configuration, of version 6 or before, and its tensors."""
    activation = understood(config, name=name)
    tensors = dict(weights)
    factor = tensors.pop("scaling_factor", None)
    if factor is not None and not bool((factor == 1).all()):
        raise SaeError(f"SAE {name!r} has a finetuning scaling factor that is not folded into its weights; fold and save it first")
    sae = canonical(
        tensors, name=name, layer=site_layer(_hook(config, name), name=name), activation=activation,
        subtract_b_dec=bool(config.get("apply_b_dec_to_input", True)),
    )  # fmt: skip
    for key, found in (("d_in", sae.d_in), ("d_sae", sae.d_sae)):
        if config.get(key) != found:
            raise SaeError(f"SAE {name!r}: its configuration says {key} {config.get(key)!r} and its weights have {found}")
    return sae


def understood(config: Mapping[str, Any], *, name: str) -> Activation:
    """The activation, or a refusal naming the first field that cannot be folded into the canonical form."""
    architecture = str(config.get("architecture", "standard"))
    if architecture not in ARCHITECTURES:
        raise SaeError(f"SAE {name!r} is of architecture {architecture!r}; {' and '.join(ARCHITECTURES)} can be steered")
    function = config.get("activation_fn", config.get("activation_fn_str")) or "relu"
    if function != "relu":
        raise SaeError(f"SAE {name!r} has the activation function {function!r}; only relu can be steered")
    normalisation = config.get("normalize_activations") or "none"
    if normalisation in ("layer_norm", "constant_norm_rescale"):
        raise SaeError(f"SAE {name!r} normalises its input by {normalisation}, which depends on the input; it cannot be folded")
    if normalisation != "none":
        raise SaeError(
            f"SAE {name!r} expects inputs normalised by {normalisation!r} not yet folded into its weights; fold and save it first"
        )
    if (config.get("reshape_activations") or "none") != "none":
        raise SaeError(f"SAE {name!r} reshapes its input ({config['reshape_activations']!r}); only residual streams can be steered")
    if config.get("finetuning_scaling_factor"):
        raise SaeError(f"SAE {name!r} has a finetuning scaling factor that is not folded into its weights; fold and save it first")
    return ARCHITECTURES[architecture]


def _hook(config: Mapping[str, Any], name: str) -> str:
    """hook_name, in metadata since SAELens 6, `hook_point` in the oldest files."""
    metadata = config.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise SaeError(f"SAE {name!r}: its configuration's metadata is {metadata!r:.80}, not fields")
    if metadata.get("hook_name_out", None) or config.get("hook_name_out"):
        return f"a transcoder's {config.get('hook_name_out') or metadata['hook_name_out']}"
    return str(metadata.get("hook_name") or config.get("hook_name") or config.get("hook_point") or "no named place")
