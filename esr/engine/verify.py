"""A self-check for users: the engine, or a running server, against the readable reference on this machine, and what steering costs.

Every kind of request goes out in one batch. A reply is held against the reference's token by token, its streams as far as both replies
are the same, its count against the positions that are due in it.
"""

import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from esr.engine import Output, Request
from esr.engine.cases import GREEDY, PROMPT, Answers, cases, due, made_directions, probe
from esr.engine.open import close_engine, open_engine
from esr.errors import EngineError, SpecError
from esr.params import Params
from esr.types import Op

if TYPE_CHECKING:
    from esr.engine.cases import Made
    from esr.engine.server import Server

ROUNDS = 3
SLACK = 2.0
"""Steered streams may be so many times as far from the reference's as plain ones are, where the model is not in float32."""
FLOOR = 1e-4
"""Relative difference of streams that is rounding alone in float32."""
APART, APART_ROUNDED = 0.01, 0.25
"""Relative difference of plain streams, in float32 and otherwise, that no rounding makes, also not of quantized weights."""


@dataclass(frozen=True, slots=True)
class Compared:
    name: str
    identical: bool | None = None
    """The whole reply, token by token; None: there is no reference."""
    difference: float | None = None
    """Of the captured streams, relative, the largest over the positions up to where the replies part."""
    change: float = 0.0
    """What the interventions make of the reference's plain stream, in the same measure."""
    applied: int = 0
    due: int = 0
    """In the reply that came."""
    failed: str = ""
    """Why there is no reply, or none that is whole."""


@dataclass(slots=True)
class Verified:
    fingerprint: dict[str, str]
    machine: str
    compared: list[Compared] = field(default_factory=list)
    speed: dict[str, float] = field(default_factory=dict)
    """Generated tokens a second."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Kinds of requests that were not asked, and why."""

    @property
    def exact(self) -> bool:
        """In float32 replies are the reference's; a coarser stream may turn near ties of two tokens round."""
        return self.fingerprint["dtype"] == "float32" and self.fingerprint["quantization"] == "none"

    @property
    def wrong(self) -> list[str]:
        """What is, a sentence each."""
        plain = next((one.difference for one in self.compared if one.name == "plain" and one.difference is not None), 0.0)
        found = []
        for one in self.compared:
            near = (APART if self.exact else APART_ROUNDED) if one.name == "plain" else SLACK * plain + FLOOR
            if one.failed:
                found.append(f"{one.name}: {one.failed}")
                continue
            if one.applied != one.due:
                found.append(f"{one.name}: applied {one.applied} times where {one.due} were due")
            if one.difference is not None and not one.difference <= near:
                found.append(f"{one.name}: streams are {one.difference:.1e} from the reference's where {near:.1e} would do")
            if one.identical is False and self.exact:
                found.append(f"{one.name}: the reply is not the reference's, and the model is in float32")
        return found

    @property
    def right(self) -> bool:
        return not self.wrong


def verify(params: Params, model: str, *, device: str = "cpu", batch: int = 64, tokens: int = 64) -> Verified:
    """device: of the reference; `none` leaves it out."""
    with TemporaryDirectory() as folder:
        sae = params.sae(params.model(model).sae)
        made = made_directions(Path(folder), sae)
        engine = open_engine(params, model, "vllm", layers=(sae.layer,))
        try:
            found = Verified(dict(engine.fingerprint), machine())
            asked, answers = _asked(engine, params, model, made, found, batch, tokens)
        finally:
            close_engine(engine)
        _hold(found, params, model, device, asked, answers, made)
    return found


def verify_server(
    params: Params, model: str, server: "Server", *, device: str = "cpu", batch: int = 64, tokens: int = 64
) -> Verified:
    """The same of a server that is running."""
    with TemporaryDirectory() as folder:
        made = made_directions(Path(folder), params.sae(params.model(model).sae))
        found = Verified(dict(server.fingerprint), machine())
        asked, answers = _asked(server, params, model, made, found, batch, tokens)
        _hold(found, params, model, device, asked, answers, made)
    return found


def report(found: Verified) -> str:
    """A block to paste into a report."""
    who, wrong = found.fingerprint, found.wrong
    parallel = (
        f", tensor parallel {who['tensor_parallel']}, pipeline {who['pipeline_parallel']}" if "tensor_parallel" in who else ""
    )
    lines = [
        f"esr.engine verify: {'WRONG' if wrong else 'right'}",
        f"model      {who['model']} ({who['dtype']}, quantization {who['quantization']}{parallel})",
        *([f"server     {who['server']}, which serves {who['served']!r}"] if "server" in who else []),
        f"versions   vLLM {who['vllm_version']}, torch {who['torch_version']}, transformers {who['transformers_version']}",
        f"machine    {found.machine}",
        f"sites      blocks {who['layers']}, " + (f"SAE {who['sae']!r}" if "server" in who else who["sites"][:16]),
    ]
    if all(one.identical is None for one in found.compared):
        lines.append("parity     not checked: no reference was asked for, or nothing to hold against it came")
    lines += [f"parity     {one.name:<17} {_told(one)}" for one in found.compared]
    lines += [f"left out   {name:<17} {why}" for name, why in found.left_out.items()]
    plain = found.speed.get("idle") or 1.0
    lines += [f"throughput {name:<17} {speed:,.0f} tokens/s, {speed / plain:.3f} of idle" for name, speed in found.speed.items()]
    return "\n".join([*lines, *(f"wrong      {sentence}" for sentence in wrong)])


