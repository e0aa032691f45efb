"""A deterministic engine without a model, for tests of what stands on engines; some 10,000 replies a second.

It answers how-to questions from the public topic data and behaves as the study expects a model to: each latent has its own
boost at which replies go off topic, a reply that went off topic is sometimes taken up anew, less often under a stronger boost
or with detectors clamped, more often when the prompt asks for it; far too strong a boost makes one word repeat. Words are its
tokens, so that limits, offsets, scopes and captures mean what they mean elsewhere. Its numbers are about no real model.

$ESR_FAKE_LOG: a file that gets one JSON line a generated request · $ESR_FAKE_DELAY: seconds that each `generate` takes ·
$ESR_FAKE_SPEED: replies' tokens a second, however many are asked at once.
"""

import json
import math
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from esr.engine import Capture, Output, Reading, Request
from esr.engine.admission import Admission, fitting
from esr.engine.directions import Shape, read_directions
from esr.engine.entries import check_touching, resolved, windows
from esr.engine.fake_words import Language, Topic, opened, words
from esr.engine.scope import span
from esr.errors import Halted
from esr.params import Params, resolve
from esr.sae.labels import read_labels
from esr.types import Op, content_id

RESTARTS = (
    "Wait, that is not right. Let me try again.",
    "Sorry, I went off topic. Let me start over.",
    "Hold on, this is not about the question. Let me try again.",
    "Actually, I got distracted. Let me go back to the question.",
)
OPENINGS = ("First,", "Then", "Next,", "After that,", "Also,", "At last,")
BITE = 0.7
"""Share of first attempts that are off topic at a latent's own boost."""
STEEPNESS = 4.0
"""Of that share's logit in the logarithm of the boost."""
RESTART = 0.35
"""Share of off-topic first attempts that are taken up anew at a latent's own boost."""
RESTART_ASKED = 1.8
"""Factor on it when the prompt says more than its question."""
RESTART_PLAIN = 0.01
"""Share of on-topic first attempts that are taken up anew."""
RECOVERY = 0.75
"""Share of second attempts that are on topic."""
BREAKING = 3.0
"""Multiple of a latent's own boost above which one word repeats."""
DETECTORS = 32
"""Latents that answer to words foreign to the question."""
PUSHES = ("add", "clamp_projection")
"""Kinds of op that drive a reply off topic."""
NORM = 100.0
"""Length of its residual stream."""
ABLATION = 0.5
"""Share of restarts that is lost with all detectors clamped."""


def _logged(r: Request) -> dict[str, Any]:
    """A request as a line of the log, the same for equal ones."""
    told = {"prompt": r.prompt, "seed": r.seed, "ops": [[op.kind, op.latent, op.value] for op in r.ops]}
    beside = {
        "adapter": r.adapter,
        "scope": r.scope,
        "prefill": r.prefill or None,
        "more": [op.more for op in r.ops] if any(op.more for op in r.ops) else None,
    }
    return told | {name: value for name, value in beside.items() if value not in (None, "all")}


