"""A BatchTopK SAE as SAELens trains it; saved, it is a JumpReLU SAE in float16."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from esr.dictionary.rows import Rows
from esr.params import RecipeParams, SaeParams


def train(rows: Rows, sae: SaeParams, recipe: RecipeParams, model: str, say: Callable[[str], object]) -> Any:
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(recipe.seed)
    made = BatchTopKTrainingSAE(
        BatchTopKTrainingSAEConfig(
            d_in=sae.d_in,
            d_sae=sae.d_sae,
            k=recipe.k,
            device=device,
            dtype="float32",
            normalize_activations="expected_average_only_in",
        )
    )
    made.cfg.metadata.model_name = model
    made.cfg.metadata.hook_name = f"blocks.{sae.layer}.hook_resid_post"
    config = SAETrainerConfig(
        total_training_samples=recipe.steps * recipe.batch, train_batch_size_samples=recipe.batch, lr=recipe.lr, lr_end=recipe.lr / 10,
        device=device, lr_warm_up_steps=min(200, recipe.steps // 10), lr_decay_steps=recipe.steps // 4,
        dead_feature_window=max(recipe.steps // 10, 1), n_batches_for_norm_estimate=min(50, recipe.steps),
        logger=LoggingConfig(log_to_wandb=False), autocast=False,
    )  # fmt: skip
    centre(made, rows)
    place = device if _has_room(4 * sae.d_in * recipe.pool) else "cpu"
    batches = told(
        shuffled((part.to(place).float() for part in rows.training(recipe.seed)), recipe.batch, recipe.pool, recipe.seed),
        config.n_batches_for_norm_estimate,
        recipe.steps,
        say,
    )
    SAETrainer(cfg=config, sae=made, data_provider=(batch.to(device) for batch in batches), evaluator=None).fit()
    return made


def centre(sae: Any, rows: Rows) -> None:
    """The decoder's bias begins at the mean row, in the units that SAELens brings rows to: mean norm √width."""
    mean, _ = rows.scale
    factor = (mean.shape[0] ** 0.5) / float(next(rows.training(0)).float().norm(dim=1).mean())
    with torch.no_grad():
        sae.b_dec.copy_(mean.to(sae.b_dec.device) * factor)


def _has_room(pool: int) -> bool:
    """Whether a pool of so many bytes, and the copies that mixing it takes, are a small part of what an engine left of the GPU."""
    return torch.cuda.is_available() and 8 * pool < torch.cuda.mem_get_info()[0]


def shuffled(parts: Iterator[Tensor], batch: int, pool: int, seed: int) -> Iterator[Tensor]:
    """Batches from a pool of rows that is mixed and half of it taken each time, so that rows of one reply fall apart."""
    generator = torch.Generator().manual_seed(seed)
    held: list[Tensor] = []
    size = max(pool, 2 * batch)
    while True:
        while sum(map(len, held)) < size:
            held.append(next(parts))
        rows = torch.cat(held)
        rows = rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
        taken = len(rows) // 2 // batch * batch
        yield from torch.split(rows[:taken], batch)
        held = [rows[taken:]]


def told(batches: Iterator[Tensor], before: int, steps: int, say: Callable[[str], object]) -> Iterator[Tensor]:
    """`before`: batches that SAELens takes to learn the rows' norm."""
    for step, batch in enumerate(batches, -before):
        if step >= 0 and step % max(steps // 20, 1) == 0:
            say(f"training: step {step:,} of {steps:,}")
        yield batch


def save(sae: Any, folder: Path) -> None:
    """A SAELens folder: cfg.json and sae_weights.safetensors; float16 values, in which it is also measured."""
    for name, value in sae.named_parameters():
        if name != "threshold":
            value.data = value.data.half().float()
    folder.mkdir(parents=True, exist_ok=True)
    sae.save_inference_model(str(folder))
    _halve(folder / "sae_weights.safetensors")


def _halve(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = {name: value.half().contiguous() if name.startswith("W_") else value for name, value in load_file(path).items()}
    save_file(tensors, path)
