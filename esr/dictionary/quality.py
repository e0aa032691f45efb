"""How good an SAE is, on replies that it was not trained on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from esr.dictionary.corpus import Written
from esr.dictionary.rows import Rows
from esr.params import ModelParams, SaeParams, resolve
from esr.sae import folder
from esr.sae.canonical import Sae

REPLIES = 1024
"""That the measures of rows are over; those of the loss are over an eighth of them."""


@dataclass(frozen=True, slots=True)
class Quality:
    explained_variance: float
    """1 − |x − x̂|² / |x − mean x|², over all tokens of replies."""
    l0: float
    """Latents active at a token, on average."""
    loss: float
    """Next-token loss of the model on its replies, nats."""
    loss_spliced: float
    """The same with x̂ in place of x at the replies' tokens."""
    loss_zeroed: float
    """The same with 0 in place of x."""
    loss_recovered: float
    """(zeroed − spliced) / (zeroed − loss)."""
    dead_share: float
    """Latents that never fired on these rows."""
    replies: int
    tokens: int


@torch.no_grad()
def measure(path: Path, block: SaeParams, rows: Rows, model: ModelParams) -> Quality:
    sae = folder.load(path, name=block.name)
    held = list(rows.held(REPLIES))
    fired, error, l0 = torch.zeros(sae.d_sae), 0.0, 0.0
    x = torch.cat([rows.usual(each) for _, each in held])
    for part in torch.split(x, 4096):
        f = sae.encode(part)
        error += float((part - sae.decode(f)).pow(2).sum())
        l0 += float((f > 0).sum())
        fired += (f > 0).sum(0)
    losses = _losses(resolve(model.hub), block.layer, sae, [reply for reply, _ in held[: max(len(held) // 8, 1)]])
    plain, spliced, zeroed = losses
    return Quality(
        explained_variance=1 - error / float((x - x.mean(0)).pow(2).sum()), l0=l0 / len(x), loss=plain, loss_spliced=spliced,
        loss_zeroed=zeroed, loss_recovered=(zeroed - spliced) / (zeroed - plain), dead_share=float((fired == 0).float().mean()),
        replies=len(held), tokens=len(x),
    )  # fmt: skip


def _losses(hub: Path, layer: int, sae: Sae, replies: list[Written]) -> tuple[float, float, float]:
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(hub, dtype=torch.float32)
    model.to(device).eval()
    there = sae.to(torch.device(device))
    ways = (lambda x: x, lambda x: there.decode(there.encode(x)), torch.zeros_like)
    totals, counted = [0.0, 0.0, 0.0], 0
    for reply in replies:
        ids = torch.tensor([[*reply.prompt_ids, *reply.ids]], device=device)
        first = len(reply.prompt_ids)
        for i, way in enumerate(ways):
            with _changed(model.model.layers[layer], first, way):
                logits = model(input_ids=ids, use_cache=False).logits[0, first - 1 : -1].float()
            totals[i] += float(F.cross_entropy(logits, ids[0, first:], reduction="sum"))
        counted += len(reply.ids)
    plain, spliced, zeroed = (total / counted for total in totals)
    return plain, spliced, zeroed


@contextmanager
def _changed(block: Any, first: int, way: Any) -> Iterator[None]:
    """The stream after a block is `way` of it from position `first` on."""

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        changed = hidden.clone()
        changed[:, first:] = way(hidden[0, first:])
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = block.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
