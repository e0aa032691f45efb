"""What the self-check asks: one request of each kind that a spec knows, as strong as this model's stream is long."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from esr.engine import Capture, Output, Request
from esr.engine.directions import read_directions
from esr.engine.intervention import Condition, Intervention, place
from esr.errors import EngineError
from esr.params import Params
from esr.types import Op, Sampling

if TYPE_CHECKING:
    from esr.params import SaeParams

GREEDY = Sampling(temperature=0, top_p=1, repetition_penalty=1, max_tokens=12)
PROMPT = "How do I bake bread at home?"
SHARE = 0.5
"""Of the stream's length, what a boost adds: more than bfloat16 rounds away in any model."""
DIRECTIONS = 2


class Answers(Protocol):
    """As much of an engine as is checked; a server is asked through the same."""

    def generate(self, requests: Sequence[Request]) -> list[Output]: ...
    def load_directions(self, name: str, path: Path, layer: int | None = None) -> str: ...


@dataclass(frozen=True, slots=True)
class Probed:
    """What the plain prompt's streams tell of the model."""

    length: float
    """Of the stream after the SAE's block, the median over the prompt but for its first token."""
    latent: int
    """Active at some of the prompt's positions and less so at others."""
    bound: float
    """Between the two, as far as can be from both."""
    read: int
    """A token of the prompt."""
    written: int
    """A token of the reply."""


def probe(engine: Answers, sae: "SaeParams") -> Probed:
    plain = Request(prompt=PROMPT, sampling=GREEDY)
    streams = Capture(layer=sae.layer, mode="residual", positions="[1,)")
    active = Capture(layer=sae.layer, sae=sae.name, mode="all", positions="prompt")
    first, second = engine.generate([replace(plain, capture=capture) for capture in (streams, active)])
    if first.reading is None or second.reading is None:
        raise EngineError("a capture of the plain prompt came back with nothing")
    prompt, reply = first.prompt_token_ids, first.token_ids
    lengths = np.linalg.norm(first.reading.values[: len(prompt) - 1], axis=1)
    ascending = np.sort(second.reading.values[1:], axis=0)  # the first token's activations are outsized in most models
    gaps = np.diff(ascending, axis=0)
    row, latent = np.unravel_index(int(gaps.argmax()), gaps.shape)
    bound = float(ascending[row, latent] + gaps[row, latent] / 2)
    return Probed(float(np.median(lengths)), int(latent), bound, prompt[len(prompt) // 2], reply[min(2, len(reply) - 1)])


def cases(params: Params, sae: "SaeParams", probed: Probed, directions: str = "") -> dict[str, Request]:
    """By kind; each reads the stream after its block. directions: the name of a loaded set, empty where there is none."""
    from esr.sae import open_sae

    rows = open_sae(params, sae.name).W_dec
    layer, name, j = sae.layer, sae.name, probed.latent
    one, two = [latent for latent in range(3) if latent != j][:2]
    length = SHARE * probed.length

    def strong(latent: int) -> float:
        return length / max(float(rows[latent].norm()), 1e-6)

    boost = Intervention("add", one, strong(one), layer, name)
    asked: dict[str, tuple[Op, ...]] = {
        "plain": (),
        "add": (Op("add", one, strong(one), layer, name),),
        "clamp": (Op("clamp", two, strong(two), layer, name), Op("clamp", j, 0.0, layer, name)),
        "project_out": (Op("project_out", j, 1.0, layer, name),),
        "clamp_projection": (Op("clamp_projection", one, length, layer, name),),
        "add_norm": (Op("add_norm", one, 0.3, layer, name),),
        "scope": (replace(boost, scope="[3,9)"),),
        "schedule": (replace(boost, scope="generated", schedule=((0, 1.0), (8, 0.0))),),
        "condition": (replace(boost, when=Condition(name, j, probed.bound)),),
        "marker in prompt": (replace(boost, scope=f"all after {probed.read}"),),
        "marker in reply": (replace(boost, scope=f"generated after {probed.written}"),),
    }
    if directions:
        asked["directions"] = (Op("add", 0, length, layer, directions), Op("project_out", 1, 1.0, layer, directions))
    capture = Capture(layer=layer, mode="residual", stage="after")
    return {kind: Request(prompt=PROMPT, sampling=GREEDY, capture=capture, ops=ops) for kind, ops in asked.items()}


@dataclass(frozen=True, slots=True)
class Made:
    name: str
    """Of its content, so that it can be sent to one server any number of times."""
    path: Path


def made_directions(folder: Path, sae: "SaeParams") -> Made:
    """A set of random directions of length 1 after the SAE's block."""
    from safetensors.numpy import save_file

    rows = np.random.default_rng(sae.layer).normal(size=(DIRECTIONS, sae.d_in)).astype(np.float32)
    path = folder / "directions.safetensors"
    save_file({f"layer.{sae.layer}": rows / np.linalg.norm(rows, axis=1, keepdims=True)}, path)
    return Made(f"verify-{read_directions('verify', path).shape.sha256[:12]}", path)


def due(request: Request, output: Output) -> int:
    """How often the request's ops touch the sequence that came, counted position by position."""
    ids = (*output.prompt_token_ids, *output.token_ids)[:-1]
    touched: dict[int, set[int]] = {}
    for op in request.ops:
        touched.setdefault(op.layer, set()).update(place(op, request.scope, len(output.prompt_token_ids)).among(ids))
    return sum(map(len, touched.values()))
