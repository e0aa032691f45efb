"""The sparse autoencoder of `tiny`, trained by SAELens on the residual stream, and how good it is."""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from esr.organism.recipe import Build
from esr.organism.train import LOSS, Encoded, encode

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Quality:
    """Measured on rows that neither the model nor the SAE was trained on."""

    explained_variance: float
    """1 − |x − x̂|² / |x − mean x|², over all tokens."""
    l0: float
    """Latents active at a token, on average."""
    loss: float
    """Next-token loss of the model, nats, where the corpus counts it."""
    loss_spliced: float
    """The same with x̂ in place of x."""
    loss_zeroed: float
    """The same with 0 in place of x."""
    loss_recovered: float
    """(zeroed − spliced) / (zeroed − loss)."""
    dead_share: float
    """Latents that never fired on these rows."""
    tokens: int


@torch.no_grad()
def residuals(model: Any, rows: Encoded, layer: int, device: str, chunk: int = 1024) -> Tensor:
    """Residual stream after `layer` at every token of the rows, [tokens, width], in row order."""
    out = []
    for lo in range(0, len(rows.tokens_NT), chunk):
        ids = torch.from_numpy(rows.tokens_NT[lo : lo + chunk].astype(np.int64)).to(device)
        lengths = torch.from_numpy(rows.lengths_N[lo : lo + chunk]).to(device)
        hidden = model.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[layer + 1]
        out.append(hidden[torch.arange(ids.shape[1], device=device)[None] < lengths[:, None]])
    return torch.cat(out)


def data(model: Any, build: Build, device: str, workers: int = 1) -> Tensor:
    """What the SAE is trained on: rows of both kinds, restarts and mismatched passages included."""
    return residuals(model, encode("corrected", build, build.sae_rows, "sae", workers), build.layer, device)


def train(x: Tensor, build: Build, device: str) -> Any:
    """A Matryoshka BatchTopK SAE, as SAELens trains it; saved, it is a JumpReLU SAE."""
    from sae_lens import MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(build.seed)
    sae = MatryoshkaBatchTopKTrainingSAE(
        MatryoshkaBatchTopKTrainingSAEConfig(
            d_in=build.width, d_sae=build.d_sae, k=build.k, matryoshka_widths=list(build.levels), device=device,
            normalize_activations="expected_average_only_in", dtype="float32",
        )
    )  # fmt: skip
    sae.cfg.metadata.model_name = "tiny"
    sae.cfg.metadata.hook_name = f"blocks.{build.layer}.hook_resid_post"
    config = SAETrainerConfig(
        total_training_samples=build.sae_samples, train_batch_size_samples=build.sae_batch, lr=build.sae_lr, lr_end=build.sae_lr / 10, device=device,
        lr_warm_up_steps=100, lr_decay_steps=build.sae_samples // build.sae_batch // 4, dead_feature_window=200,
        n_batches_for_norm_estimate=50, logger=LoggingConfig(log_to_wandb=False), autocast=False,
    )  # fmt: skip
    SAETrainer(cfg=config, sae=sae, data_provider=_shuffled(x, build), evaluator=None).fit()
    return sae


def _shuffled(x: Tensor, build: Build) -> Iterator[Tensor]:
    generator = torch.Generator(device=x.device).manual_seed(build.seed)
    while True:
        order = torch.randperm(len(x), generator=generator, device=x.device)
        for lo in range(0, len(order) - build.sae_batch + 1, build.sae_batch):
            yield x[order[lo : lo + build.sae_batch]]


@torch.no_grad()
def measure(model: Any, sae: Any, build: Build, device: str, count: int = 1024) -> Quality:
    """`sae` is anything with encode(x) and decode(f)."""
    rows = encode("corrected", build, count, "measure")
    x = residuals(model, rows, build.layer, device)
    fired = torch.zeros(build.d_sae, device=device)
    error = l0 = 0.0
    for part in torch.split(x, 16384):
        f = sae.encode(part)
        error += float((part - sae.decode(f)).pow(2).sum())
        l0 += float((f > 0).sum())
        fired += (f > 0).sum(0)
    losses = {how: _loss(model, sae, rows, build.layer, how, device) for how in ("as is", "spliced", "zeroed")}
    return Quality(
        explained_variance=1 - error / float((x - x.mean(0)).pow(2).sum()), l0=l0 / len(x), loss=losses["as is"],
        loss_spliced=losses["spliced"], loss_zeroed=losses["zeroed"],
        loss_recovered=(losses["zeroed"] - losses["spliced"]) / (losses["zeroed"] - losses["as is"]),
        dead_share=float((fired == 0).float().mean()), tokens=len(x),
    )  # fmt: skip


def _loss(model: Any, sae: Any, rows: Encoded, layer: int, how: str, device: str) -> float:
    def change(_m: Any, _i: Any, hidden: Tensor) -> Tensor:
        return hidden if how == "as is" else torch.zeros_like(hidden) if how == "zeroed" else sae.decode(sae.encode(hidden))

    handle = model.model.layers[layer].register_forward_hook(change)
    total, counted = 0.0, 0
    try:
        for lo in range(0, len(rows.tokens_NT), 256):
            ids = torch.from_numpy(rows.tokens_NT[lo : lo + 256].astype(np.int64)).to(device)
            mark = torch.from_numpy(rows.marks_NT[lo : lo + 256]).to(device)[:, 1:]
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
            at = (mark & LOSS).bool()
            total += float(F.cross_entropy(logits[at], ids[:, 1:][at], reduction="sum"))
            counted += int(at.sum())
    finally:
        handle.remove()
    return total / counted


def as_dict(quality: Quality) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in asdict(quality).items()}
