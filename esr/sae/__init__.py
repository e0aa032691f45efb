"""Sparse autoencoders in one canonical form, whatever file they came from.

    sae = open_sae(params, "gemma-2b-l16")
    sae.encode(x)            # [rows, d_sae]
    sae.W_dec[7]             # the direction that a boost of latent 7 adds

Labels can be read without importing torch, which the rest brings in when first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from esr.sae.labels import read_labels

if TYPE_CHECKING:
    from esr.sae.canonical import Activation, Sae, site_layer
    from esr.sae.open import open_block, open_sae

__all__ = ["Activation", "Sae", "open_block", "open_sae", "read_labels", "site_layer"]

HOMES = {
    "Activation": "canonical",
    "Sae": "canonical",
    "site_layer": "canonical",
    "open_block": "open",
    "open_sae": "open",
}


def __getattr__(name: str) -> object:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
