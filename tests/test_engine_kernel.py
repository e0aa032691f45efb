"""The CUDA kernel in Triton's interpreter against the torch reference; no GPU and no vLLM engine needed.

Triton decides once a process whether it interprets, when the kernels are defined, so the laws run in a process of their own.
"""

import os
import random
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from esr.engine.entries import Entry, windows
from esr.engine.intervention import KINDS, Condition
from esr.engine.plugin import kernel, ops
from esr.engine.plugin.bank import Bank
from esr.engine.plugin.table import fill, row_width

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="run by test_the_laws_hold_in_the_interpreter in a process of their own")
WIDTH, LATENTS, MAX_OPS, SLOTS, TOKENS = 48, 10, 4, 6, 37


@dataclass
class Tables:
    bank: Bank
    table: torch.Tensor
    tok2slot: torch.Tensor
    since: torch.Tensor
    rows: torch.Tensor
    applied: torch.Tensor
    broken: torch.Tensor
    site: dict[int, int]
    max_ops: int = MAX_OPS


def entry(rng: random.Random, layer: int) -> Entry:
    lo = rng.choice((0, 5, 12))
    start = rng.randrange(8)
    when = Condition("a", rng.randrange(LATENTS), rng.uniform(-0.5, 0.5)) if rng.random() < 0.3 else None
    scheduled = rng.random() < 0.4
    value, last = rng.uniform(-2, 2), rng.uniform(-2, 2)
    return Entry(
        layer, rng.choice(KINDS), "a", rng.randrange(LATENTS), value, lo, rng.choice((20, 37, 2**31 - 1)), last if scheduled else value,
        start if scheduled else 0, start + 9 if scheduled else 0, 7 if rng.random() < 0.3 else -1, (0, 40), when,
    )  # fmt: skip


def tables(seed: int = 0) -> Tables:
    g, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    W_dec = torch.randn(LATENTS, WIDTH, generator=g)
    bank = Bank(
        W_enc=torch.randn(LATENTS, WIDTH, generator=g), b_enc=torch.randn(LATENTS, generator=g), threshold=torch.rand(LATENTS, generator=g),
        W_dec=W_dec, inverse=1 / W_dec.norm(dim=1), half=None, start={"a": 0}, size={"a": LATENTS}, sha256={}, relu={"a": False}, directions={}, loaded={},
    )  # fmt: skip
    table = torch.zeros(SLOTS + 1, row_width(2, MAX_OPS), dtype=torch.int32)
    for slot in range(1, SLOTS):
        entries = [entry(rng, layer) for layer in range(2) for _ in range((slot + layer) % (MAX_OPS + 1))]
        row = table[slot].numpy()
        fill(
            row,
            entries,
            windows(entries),
            max_ops=MAX_OPS,
            site=int,
            find=lambda _name, _layer, i: i,
            encoded=(str.isalpha, str.isdigit)[slot % 2],
        )
        if slot % 3 == 0:
            row[2], row[3], row[4], row[5] = 2, slot // 3 - 1, 3, 30
    tok2slot = torch.randint(0, SLOTS + 1, (TOKENS,), generator=g).to(torch.int32)
    since = torch.randint(0, 40, (SLOTS + 1,), generator=g).to(torch.int32)
    none = (torch.zeros(SLOTS + 1, dtype=torch.int32) for _ in range(2))
    return Tables(bank, table, tok2slot, since, torch.zeros(TOKENS, WIDTH), *none, {0: 0, 1: 1})


@pytest.mark.skipif(INTERPRETED, reason="this is that process")
def test_the_laws_hold_in_the_interpreter() -> None:
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", "-q", __file__]
    done = subprocess.run(line, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "19 passed" in done.stdout, done.stdout[-500:]


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("site", [0, 1])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_kernel_does_what_the_reference_does(dtype: torch.dtype, site: int, seed: int) -> None:
    g = torch.Generator().manual_seed(1)
    h, r = torch.randn(TOKENS, WIDTH, generator=g).to(dtype), torch.randn(TOKENS, WIDTH, generator=g).to(dtype)
    positions = torch.arange(TOKENS)
    want, got = tables(seed), tables(seed)
    plain, fast = h.clone(), h.clone()
    ops.reference(plain, r, positions, want, site)
    kernel.steer(fast, r, positions, got, site)
    assert torch.allclose(plain.float(), fast.float(), rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)
    assert torch.allclose(want.rows, got.rows, atol=2e-2 if dtype == torch.bfloat16 else 1e-5)
    assert torch.equal(want.applied, got.applied)
    assert torch.equal(want.broken, got.broken)
    assert int(got.applied.sum()) > 0
    idle = torch.from_numpy(np.isin(got.tok2slot.numpy(), [0, SLOTS]))
    assert torch.equal(fast[idle], h[idle])


@interpreted
def test_a_stream_whose_square_is_no_number_of_32_bits_is_noted() -> None:
    some = tables()
    h, positions = torch.full((TOKENS, WIDTH), 3e18), torch.arange(TOKENS)
    h[::2] = 3e19
    kernel.steer(h.clone(), torch.zeros_like(h), positions, some, 0)
    wanted = tables()
    ops.reference(h.clone(), torch.zeros_like(h), positions, wanted, 0)
    assert torch.equal(some.broken, wanted.broken)
    assert 0 < int(some.broken.sum()) < SLOTS


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


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
def test_what_is_compiled_for_the_map_is_the_same_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    varying = {"n_requests", "n_tokens", "none"}
    assert {p.name for p in kernel._fill.params if p.do_not_specialize} == varying
    asked = set()

    def launch(*_args: object, **constants: object) -> None:
        asked.add(tuple(constants.items()))

    monkeypatch.setattr(kernel, "_fill", {(grid,): launch for grid in range(1, 65)})
    for n in (1, 2, 3, 16, 59, 128, 255, 256):
        kernel.fill(*(torch.zeros(1),) * 3, n, 64 * n, 256)
    assert len(asked) == 1