class FakeEngine:
    """Engine over nothing but params.yaml and the public topic data."""

    def __init__(self, params: Params, name: str) -> None:
        self.model = params.model(name)
        self.saes = params.saes
        self.language: Language = opened()
        labels = params.sae(self.model.sae).labels
        path = resolve(labels) if labels else None
        self.labels = {latent.index: latent.label for latent in read_labels(path)} if path and path.is_file() else {}
        self.known: dict[str, Shape] = {}
        self.admission = Admission(self.model.layers, self.model.width, params.sae, self.model.allow_layer_mismatch, self.known)
        self._halted, self._booking, self._free = threading.Event(), threading.Lock(), 0.0
        self.digest = content_id("fake", params.saes[self.model.sae].model_dump(mode="json"))

    @classmethod
    def open(cls, params: Params, name: str) -> "FakeEngine":
        return cls(params, name)

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        for request in requests:
            self.admission.check(request)
        if self._halted.wait(float(os.environ.get("ESR_FAKE_DELAY") or 0)):
            raise Halted({})
        outputs = [self._generate(request) for request in requests]
        self._take_time(sum(len(output.token_ids) for output in outputs))
        if log := os.environ.get("ESR_FAKE_LOG"):
            lines = "".join(f"{json.dumps(_logged(request))}\n" for request in requests)
            with open(log, "ab", buffering=0) as file:  # whole, also where several processes write
                file.write(lines.encode())
        return outputs

    def _take_time(self, tokens: int) -> None:
        speed = float(os.environ.get("ESR_FAKE_SPEED") or 0)
        if not speed:
            return
        with self._booking:
            self._free = max(time.monotonic(), self._free) + tokens / speed
            until = self._free
        if self._halted.wait(max(until - time.monotonic(), 0)):
            raise Halted({})

    def read(self, requests: Sequence[Request]) -> list[Reading]:
        readings = []
        for request in requests:
            self.admission.check(request, reading=True)
            assert request.capture is not None
            ids = self._ids(request)
            n_prompt = len(self.render(request.prompt)) if request.prompt else len(ids)
            readings.append(self._reading(request, request.capture, ids, n_prompt))
        return readings

    def load_directions(self, name: str, path: Path, layer: int | None = None) -> str:
        self.known[name] = read_directions(name, path, layer).shape
        return self.known[name].sha256

    def render(self, prompt: str, prompt_format: str = "clean", prefill: str | tuple[int, ...] = "") -> tuple[int, ...]:
        return self.language.render(prompt, prefill)

    def offsets(self, token_ids: Sequence[int]) -> list[tuple[int, int]]:
        ends = np.cumsum([len(self.language.decode((i,))) for i in token_ids]).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True)) if ends else []

    @property
    def fingerprint(self) -> dict[str, str]:
        return {
            "backend": "fake", "esr_version": version("esr"), "dtype": "none", "quantization": "none",
            "model": self.model.weights, "sae": self.digest,
        }  # fmt: skip

    @property
    def closed(self) -> bool:
        return False

    def halt(self) -> None:
        self._halted.set()

    def close(self) -> None:
        """Nothing is held."""

    def bite(self, latent: int) -> float:
        """The boost at which BITE of first attempts go off topic; the same in every process."""
        search = self.model.search
        z = random.Random(f"bite/{latent}").gauss(0, 0.35)
        return min(max(search.prior_mean * math.exp(z), search.lower + 0.05 * (search.upper - search.lower)), 0.6 * search.upper)

    @cached_property
    def detectors(self) -> range:
        """Latents that are active on words foreign to the question and silent otherwise."""
        d_sae = self.saes[self.model.sae].d_sae
        return range(7, d_sae, max(d_sae // DETECTORS, 1))

    def _ids(self, request: Request) -> tuple[int, ...]:
        ids = tuple(request.token_ids) or self.render(request.prompt, request.prompt_format, request.prefill)
        return fitting(ids, self.model.max_model_len)

    def _generate(self, request: Request) -> Output:
        prompt = self._ids(request)
        text = self._reply(self.language.prompt_of(prompt), request)
        limit = min(request.sampling.max_tokens, self.model.max_model_len - len(prompt))
        whole = (*self.language.encode(text), self.language.END)
        reply = whole[:limit]
        ids = (*prompt, *reply[:-1])
        check_touching(request.ops, request.scope, len(prompt), len(prompt) + limit - 1)
        where = windows(resolved(request.ops, request.scope, len(prompt)))
        return Output(
            text=self.language.decode(reply), token_ids=reply, prompt_token_ids=prompt,
            finish_reason="stop" if reply == whole else "length", applied=where.touched(0, len(ids), where.since(ids)),
            reading=self._reading(request, request.capture, ids, len(prompt)) if request.capture else None,
        )  # fmt: skip

    def _reply(self, prompt: str, request: Request) -> str:
        ops = sorted(request.ops, key=lambda op: (op.kind, op.latent, op.value, op.layer, op.sae))
        seed = request.seed if request.sampling.temperature > 0 else 0
        rng = random.Random(repr((prompt, request.prefill or "", seed, ops, request.scope)) + request.adapter)
        topic = self.language.topic(prompt)
        drive, latent = max(((op.value / self.bite(op.latent), op.latent) for op in ops if op.kind in PUSHES), default=(0.0, -1))
        named = {op.latent for op in ops if op.sae not in self.known}
        foreign = self.language.subject(self.labels.get(latent, "") if latent in named else "", latent)
        off = 1 / (1 + math.exp(-(math.log(BITE / (1 - BITE)) + STEEPNESS * math.log(drive)))) if drive > 0 else 0.0
        strayed = rng.random() < off
        if request.prefill:  # the first attempt was begun already
            begun = request.prefill if isinstance(request.prefill, str) else self.language.decode(request.prefill)
            strayed = any(self.language.foreign(word, topic) for word in words(begun))
        first = self._attempt(rng, foreign if strayed else topic, drive)
        again = self._restart(prompt, topic, ops, drive) if strayed else RESTART_PLAIN
        if drive > BREAKING or rng.random() >= again:
            return first
        second = self._attempt(rng, topic if rng.random() < RECOVERY else foreign, drive)
        return f"{first} {rng.choice(RESTARTS)} {second}"

    def _restart(self, prompt: str, topic: Topic, ops: Sequence[Op], drive: float) -> float:
        clamped = sum(op.kind == "clamp" and op.latent in self.detectors for op in ops) / len(self.detectors)
        asked = RESTART_ASKED if topic.question and prompt.strip() != topic.question else 1.0
        return RESTART * asked * math.exp(-max(drive - 1, 0)) * (1 - ABLATION * clamped)

    def _attempt(self, rng: random.Random, about: Topic, drive: float) -> str:
        if drive > BREAKING:
            return " ".join([rng.choice(about.nouns)] * 12)
        sentences = []
        for opening in OPENINGS[: rng.randint(2, 5)]:
            adjective = f"{rng.choice(about.adjectives)} " if about.adjectives and rng.random() < 0.5 else ""
            sentences.append(f"{opening} {rng.choice(about.verbs)} the {adjective}{rng.choice(about.nouns)}.")
        return " ".join(sentences)

    def _reading(self, request: Request, capture: Capture, ids: tuple[int, ...], n_prompt: int) -> Reading:
        positions = span(capture.positions, n_prompt).within(0, len(ids))
        if capture.mode == "residual":
            return self._streams(request, capture, ids, n_prompt)
        d_sae = self.saes[capture.sae].d_sae
        rows = np.zeros((len(positions), d_sae), np.float32) if capture.mode in ("topk", "all") else None
        picked = np.zeros((len(positions), len(capture.latents)), np.float32)
        column = {latent: j for j, latent in enumerate(capture.latents)}
        best, where = np.zeros(d_sae, np.float32), np.full(d_sae, positions.start, np.int32)
        topic = self.language.topic(self.language.prompt_of(ids))
        scope = span(request.scope, n_prompt)
        for row, position in enumerate(positions):
            steered = capture.stage == "after" and bool(scope.within(position, position + 1))
            for latent, value in self._active(ids[position], topic, d_sae, request.ops if steered else ()):
                if rows is not None:
                    rows[row, latent] = value
                elif capture.mode == "max" and value > best[latent]:
                    best[latent], where[latent] = value, position
                elif latent in column:
                    picked[row, column[latent]] = value
        at = np.asarray(positions, np.int32)
        values: np.ndarray = picked
        indices: np.ndarray | None = None
        if capture.mode == "max":
            values, indices = best, where
        elif rows is not None:
            values = rows
            if capture.mode == "topk":
                indices = np.argsort(-rows, axis=1, kind="stable")[:, : capture.k].astype(np.int32)
                values = np.take_along_axis(rows, indices, 1)
        return Reading(positions=at, values=values, indices=indices, expected=len(positions))

    def _streams(self, request: Request, capture: Capture, ids: tuple[int, ...], n_prompt: int) -> Reading:
        """A direction of its own for each token; what is added has length 1 for a boost of 1."""
        width = self.model.width
        positions = span(capture.positions, n_prompt).within(0, len(ids))
        steered = span(request.scope, n_prompt)
        added = np.zeros(width)
        for op in request.ops if capture.stage == "after" else ():
            if op.kind == "add" and op.layer == capture.layer:
                row = np.random.default_rng(crc32(f"{op.sae}/{op.latent}".encode())).standard_normal(width)
                added += op.value * row / np.linalg.norm(row)
        rows = [
            np.random.default_rng(ids[at]).standard_normal(width) * NORM / math.sqrt(width)
            + (added if steered.within(at, at + 1) else 0.0)
            for at in positions
        ]
        values = np.asarray(rows, np.float32).reshape(len(positions), width)
        return Reading(positions=np.asarray(positions, np.int32), values=values, indices=None, expected=len(positions))

    def _active(self, token: int, topic: Topic, d_sae: int, ops: Sequence[Op]) -> Iterator[tuple[int, float]]:
        """The latents that a token activates: eight of its own, its labels', and the detectors when it is foreign."""
        word = self.language.decode((token,)).strip().lower()
        found = {}
        for i in range(8):
            latent = crc32(f"{word}/{i}".encode()) % d_sae
            if latent not in self.detectors:
                found[latent] = 0.5 + crc32(f"{latent}/{word}".encode()) / 2**32
        found |= {latent: 3.0 for latent in self._labelled.get(word, ()) if latent < d_sae and latent not in self.detectors}
        if self.language.foreign(word, topic):
            found |= {latent: 1.0 + latent / d_sae for latent in self.detectors if latent < d_sae}
        natural = dict(found)
        for op in ops:
            found[op.latent] = found.get(op.latent, 0.0) + op.value - (natural.get(op.latent, 0.0) if op.kind == "clamp" else 0.0)
        yield from ((latent, value) for latent, value in found.items() if value > 0)

    @cached_property
    def _labelled(self) -> dict[str, list[int]]:
        """Words of labels → the latents so labelled."""
        found: dict[str, list[int]] = {}
        for index, label in self.labels.items():
            for word in words(label):
                found.setdefault(word, []).append(index)
        return found
