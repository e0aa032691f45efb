"""The one form that every SAE is brought to: float32, row-major, all foldings done.

    f(x) = act(x · W_encᵀ + b_enc)        x̂ = f · W_dec + b_dec
    relu:     act(p) = max(p, 0)
    jumprelu: act(p) = p if p > threshold and p > 0, else 0

Whatever a file subtracts from or multiplies onto its input is folded into these once, at load; a transformation that depends
on the input cannot be and is refused.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from esr.errors import SaeError

Activation = Literal["relu", "jumprelu"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sae:
    """One SAE. Tensors are float32 and contiguous, on the CPU until `to` moves them."""

    name: str
    layer: int
    """Decoder block whose output it reads, 0-based."""
    activation: Activation
    W_enc: Tensor
    """[d_sae, d_in]: a row a latent."""
    b_enc: Tensor
    """[d_sae], with everything folded in."""
    W_dec: Tensor
    """[d_sae, d_in]: a row a latent; norms are not always 1."""
    b_dec: Tensor
    """[d_in]; cancels in every intervention."""
    threshold: Tensor | None
    """[d_sae] for jumprelu, else None."""
    sha256: str
    """Of the tensors above, so that equal SAEs from different files are equal."""

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[1]

    @property
    def d_sae(self) -> int:
        return self.W_enc.shape[0]

    def encode(self, x: Tensor, latents: Tensor | None = None) -> Tensor:
        """Activations [..., d_sae], or [..., len(latents)], of residual streams [..., d_in]."""
        rows = slice(None) if latents is None else latents
        pre = x.to(self.W_enc.dtype) @ self.W_enc[rows].T + self.b_enc[rows]
        return self.act(pre, rows)

    def act(self, pre: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """The activation function on pre-activations of the latents `rows`."""
        f = torch.relu(pre)
        return f if self.threshold is None else f * (pre > self.threshold[rows])

    def decode(self, f: Tensor) -> Tensor:
        """Reconstruction [..., d_in] of activations [..., d_sae]."""
        return f @ self.W_dec + self.b_dec

    def to(self, device: torch.device | str) -> "Sae":
        moved = {key: getattr(self, key).to(device) for key in ("W_enc", "b_enc", "W_dec", "b_dec")}
        threshold = None if self.threshold is None else self.threshold.to(device)
        return Sae(
            name=self.name, layer=self.layer, activation=self.activation, threshold=threshold, sha256=self.sha256, **moved
        )  # fmt: skip


def canonical(weights: Mapping[str, Tensor], *, name: str, layer: int, activation: Activation, subtract_b_dec: bool = False) -> Sae:
    """From SAELens' names and orientation (W_enc [d_in, d_sae], W_dec [d_sae, d_in]) to the canonical form.

    subtract_b_dec: the encoder reads x − b_dec, so that b_enc ← b_enc − b_dec · W_enc, computed in float64.
    """
    wanted = ["W_enc", "b_enc", "W_dec", "b_dec"] + (["threshold"] if activation == "jumprelu" else [])
    missing = [key for key in wanted if key not in weights]
    if missing:
        raise SaeError(f"SAE {name!r} lacks {', '.join(missing)}; it holds {', '.join(sorted(weights)) or 'nothing'}")
    unknown = sorted(set(weights) - set(wanted))
    if unknown:
        raise SaeError(f"SAE {name!r} holds {', '.join(unknown)}, which an {activation} SAE does not have; its meaning is unknown")
    _check(weights, wanted, name)
    f32 = {key: weights[key].detach().to(torch.float32) for key in wanted}
    b_enc = f32["b_enc"]
    if subtract_b_dec:
        b_enc = (b_enc.double() - f32["b_dec"].double() @ f32["W_enc"].double()).float()
    sae = Sae(
        name=name, layer=layer, activation=activation, sha256="",
        W_enc=f32["W_enc"].T.contiguous(),
        b_enc=b_enc.contiguous(),
        W_dec=f32["W_dec"].contiguous(),
        b_dec=f32["b_dec"].contiguous(),
        threshold=f32["threshold"].contiguous() if "threshold" in f32 else None,
    )  # fmt: skip
    return replace(sae, sha256=_digest(sae))


def refuse_unusual(tensor: Tensor, key: str, name: str) -> None:
    """Only plain tensors of real numbers have a meaning here."""
    layout = str(tensor.layout).removeprefix("torch.").replace("_", " ")
    unusual = (
        (tensor.layout is not torch.strided or tensor.is_nested, f"stored {'nested' if tensor.is_nested else layout}"),
        (tensor.is_quantized, "quantized"),
        (tensor.is_complex(), "of complex numbers"),
        (tensor.is_meta, "without values"),
    )
    for found, what in unusual:
        if found:
            raise SaeError(f"SAE {name!r}: {key} is {what}; only plain tensors of real numbers can be read, so save it as one")


def _check(weights: Mapping[str, Tensor], wanted: list[str], name: str) -> None:
    for key in wanted:
        refuse_unusual(weights[key], key, name)
    if weights["W_enc"].ndim != 2:
        raise SaeError(f"SAE {name!r}: W_enc has shape {tuple(weights['W_enc'].shape)}, not [d_in, d_sae]")
    d_in, d_sae = weights["W_enc"].shape
    shapes = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,), "threshold": (d_sae,)}
    for key in wanted:
        found = tuple(weights[key].shape)
        if found != shapes[key]:
            raise SaeError(f"SAE {name!r}: {key} has shape {found} where W_enc's shape {(d_in, d_sae)} asks for {shapes[key]}")
        if not torch.isfinite(weights[key]).all():
            raise SaeError(f"SAE {name!r}: {key} holds NaN or infinity; the file is damaged or was not trained to the end")


def _digest(sae: Sae) -> str:
    digest = hashlib.sha256(sae.activation.encode())
    for key in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"):
        tensor: Tensor | None = getattr(sae, key)
        if tensor is not None:
            digest.update(f"{key}{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().data)
    return digest.hexdigest()


HOOK = re.compile(r"^blocks\.(\d+)\.hook_resid_(pre|post)$")


def site_layer(hook: str, *, name: str) -> int:
    """The block whose output a SAELens hook name means: resid_post.L is L, resid_pre.L is L − 1."""
    match = HOOK.match(hook)
    if match is None:
        raise SaeError(f"SAE {name!r} reads {hook[:200]!r}; only blocks.L.hook_resid_pre and hook_resid_post can be steered")
    layer = int(match[1]) - (match[2] == "pre")
    if layer < 0:
        raise SaeError(f"SAE {name!r} reads {hook!r}, the embeddings before any block; no block's output is that")
    return layer
