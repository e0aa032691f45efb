"""Requests over every op, scope, schedule, condition and capture, for engines over tiny_models; each with a spec of its own."""

import random
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tiny_models import D_SAE, WIDTH

from esr.engine import Capture, Request
from esr.engine.intervention import Condition, Intervention
from esr.types import Op, Sampling

SAMPLING = Sampling(temperature=0, top_p=1, repetition_penalty=1, max_tokens=24)
QUESTION_MARK = 35
"""The byte tokenizer's token for `?`."""
SCOPES = (
    "",
    "",
    "",
    "all",
    "prompt",
    "generated",
    "[3,30)",
    "generated[4,)",
    "generated[2,9)",
    "[20,)",
    f"after {QUESTION_MARK}",
    f"after {QUESTION_MARK}",
)
SCHEDULES = ((), (), ((0, 1.0), (12, 0.0)), ((2, 0.5), (6, 1.5), (14, 0.0)))
MOODS = 20
"""Directions after each of blocks 1 and 2."""


def write_moods(folder: Path) -> Path:
    rng = np.random.default_rng(1)
    rows = {f"direction.{layer}": rng.normal(size=(MOODS, WIDTH)).astype(np.float32) for layer in (1, 2)}
    save_file(rows, folder / "moods.safetensors")
    return folder / "moods.safetensors"


def op(rng: random.Random) -> Op:
    layer, sae = rng.choice([(1, "early"), (2, "late")])
    kind = rng.choice(["add", "clamp", "project_out", "clamp_projection", "add_norm"])
    name, n = (sae, D_SAE) if kind == "clamp" or rng.random() < 0.5 else ("moods", MOODS)
    value = {"project_out": rng.uniform(0.3, 2), "add_norm": rng.uniform(-1, 1)}.get(kind, rng.uniform(-6, 10))
    plain = Op(kind, rng.randrange(n), round(value, 3), layer, name)  # type: ignore[arg-type]  # drawn from the literals
    if rng.random() < 0.4:
        return plain
    gate, m = rng.choice([(sae, D_SAE), ("moods", MOODS)])
    when = Condition(gate, rng.randrange(m), 0.0) if rng.random() < 0.3 else None
    return Intervention(
        plain.kind, plain.latent, plain.value, layer, name, rng.choice(SCOPES), rng.choice(SCHEDULES), rng.choice(("linear", "step")), when
    )  # fmt: skip


def capture(i: int) -> Capture | None:
    stage = "after" if i % 5 == 1 else "before"
    if i % 6 == 1:
        return Capture(layer=2, sae="late", mode="latents", latents=(1, 5, 9), stage=stage)
    if i % 6 == 2:
        return Capture(layer=1, sae="early", mode="topk", k=4, positions="generated", stage=stage)
    if i % 6 == 3:
        return Capture(layer=2, mode="residual", positions="[2,)", stage=stage)
    return Capture(layer=2, sae="late", mode="max", stage=stage) if i % 12 == 4 else None


def rich(n: int, seed: int = 5) -> list[Request]:
    rng, out = random.Random(seed), []
    while len(out) < n:
        ops: dict[tuple[str, int, int], Op] = {}
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            one = op(rng)
            ops[one.sae, one.layer, one.latent] = one
        prompt = f"Question {len(out)}: " + "how does it work? " * rng.randrange(1, 5)
        scope = rng.choice(("all", "all", "prompt", "generated", "[3,60)"))
        out.append(Request(prompt=prompt, sampling=SAMPLING, ops=tuple(ops.values()), scope=scope, capture=capture(len(out))))
    return out
