"""The next token is chosen as vLLM chooses it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esr.engine.sampling import next_token, nucleus, penalised
from esr.types import Sampling

logits_ = st.lists(st.floats(-20, 20, width=32), min_size=4, max_size=40).map(lambda x: torch.tensor(x))
PLAIN = Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=1)


def chosen(logits: torch.Tensor, seen: torch.Tensor, sampling: Sampling, seed: int = 0) -> int:
    return next_token(logits, seen, sampling, torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(logits_, st.floats(0.05, 0.99))
def test_the_nucleus_is_vllms(logits: torch.Tensor, top_p: float) -> None:
    theirs = pytest.importorskip("vllm.v1.sample.ops.topk_topp_sampler").apply_top_k_top_p_pytorch
    assert torch.equal(nucleus(logits, top_p), theirs(logits.clone()[None], None, torch.tensor([top_p]))[0])


@settings(deadline=None)
@given(logits_, st.floats(0.5, 2.0), st.integers(0, 2**40))
def test_the_repetition_penalty_is_vllms(logits: torch.Tensor, penalty: float, bits: int) -> None:
    ops = pytest.importorskip("vllm._custom_ops")
    seen = torch.tensor([bool(bits >> i & 1) for i in range(len(logits))])
    theirs = logits.clone()[None]
    ops.apply_repetition_penalties_torch(theirs, seen[None], torch.zeros_like(seen)[None], torch.tensor([penalty]))
    assert torch.allclose(penalised(logits, seen, penalty), theirs[0])
    assert chosen(logits, seen, replace(PLAIN, repetition_penalty=penalty)) == int(penalised(logits, seen, penalty).argmax())


def test_what_is_drawn_has_the_tempered_probabilities() -> None:
    logits, sampling = torch.tensor([2.0, 1.0, 0.0, -1.0]), replace(PLAIN, temperature=0.5, top_p=0.97)
    generator = torch.Generator().manual_seed(0)
    draws = torch.tensor([next_token(logits, torch.zeros(4, dtype=torch.bool), sampling, generator) for _ in range(20_000)])
    wanted = torch.tensor([4.0, 2.0]).softmax(0)
    assert torch.allclose(draws.bincount(minlength=4) / 20_000, torch.tensor([*wanted.tolist(), 0, 0]), atol=0.02)


def test_below_vllms_limit_the_largest_is_taken() -> None:
    logits = torch.tensor([1.0, 1.0001, 0.0])
    assert {chosen(logits, torch.zeros(3, dtype=torch.bool), replace(PLAIN, temperature=9e-6), seed) for seed in range(50)} == {1}
