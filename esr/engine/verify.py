"""A self-check for users: the engine against the readable reference on this machine, and what steering costs here."""

import platform
import statistics
import time
from dataclasses import dataclass, field, replace

from esr.engine import Capture, Engine, Output, Request
from esr.engine.intervention import Intervention
from esr.engine.open import close_engine, open_engine
from esr.params import Params
from esr.types import Op, Sampling

GREEDY = Sampling(temperature=0, top_p=1, repetition_penalty=1, max_tokens=12)
PROMPT = "How do I bake bread at home?"
ROUNDS = 3
SLACK = 2.0
"""Steered streams may be so many times as far from the reference's as plain ones are, where the model is not in float32."""
FLOOR = 1e-4
"""Relative difference of streams that is rounding alone in float32."""


@dataclass(frozen=True, slots=True)
class Compared:
    name: str
    identical: bool
    """Token by token."""
    difference: float
    """Of the captured streams, relative, the largest over the positions of the prompt."""
    applied: bool
    """As often as the reference."""


@dataclass(slots=True)
class Verified:
    fingerprint: dict[str, str]
    machine: str
    compared: list[Compared] = field(default_factory=list)
    speed: dict[str, float] = field(default_factory=dict)
    """Generated tokens a second."""

    @property
    def right(self) -> bool:
        plain = max((one.difference for one in self.compared if one.name == "plain"), default=0.0)
        exact = self.fingerprint["dtype"] == "float32"
        return all(
            one.applied and one.difference <= SLACK * plain + FLOOR and (one.identical or not exact) for one in self.compared
        )


def verify(params: Params, model: str, *, device: str = "cpu", batch: int = 64, tokens: int = 64) -> Verified:
    """device: of the reference; `none` leaves it out."""
    engine = open_engine(params, model, "vllm", layers=(params.sae(params.model(model).sae).layer,))
    try:
        found = Verified(dict(engine.fingerprint), _machine())
        asked = _requests(params, model)
        answers = engine.generate(list(asked.values()))
        found.speed = _speed(engine, params, model, batch, tokens)
    finally:
        close_engine(engine)
    if device != "none":
        from esr.engine.hf import HfEngine

        reference = HfEngine.open(params, model, device)
        wanted = reference.generate(list(asked.values()))
        found.compared = [_compare(name, a, b) for name, a, b in zip(asked, answers, wanted, strict=True)]
        reference.close()
    return found


def report(found: Verified) -> str:
    """A block to paste into a report."""
    who = found.fingerprint
    lines = [
        f"esr.engine verify: {'right' if found.right else 'WRONG'}",
        f"model      {who['model']} ({who['dtype']}, quantization {who['quantization']}, tensor parallel {who['tensor_parallel']}, pipeline {who['pipeline_parallel']})",
        f"versions   vLLM {who['vllm_version']}, torch {who['torch_version']}, transformers {who['transformers_version']}",
        f"machine    {found.machine}",
        f"sites      blocks {who['layers']}, {who['sites'][:16]}",
    ]
    if not found.compared:
        lines.append("parity     not checked: no reference was asked for")
    for one in found.compared:
        tokens = "identical" if one.identical else "differ"
        counts = "right" if one.applied else "WRONG"
        lines.append(f"parity     {one.name:<17} tokens {tokens}, streams within {one.difference:.1e}, counts {counts}")
    plain = found.speed.get("idle") or 1.0
    lines += [f"throughput {name:<17} {speed:,.0f} tokens/s, {speed / plain:.3f} of idle" for name, speed in found.speed.items()]
    return "\n".join(lines)


def _requests(params: Params, model: str) -> dict[str, Request]:
    """One of each kind of intervention, at the model's own SAE, with the stream after its block."""
    block = params.model(model)
    sae = params.sae(block.sae)
    layer, name = sae.layer, sae.name
    plain = Request(
        prompt=PROMPT, sampling=GREEDY, capture=Capture(layer=layer, mode="residual", positions="prompt", stage="after")
    )
    ops: dict[str, tuple[Op, ...]] = {
        "plain": (),
        "add": (Op("add", 1, 4.0, layer, name),),
        "clamp": (Op("clamp", 2, 4.0, layer, name), Op("clamp", 3, 0.0, layer, name)),
        "project_out": (Op("project_out", 1, 1.0, layer, name),),
        "clamp_projection": (Op("clamp_projection", 1, 2.0, layer, name),),
        "add_norm": (Op("add_norm", 1, 0.3, layer, name),),
        "schedule": (Intervention("add", 1, 4.0, layer, name, "generated", ((0, 1.0), (8, 0.0))),),
    }
    return {kind: replace(plain, ops=some) for kind, some in ops.items()}


def _compare(name: str, got: Output, want: Output) -> Compared:
    import numpy as np

    assert got.reading is not None
    assert want.reading is not None
    away = np.linalg.norm(got.reading.values - want.reading.values, axis=1) / np.linalg.norm(want.reading.values, axis=1)
    n = min(len(got.token_ids), len(want.token_ids))
    same_length = got.applied == want.applied or len(got.token_ids) != len(want.token_ids)
    return Compared(name, got.token_ids[:n] == want.token_ids[:n], float(away.max()), same_length)


def _speed(engine: Engine, params: Params, model: str, batch: int, tokens: int) -> dict[str, float]:
    block = params.model(model)
    sae = params.sae(block.sae)
    sampling = replace(GREEDY, max_tokens=tokens)
    found: dict[str, list[float]] = {"idle": [], "steered": [], "clamped": []}
    for number in range(ROUNDS + 1):
        for name, speeds in found.items():
            requests = []
            for i in range(batch):
                first = (number * batch + i) * 26 % sae.d_sae
                ops: tuple[Op, ...] = (Op("add", first, 2.0, sae.layer, sae.name),) if name == "steered" else ()
                if name == "clamped":
                    ops = tuple(Op("clamp", (first + j) % sae.d_sae, 0.0, sae.layer, sae.name) for j in range(min(26, sae.d_sae)))
                requests.append(Request(prompt=f"{number} {i}: {PROMPT}", sampling=sampling, ops=ops))
            start = time.perf_counter()
            made = sum(len(output.token_ids) for output in engine.generate(requests))
            if number:  # the first round warms up
                speeds.append(made / (time.perf_counter() - start))
    return {name: statistics.median(speeds) for name, speeds in found.items()}


def _machine() -> str:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return f"{device}; {platform.system()} {platform.machine()}, Python {platform.python_version()}"
