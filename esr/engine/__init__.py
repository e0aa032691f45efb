"""Steering engines: one protocol, real implementations, opened once per process.

    engine = open_engine(params, "tiny")
    outputs = engine.generate([Request(prompt="How do you …?", sampling=…, seed=1, ops=(Op("add", 7, 8.0, 3, "tiny-l3"),))])

`vllm` serves, `hf` is the readable reference, `fake` serves unit tests. An intervention that was not applied is an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from esr.types import Op, Sampling, Scope

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

Backend = Literal["vllm", "hf", "fake"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """What to read of the residual stream after block `layer`: itself, or through an SAE's encoder."""

    layer: int
    sae: str = ""
    mode: Literal["latents", "topk", "max", "all", "residual"]
    """latents: the named ones at each position · topk: the k largest at each position · max: each latent's largest value over
    the positions, with where · all: every latent at every position, capped · residual: the stream itself, capped; needs no SAE."""
    latents: tuple[int, ...] = ()
    k: int = 0
    positions: Scope = "all"
    stage: Literal["before", "after"] = "before"
    """Before or after this layer's own intervention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One generation. Either `prompt` (a user turn, rendered by the model's family) or `token_ids` (used as they are)."""

    prompt: str = ""
    prompt_format: str = "clean"
    prefill: str | tuple[int, ...] = ""
    """The start of the assistant's turn, as text or as tokens; with `read`, the whole of it."""
    token_ids: tuple[int, ...] = ()
    sampling: Sampling
    seed: int = 0
    ops: tuple[Op, ...] = ()
    scope: Scope = "all"
    """Of every op that has none of its own."""
    capture: Capture | None = None
    adapter: str = ""
    """Folder of a LoRA adapter to answer with, absolute or from the checkout; empty: the model's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a capture returned; rows are absolute positions in prompt + generated tokens."""

    positions: "np.ndarray"
    """[rows] int32, ascending, exactly `expected` of them."""
    values: "np.ndarray"
    """latents: [rows, len(latents)] · topk: [rows, k] · max: [d_sae] · all: [rows, d_sae] · residual: [rows, width]; float32."""
    indices: "np.ndarray | None"
    """topk: latent ids [rows, k] · max: argmax position of each latent [d_sae] · else None."""
    expected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    text: str
    token_ids: tuple[int, ...]
    prompt_token_ids: tuple[int, ...]
    finish_reason: str
    applied: int
    """Positions in scope of at least one op, summed over the hooked layers of the request; a condition is weighed at each of them."""
    reading: Reading | None = None
    directions: tuple[tuple[str, str], ...] = ()
    """Name and hash of every set of directions that the request used."""


class Engine(Protocol):
    """Thread-safe; requests of many threads meet in one continuous batch."""

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        """Outputs in the order of the requests."""
        ...

    def read(self, requests: Sequence[Request]) -> list[Reading]:
        """Teacher-forced: activations over prompt + prefill (or token_ids) under the request's ops, nothing generated."""
        ...

    def load_directions(self, name: str, path: "Path", layer: int | None = None) -> str:
        """A set of directions under a name, for requests from now on; its hash. `layer`: the block of a file of one tensor."""
        ...

    def render(self, prompt: str, prompt_format: str = "clean", prefill: str | tuple[int, ...] = "") -> tuple[int, ...]:
        """The token ids that `generate` would use."""
        ...

    def offsets(self, token_ids: Sequence[int]) -> list[tuple[int, int]]:
        """Character span of each token in the decoded text."""
        ...

    @property
    def fingerprint(self) -> dict[str, str]:
        """What produced the outputs: backend, versions, dtype, quantization, SAE hashes, sites, weights hash."""
        ...

    @property
    def closed(self) -> bool:
        """It answers no more."""
        ...

    def halt(self) -> None:
        """Let go of everything at once and for good: whoever waits gets Halted with what had finished. From any thread."""
        ...

    def close(self) -> None: ...
