"""Goodfire's files: a pickled state dict of two linear layers, ReLU between them, nothing subtracted from the input."""

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from esr.errors import SaeError
from esr.sae.canonical import Sae, canonical, refuse_unusual

KEYS = {
    "encoder_linear.weight": ("W_enc", True),
    "encoder_linear.bias": ("b_enc", False),
    "decoder_linear.weight": ("W_dec", True),
    "decoder_linear.bias": ("b_dec", False),
}
"""Their key → SAELens' key, and whether it is stored transposed."""
WRAPPERS = ("_orig_mod.", "module.")
"""Prefixes that torch.compile and data parallelism put before every key."""


def load(path: Path, *, name: str, layer: int) -> Sae:
    """`layer` is not in the file; params.yaml says it."""
    if not path.is_file():
        raise SaeError(f"SAE {name!r}: no file {str(path)!r}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, EOFError, OSError, UnpicklingError) as error:
        raise SaeError(
            f"SAE {name!r}: {path.name} is not a state dict of tensors alone: {' '.join(str(error).split())[:200]}"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SaeError(f"SAE {name!r}: {path.name} is not a state dict of tensors")
    weights: dict[str, Tensor] = {}
    for key, tensor in state.items():
        refuse_unusual(tensor, str(key), name)
        bare = _bare(str(key))
        ours, transposed = KEYS.get(bare, (bare, False))
        if ours in weights:
            raise SaeError(f"SAE {name!r}: {path.name} holds {bare!r} twice, under two prefixes")
        weights[ours] = tensor.T if transposed and tensor.ndim == 2 else tensor
    missing = [theirs for theirs, (ours, _) in KEYS.items() if ours not in weights]
    if missing:
        raise SaeError(f"SAE {name!r}: {path.name} lacks {', '.join(missing)}; it holds {', '.join(map(str, state))[:200]}")
    return canonical(weights, name=name, layer=layer, activation="relu")


def _bare(key: str) -> str:
    while key.startswith(WRAPPERS):
        for prefix in WRAPPERS:
            key = key.removeprefix(prefix)
    return key


def download(repo: str, file: str) -> Path:
    """From the Hugging Face hub, cached there; the two releases end in .pt and .pth, and either ending finds the other."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    for spelling in (file, _other(file)):
        try:
            return Path(hf_hub_download(repo, spelling))
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError) and spelling == file:
                continue
            raise SaeError(
                f"no {file!r} of {repo!r} here nor on the hub ({type(error).__name__}); log in, or put the file there"
            ) from None
    raise AssertionError("both spellings were tried")


def _other(file: str) -> str:
    return file + "h" if file.endswith(".pt") else file.removesuffix("h")