def _told(one: Compared) -> str:
    if one.failed:
        return "FAILED"
    counts = "counts " + ("right" if one.applied == one.due else "WRONG")
    if one.difference is None:
        return counts
    change = f" of a change by {one.change:.1e}" if one.change else ""
    return f"tokens {'identical' if one.identical else 'differ'}, streams within {one.difference:.1e}{change}, {counts}"


def _asked(
    engine: Answers, params: Params, model: str, made: "Made", found: Verified, batch: int, tokens: int
) -> tuple[dict[str, Request], list[Output | str]]:  # fmt: skip
    """The requests and what came of each; and, where something came of all, how fast it comes."""
    sae = params.sae(params.model(model).sae)
    probed = probe(engine, sae)
    try:
        engine.load_directions(made.name, made.path)
        name = made.name
    except SpecError as error:  # a server need not take any
        found.left_out["directions"], name = str(error), ""
    asked = cases(params, sae, probed, name)
    answers = _answers(engine, list(asked.values()))
    if any(isinstance(answer, str) for answer in answers):
        found.left_out["throughput"] = "a request failed"
    else:
        found.speed = _speed(engine, params, model, batch, tokens)
    return asked, answers


def _answers(engine: Answers, requests: list[Request]) -> list[Output | str]:
    """In one batch; where that fails, one by one, so that it is known which do."""
    try:
        return list(engine.generate(requests))
    except EngineError:
        return [_answer(engine, request) for request in requests]


def _answer(engine: Answers, request: Request) -> Output | str:
    try:
        return engine.generate([request])[0]
    except EngineError as error:
        return str(error)


def _hold(
    found: Verified, params: Params, model: str, device: str, asked: dict[str, Request], answers: Sequence[Output | str], made: "Made"
) -> None:  # fmt: skip
    """Against the reference; without one, the counts alone."""
    if device == "none":
        found.compared = [compare(name, request, got) for (name, request), got in zip(asked.items(), answers, strict=True)]
        return
    from esr.engine.hf import HfEngine

    reference = HfEngine.open(params, model, device)
    try:
        reference.load_directions(made.name, made.path)
        wanted = reference.generate(list(asked.values()))
    finally:
        reference.close()
    found.compared = [
        compare(name, request, got, want, wanted[0], reference.chat.stop_ids)
        for (name, request), got, want in zip(asked.items(), answers, wanted, strict=True)
    ]


def compare(
    name: str, request: Request, got: Output | str, want: Output | None = None, plain: Output | None = None, stops: Sequence[int] = ()
) -> Compared:  # fmt: skip
    """plain: the reference's answer without interventions; stops: tokens that end a reply."""
    if isinstance(got, str):
        return Compared(name, failed=got)
    n, prompt = len(got.token_ids), len(got.prompt_token_ids)
    here = Compared(name, applied=got.applied, due=due(request, got))
    if got.reading is None or len(got.reading.positions) != prompt + n - 1:
        rows = 0 if got.reading is None else len(got.reading.positions)
        return replace(here, failed=f"the capture has {rows} rows where {prompt + n - 1} were due")
    if want is None or plain is None:
        return here
    if got.prompt_token_ids != want.prompt_token_ids:
        return replace(here, failed="the prompt's tokens are not the reference's")
    if n < request.sampling.max_tokens and not (got.token_ids and got.token_ids[-1] in stops):
        return replace(here, failed=f"the reply breaks off after {n} of {request.sampling.max_tokens} tokens")
    return replace(
        here, identical=got.token_ids == want.token_ids, difference=_apart(got, want, plain), change=_apart(want, plain, plain)
    )  # fmt: skip


def _apart(got: Output, want: Output, plain: Output) -> float:
    """The largest difference of their streams, at positions before which both have the same tokens; relative to the longer of the wanted
    and the plain stream there, since an op that shortens a stream leaves its rounding as it was."""
    streams = [output.reading.values for output in (got, want, plain) if output.reading is not None]
    pairs = zip(got.token_ids, want.token_ids, strict=False)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(got.token_ids), len(want.token_ids)))
    rows = min(len(want.prompt_token_ids) + same, len(streams[0]), len(streams[1]))
    a, b, c = (stream[:rows] for stream in streams)
    scale = np.linalg.norm(b, axis=1)
    scale[: len(c)] = np.maximum(scale[: len(c)], np.linalg.norm(c, axis=1))
    return float((np.linalg.norm(a - b, axis=1) / scale).max())


def _speed(engine: Answers, params: Params, model: str, batch: int, tokens: int) -> dict[str, float]:
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


def machine() -> str:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return f"{device}; {platform.system()} {platform.machine()}, Python {platform.python_version()}"
