"""One next token from one row of logits, as vLLM defines its sampling: penalty, then temperature, then top-p."""

import torch
from torch import Tensor

from esr.types import Sampling

GREEDY = 1e-5
"""vLLM takes the largest logit below this temperature."""


def next_token(logits: Tensor, seen: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """logits [vocab] float32; seen [vocab] bool: tokens of the prompt and of the reply so far."""
    logits = penalised(logits, seen, sampling.repetition_penalty)
    if sampling.temperature < GREEDY:
        return int(logits.argmax())
    logits = nucleus(logits / sampling.temperature, sampling.top_p)
    return int(torch.multinomial(logits.softmax(-1), 1, generator=generator))


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Seen tokens made less likely by a penalty above 1, whatever the sign of their logit."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """All but the most probable tokens, whose probabilities first reach top_p, at −∞; the most probable one always stays."""
    if top_p >= 1:
        return logits
    ascending, order = logits.sort()
    out = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    out[-1] = False
    return torch.full_like(logits, -torch.inf).scatter(0, order, ascending.masked_fill(out, -torch.inf))
