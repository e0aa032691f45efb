"""The reference engine: transformers in float32 with one forward hook a layer, one request at a time.

Short and obviously right rather than fast; the production engine is tested against it token by token.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from esr.engine import Capture, Output, Reading, Request
from esr.engine.adapter import Adapter
from esr.engine.admission import Admission, check_marker, fitting
from esr.engine.chat import Chat
from esr.engine.directions import Directions, Shape, read_directions
from esr.engine.entries import check_apart, check_touching, resolved
from esr.engine.intervention import Intervention, place
from esr.engine.sampling import next_token
from esr.engine.scope import Span, span
from esr.errors import EngineError, Halted, SpecError
from esr.params import Params, resolve, source
from esr.sae import Sae, open_sae
from esr.types import Op, Sampling

T = TypeVar("T")
Rows = Tensor | Sae
"""What an op's row is taken from: directions [n, width], or an SAE."""


@dataclass(frozen=True, slots=True)
class Part:
    """One op of a site, and where its rows are from."""

    op: Op
    rows: Rows
    scope: Span
    gate: Rows | None = None
    """Where its condition's row is from."""


@dataclass(slots=True)
class _Site:
    """What one request does after one block, over the forward passes that make its sequence."""

    parts: list[Part] = field(default_factory=list)
    n_prompt: int = 0
    capture: Capture | None = None
    captured: Span = field(default=Span(0, None))
    applied: int = 0
    rows: list[Tensor] = field(default_factory=list)

    def __call__(self, x: Tensor, start: int, seen: Sequence[int] = ()) -> Tensor:
        """The stream [tokens, width] at positions start, start + 1, … after the interventions; `seen`: all tokens so far."""
        stop = start + len(x)
        total, touched = torch.zeros_like(x), set[int]()
        for part in self.parts:
            inside = part.scope.behind(part.scope.since(seen)).within(start, stop)
            touched |= set(inside)
            if inside:
                here = slice(inside.start - start, inside.stop - start)
                total[here] += delta(x[here], part, [at - self.n_prompt for at in inside])
        changed = x + total if touched else x
        self.applied += len(touched)
        if touched and not bool(changed[[at - start for at in sorted(touched)]].square().sum(-1).isfinite().all()):
            raise EngineError(BROKEN)
        if self.capture is not None:
            among = self.captured.within(start, stop)
            stream = x if self.capture.stage == "before" else changed
            self.rows.append(stream[among.start - start : among.stop - start].clone() if among else stream[:0])
        return changed


BROKEN = "the residual stream left float32 under its interventions; a smaller value would do"


def delta(x: Tensor, part: Part, generated: Sequence[int]) -> Tensor:
    """What one intervention adds to the streams x [tokens, width], each of which it sees before any other one; `generated`: the
    number of each token among the generated ones."""
    op, d = part.op, _row(part.rows, part.op.latent)
    value = torch.full((len(x),), op.value)
    if isinstance(op, Intervention):
        value = torch.tensor([op.value * op.factor(at) for at in generated], dtype=torch.float32)
    value = value.to(x.device)[:, None]
    u: Tensor = d / d.norm()
    added: Tensor
    if op.kind == "add":
        added = (value * d).expand_as(x)
    elif op.kind == "clamp":
        added = (value - _measure(x, part.rows, op.latent)) * d
    elif op.kind == "project_out":
        added = -value * (x @ u)[:, None] * u
    elif op.kind == "clamp_projection":
        added = (value - (x @ u)[:, None]) * u
    else:
        added = value * x.norm(dim=-1, keepdim=True) * u
    if isinstance(op, Intervention) and op.when is not None and part.gate is not None:
        return torch.where(_measure(x, part.gate, op.when.latent) > op.when.above, added, 0.0)
    return added


def _named(ops: Sequence[Op]) -> set[str]:
    """SAEs and sets of directions of ops and their conditions."""
    return {op.sae for op in ops} | {op.when.sae for op in ops if isinstance(op, Intervention) and op.when}


def _row(rows: Rows, index: int) -> Tensor:
    return rows[index] if isinstance(rows, Tensor) else rows.W_dec[index]


def _measure(x: Tensor, rows: Rows, index: int) -> Tensor:
    """A latent's activation, or the stream's length along a direction; [tokens, 1]."""
    if isinstance(rows, Tensor):
        u: Tensor = rows[index] / rows[index].norm()
        return (x @ u)[:, None]
    return rows.encode(x, torch.tensor([index]))


