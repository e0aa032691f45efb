"""The CUDA kernel in Triton's interpreter against the torch reference; no GPU and no vLLM engine needed.

Triton decides once a process whether it interprets, when the kernels are defined, so the laws run in a process of their own.
"""

import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from esr.engine.plugin import kernel, ops
from esr.engine.plugin.ops import HEAD, row_width
from esr.engine.plugin.site import Bank

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="run by test_the_laws_hold_in_the_interpreter in a process of their own")
WIDTH, LATENTS, MAX_OPS, SLOTS, TOKENS = 48, 10, 4, 6, 37


@dataclass
class Tables:
    bank: Bank
    table: torch.Tensor
    tok2slot: torch.Tensor
    rows: torch.Tensor
    applied: torch.Tensor
    max_ops: int = MAX_OPS


def tables(seed: int = 0) -> Tables:
    g = torch.Generator().manual_seed(seed)
    bank = Bank(
        W_enc=torch.randn(LATENTS, WIDTH, generator=g), b_enc=torch.randn(LATENTS, generator=g), threshold=torch.rand(LATENTS, generator=g),
        W_dec=torch.randn(LATENTS, WIDTH, generator=g), start={"a": 0}, size={"a": LATENTS}, sha256={}, relu={"a": False},
    )  # fmt: skip
    table = torch.zeros(SLOTS + 1, row_width(2, MAX_OPS), dtype=torch.int32)
    for slot in range(1, SLOTS):
        table[slot, 0], table[slot, 1] = (0, 100) if slot % 2 else (5, 20)
        if slot % 3 == 0:
            table[slot, 2], table[slot, 3], table[slot, 4], table[slot, 5] = 2, slot // 3 - 1, 3, 30
        for site in range(2):
            at = HEAD + site * (1 + 3 * MAX_OPS)
            n = (slot + site) % (MAX_OPS + 1)
            table[slot, at] = n
            for j in range(n):
                values = (j % 2, (slot * 3 + j) % LATENTS, int(np.array(1.5 - slot, np.float32).view(np.int32)))
                table[slot, at + 1 + 3 * j : at + 4 + 3 * j] = torch.tensor(values)
    tok2slot = torch.randint(0, SLOTS + 1, (TOKENS,), generator=g).to(torch.int32)
    return Tables(bank, table, tok2slot, torch.zeros(TOKENS, WIDTH), torch.zeros(SLOTS + 1, dtype=torch.int32))


@pytest.mark.skipif(INTERPRETED, reason="this is that process")
def test_the_laws_hold_in_the_interpreter() -> None:
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", "-q", __file__]
    done = subprocess.run(line, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "10 passed" in done.stdout, done.stdout[-500:]


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("site", [0, 1])
def test_the_kernel_does_what_the_reference_does(dtype: torch.dtype, site: int) -> None:
    g = torch.Generator().manual_seed(1)
    h, r = torch.randn(TOKENS, WIDTH, generator=g).to(dtype), torch.randn(TOKENS, WIDTH, generator=g).to(dtype)
    positions = torch.arange(TOKENS)
    want, got = tables(), tables()
    plain, fast = h.clone(), h.clone()
    ops.reference(plain, r, positions, want, site)
    kernel.steer(fast, r, positions, got, site)
    assert torch.allclose(plain.float(), fast.float(), rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)
    assert torch.allclose(want.rows, got.rows, atol=2e-2 if dtype == torch.bfloat16 else 1e-5)
    assert torch.equal(want.applied, got.applied)
    assert int(got.applied.sum()) > 0
    idle = torch.from_numpy(np.isin(got.tok2slot.numpy(), [0, SLOTS]))
    assert torch.equal(fast[idle], h[idle])


@interpreted
@pytest.mark.parametrize("counts", [[1], [1, 1, 1], [5, 1, 30], [7] * 5, [1] * 33, [512, 3]])
def test_the_map_gives_every_token_its_request_and_padding_none(counts: list[int]) -> None:
    slots = torch.randperm(len(counts) + 3, generator=torch.Generator().manual_seed(2))[: len(counts)].to(torch.int32)
    start = torch.tensor([0, *np.cumsum(counts), *[sum(counts)] * 4], dtype=torch.int32)
    padded = sum(counts) + 5
    out = torch.full((padded + 10,), -1, dtype=torch.int32)
    kernel.fill(out, start, slots, len(counts), padded, 99)
    assert out[: sum(counts)].tolist() == [int(s) for s, n in zip(slots, counts, strict=True) for _ in range(n)]
    assert out[sum(counts) : padded].tolist() == [99] * 5
    assert out[padded:].tolist() == [-1] * 10