class HfEngine:
    """Engine over a transformers model; `saes` finds an SAE by its name in params.yaml."""

    def __init__(
        self, model: Any, chat: Chat, saes: Callable[[str], Sae], *, max_model_len: int,
        allow_layer_mismatch: bool = False, identity: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        self.model.eval()
        self.chat = chat
        self.device = torch.device(model.device)
        self.saes = cache(lambda name: saes(name).to(self.device))
        self.max_model_len = max_model_len
        config = self.model.config
        self.directions: dict[str, Directions] = {}
        self.known: dict[str, Shape] = {}
        self.admission = Admission(config.num_hidden_layers, config.hidden_size, self.saes, allow_layer_mismatch, self.known)
        self.vocabulary: int = self.model.get_output_embeddings().weight.shape[0]
        self._identity = identity or {}
        self._adapters: set[str] = set()
        self._closed = False
        self._lock = threading.Lock()
        self._halted = threading.Event()

    @classmethod
    def open(cls, params: Params, name: str, device: str = "cpu", *, saes: bool = True) -> "HfEngine":
        from transformers import AutoModelForCausalLM, AutoTokenizer

        block = params.model(name)
        where, revision = source(block.hub, block.revision)
        try:
            tokenizer = AutoTokenizer.from_pretrained(where, **revision)
            model: Any = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, attn_implementation="eager", **revision)
        except OSError as error:
            raise EngineError(
                f"model {name!r} is neither a folder nor on the hub as {block.hub!r}: {' '.join(str(error).split())[:200]}"
            ) from None
        if block.adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(resolve(block.adapter))).merge_and_unload()
        model.to(device)
        identity = {"model": block.weights, **({"sae": open_sae(params, block.sae).sha256} if saes else {})}
        return cls(
            model, Chat(tokenizer, block.family), partial(open_sae, params), max_model_len=block.max_model_len,
            allow_layer_mismatch=block.allow_layer_mismatch, identity=identity,
        )  # fmt: skip

    def load_directions(self, name: str, path: Path, layer: int | None = None) -> str:
        """A set of directions under a name; its hash."""
        found = read_directions(name, path, layer)
        shape = found.shape
        if name in self.known and self.known[name].sha256 != shape.sha256:
            raise EngineError(f"directions {name!r} are loaded with other content; give these another name")
        self.directions[name], self.known[name] = found, shape
        return shape.sha256

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        self._check_open()
        for request in requests:
            self.admission.check(request)
        return self._each(self._generate, requests)

    def read(self, requests: Sequence[Request]) -> list[Reading]:
        self._check_open()
        for request in requests:
            self.admission.check(request, reading=True)
        return self._each(self._read, requests)

    def render(self, prompt: str, prompt_format: str = "clean", prefill: str | tuple[int, ...] = "") -> tuple[int, ...]:
        return self.chat.render(prompt, prompt_format, prefill)

    def offsets(self, token_ids: Sequence[int]) -> list[tuple[int, int]]:
        return self.chat.offsets(token_ids)

    @property
    def fingerprint(self) -> dict[str, str]:
        versions = {f"{package}_version": version(package) for package in ("torch", "transformers")}
        return {"backend": "hf", "dtype": "float32", "quantization": "none"} | versions | self._identity

    @property
    def closed(self) -> bool:
        return self._closed

    def halt(self) -> None:
        self._halted.set()

    def close(self) -> None:
        """Let the model go; safe to call twice."""
        self._closed, self.model = True, None

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed; open it again")

    def _each(self, todo: Callable[[Request], T], requests: Sequence[Request]) -> list[T]:
        found: list[T] = []
        for request in requests:
            if self._halted.is_set():
                raise Halted(dict(enumerate(found)))
            found.append(todo(request))
        return found

    def _generate(self, request: Request) -> Output:
        prompt = self._ids(request)
        limit = min(request.sampling.max_tokens, self.max_model_len - len(prompt))
        sites = self._sites(request, len(prompt), len(prompt) + limit - 1)
        with self._lock, torch.inference_mode(), self._adapted(request.adapter):
            reply, finish = self._sample(prompt, request.sampling, request.seed, limit, sites)
        return Output(
            text=self.chat.decode(reply), token_ids=tuple(reply), prompt_token_ids=prompt, finish_reason=finish,
            applied=sum(site.applied for site in sites.values()), reading=self._reading(sites, len(prompt) + len(reply) - 1),
            directions=tuple(sorted((name, self.known[name].sha256) for name in _named(request.ops) if name in self.known)),
        )  # fmt: skip

    def _read(self, request: Request) -> Reading:
        ids = self._ids(request)
        n_prompt = len(self.render(request.prompt, request.prompt_format)) if request.prompt else len(ids)
        sites = self._sites(request, n_prompt, len(ids))
        with self._lock, torch.inference_mode(), self._adapted(request.adapter):
            self._forward(ids, 0, None, sites)
        reading = self._reading(sites, len(ids))
        assert reading is not None
        return reading

    def _ids(self, request: Request) -> tuple[int, ...]:
        ids = request.token_ids or self.render(request.prompt, request.prompt_format, request.prefill)
        return fitting(ids, self.max_model_len, self.vocabulary)

    def _sites(self, request: Request, n_prompt: int, n_rows: int) -> dict[int, _Site]:
        sites: dict[int, _Site] = {}
        check_touching(request.ops, request.scope, n_prompt, n_rows)
        check_marker(resolved(request.ops, request.scope, n_prompt), self.vocabulary)
        check_apart(request.ops, request.scope, n_prompt)
        for op in request.ops:
            when = op.when if isinstance(op, Intervention) else None
            part = Part(
                op,
                self._rows(op.sae, op.layer),
                place(op, request.scope, n_prompt),
                self._rows(when.sae, op.layer) if when else None,
            )
            sites.setdefault(op.layer, _Site(n_prompt=n_prompt)).parts.append(part)
        if (capture := request.capture) is not None:
            site = sites.setdefault(capture.layer, _Site(n_prompt=n_prompt))
            site.capture, site.captured = capture, span(capture.positions, n_prompt)
            self.admission.check_size(capture, n_prompt, n_rows)
        return sites

    def _rows(self, name: str, layer: int) -> Rows:
        if name in self.directions:
            return torch.from_numpy(self.directions[name].layers[layer]).to(self.device)
        return self.saes(name)

    @contextmanager
    def _adapted(self, folder: str) -> Iterator[None]:
        """With a LoRA adapter, or with none even where one was used before."""
        if folder:
            name = Adapter.of(folder).name
            if name not in self._adapters:
                self.model.load_adapter(str(resolve(folder)), adapter_name=name)
                self._adapters.add(name)
            self.model.enable_adapters()
            self.model.set_adapter(name)
        elif self._adapters:
            self.model.disable_adapters()
        yield

    def _sample(
        self, prompt: tuple[int, ...], sampling: Sampling, seed: int, limit: int, sites: dict[int, _Site]
    ) -> tuple[list[int], str]:  # fmt: skip
        generator = torch.Generator().manual_seed(seed)
        seen = torch.zeros(self.vocabulary, dtype=torch.bool)
        seen[list(prompt)] = True
        reply: list[int] = []
        logits, memory = self._forward(prompt, 0, None, sites)
        while True:
            token = next_token(logits, seen, sampling, generator)
            reply.append(token)
            seen[token] = True
            if token in self.chat.stop_ids:
                return reply, "stop"
            if len(reply) == limit:
                return reply, "length"
            logits, memory = self._forward([token], len(prompt) + len(reply) - 1, memory, sites, (*prompt, *reply))

    def _forward(
        self, ids: Sequence[int], start: int, memory: Any, sites: dict[int, _Site], seen: Sequence[int] = ()
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Logits [vocab] after the last of `ids`, which stand at start, start + 1, …, and end all tokens `seen`; and the key-value
        cache."""
        with self._hooked(sites, start, seen or ids):
            out = self.model(input_ids=torch.tensor([list(ids)], device=self.device), past_key_values=memory, use_cache=True)
        return out.logits[0, -1].float().cpu(), out.past_key_values

    @contextmanager
    def _hooked(self, sites: dict[int, _Site], start: int, seen: Sequence[int]) -> Iterator[None]:
        def hook(site: _Site, _module: nn.Module, _inputs: object, stream: Tensor) -> Tensor:
            return site(stream[0], start, seen)[None]

        blocks = self.model.model.layers
        handles = [blocks[layer].register_forward_hook(partial(hook, site)) for layer, site in sites.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _reading(self, sites: dict[int, _Site], n_rows: int) -> Reading | None:
        for site in sites.values():
            if site.capture is not None:
                sae = self.saes(site.capture.sae) if site.capture.sae else None
                return read_rows(torch.cat(site.rows), site.captured.within(0, n_rows), site.capture, sae)
        return None


def read_rows(x: Tensor, positions: range, capture: Capture, sae: Sae | None) -> Reading:
    """What `capture` asks for of the streams x [rows, width] at `positions`."""
    if len(x) != len(positions):
        raise EngineError(f"a capture of {len(positions)} positions came back with {len(x)} rows")
    at = np.asarray(positions, dtype=np.int32)
    indices: np.ndarray | None = None
    if capture.mode == "residual" or sae is None:
        values = x
    elif capture.mode == "latents":
        values = sae.encode(x, torch.tensor(capture.latents))
    else:
        f = sae.encode(x)
        if capture.mode == "topk":
            top = f.topk(capture.k, dim=-1)
            values, indices = top.values, top.indices.cpu().numpy().astype(np.int32)
        elif capture.mode == "max":
            if not len(f):
                raise SpecError(f"a capture of mode 'max' over {capture.positions!r}, which holds no position of this sequence")
            values, first = f.max(0)
            indices = at[first.cpu().numpy()]
        else:
            values = f
    return Reading(positions=at, values=values.float().cpu().numpy(), indices=indices, expected=len(positions))
