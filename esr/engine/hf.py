"""The reference engine: transformers in float32 with one forward hook a layer, one request at a time.

Short and obviously right rather than fast; the production engine is tested against it token by token.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from esr.engine import Capture, Output, Reading, Request
from esr.engine.admission import Admission, Span, fitting, span
from esr.engine.chat import Chat
from esr.engine.sampling import next_token
from esr.errors import EngineError, Halted, SpecError
from esr.params import Params, resolve
from esr.sae import Sae, open_sae
from esr.types import Op, Sampling

T = TypeVar("T")


@dataclass(slots=True)
class _Site:
    """What one request does after one block, over the forward passes that make its sequence."""

    scope: Span
    ops: list[tuple[Op, Sae]] = field(default_factory=list)
    capture: Capture | None = None
    captured: Span = field(default=Span(0, None))
    applied: int = 0
    rows: list[Tensor] = field(default_factory=list)

    def __call__(self, x: Tensor, start: int) -> Tensor:
        """The stream [tokens, width] at positions start, start + 1, … after the interventions."""
        stop = start + len(x)
        changed = x
        inside = self.scope.within(start, stop)
        if self.ops and inside:
            here = slice(inside.start - start, inside.stop - start)
            changed = x.clone()
            changed[here] += sum((delta(x[here], op, sae) for op, sae in self.ops), torch.zeros_like(x[here]))
            self.applied += len(inside)
        if self.capture is not None:
            seen = self.captured.within(start, stop)
            stream = x if self.capture.stage == "before" else changed
            self.rows.append(stream[seen.start - start : seen.stop - start].clone() if seen else stream[:0])
        return changed


def delta(x: Tensor, op: Op, sae: Sae) -> Tensor:
    """What one intervention adds to the streams x [tokens, width], each of which it sees before any other one."""
    if op.kind == "add":
        return op.value * sae.W_dec[op.latent].expand_as(x)
    f = sae.encode(x, torch.tensor([op.latent]))
    return (op.value - f) * sae.W_dec[op.latent]


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
        self.admission = Admission(config.num_hidden_layers, config.hidden_size, self.saes, allow_layer_mismatch)
        self.vocabulary: int = self.model.get_output_embeddings().weight.shape[0]
        self._identity = identity or {}
        self._lock = threading.Lock()
        self._halted = threading.Event()

    @classmethod
    def open(cls, params: Params, name: str, device: str = "cpu") -> "HfEngine":
        from transformers import AutoModelForCausalLM, AutoTokenizer

        block = params.model(name)
        local = resolve(block.hub)
        source = str(local) if local.is_dir() else block.hub
        revision = {} if local.is_dir() else {"revision": block.revision}
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, **revision)
            model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager", **revision)
        except OSError as error:
            raise EngineError(
                f"model {name!r} is neither a folder nor on the hub as {block.hub!r}: {' '.join(str(error).split())[:200]}"
            ) from None
        if block.adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(resolve(block.adapter))).merge_and_unload()
        model.to(device)
        return cls(
            model, Chat(tokenizer, block.family), partial(open_sae, params), max_model_len=block.max_model_len,
            allow_layer_mismatch=block.allow_layer_mismatch, identity={"model": block.weights, "sae": open_sae(params, block.sae).sha256},
        )  # fmt: skip

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        for request in requests:
            self.admission.check(request)
        return self._each(self._generate, requests)

    def read(self, requests: Sequence[Request]) -> list[Reading]:
        for request in requests:
            self.admission.check(request, reading=True)
        return self._each(self._read, requests)

    def render(self, prompt: str, prompt_format: str = "clean", prefill: str = "") -> tuple[int, ...]:
        return self.chat.render(prompt, prompt_format, prefill)

    def offsets(self, token_ids: Sequence[int]) -> list[tuple[int, int]]:
        return self.chat.offsets(token_ids)

    @property
    def fingerprint(self) -> dict[str, str]:
        versions = {f"{package}_version": version(package) for package in ("torch", "transformers")}
        return {"backend": "hf", "dtype": "float32", "quantization": "none"} | versions | self._identity

    @property
    def closed(self) -> bool:
        return False

    def halt(self) -> None:
        self._halted.set()

    def close(self) -> None:
        """Nothing runs between calls."""

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
        with self._lock, torch.inference_mode():
            reply, finish = self._sample(prompt, request.sampling, request.seed, limit, sites)
        return Output(
            text=self.chat.decode(reply), token_ids=tuple(reply), prompt_token_ids=prompt, finish_reason=finish,
            applied=sum(site.applied for site in sites.values()), reading=self._reading(sites, len(prompt) + len(reply) - 1),
        )  # fmt: skip

    def _read(self, request: Request) -> Reading:
        ids = self._ids(request)
        n_prompt = len(self.render(request.prompt, request.prompt_format)) if request.prompt else len(ids)
        sites = self._sites(request, n_prompt, len(ids))
        with self._lock, torch.inference_mode():
            self._forward(ids, 0, None, sites)
        reading = self._reading(sites, len(ids))
        assert reading is not None
        return reading

    def _ids(self, request: Request) -> tuple[int, ...]:
        ids = request.token_ids or self.render(request.prompt, request.prompt_format, request.prefill)
        return fitting(ids, self.max_model_len, self.vocabulary)

    def _sites(self, request: Request, n_prompt: int, n_rows: int) -> dict[int, _Site]:
        sites: dict[int, _Site] = {}
        scope = span(request.scope, n_prompt)
        for op in request.ops:
            sites.setdefault(op.layer, _Site(scope)).ops.append((op, self.saes(op.sae)))
        if (capture := request.capture) is not None:
            site = sites.setdefault(capture.layer, _Site(scope))
            site.capture, site.captured = capture, span(capture.positions, n_prompt)
            self.admission.check_size(capture, n_prompt, n_rows)
        return sites

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
            logits, memory = self._forward([token], len(prompt) + len(reply) - 1, memory, sites)

    def _forward(self, ids: Sequence[int], start: int, memory: Any, sites: dict[int, _Site]) -> tuple[Tensor, Any]:
        """Logits [vocab] after the last of `ids`, which stand at start, start + 1, …; and the key-value cache."""
        with self._hooked(sites, start):
            out = self.model(input_ids=torch.tensor([list(ids)], device=self.device), past_key_values=memory, use_cache=True)
        return out.logits[0, -1].float().cpu(), out.past_key_values

    @contextmanager
    def _hooked(self, sites: dict[int, _Site], start: int) -> Iterator[None]:
        def hook(site: _Site, _module: nn.Module, _inputs: object, stream: Tensor) -> Tensor:
            return site(stream[0], start)[None]

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
                return read_rows(torch.cat(site.rows), site.captured.within(0, n_rows), site.capture, self.saes(site.capture.sae))
        return None


def read_rows(x: Tensor, positions: range, capture: Capture, sae: Sae) -> Reading:
    """What `capture` asks for of the streams x [rows, width] at `positions`."""
    if len(x) != len(positions):
        raise EngineError(f"a capture of {len(positions)} positions came back with {len(x)} rows")
    at = np.asarray(positions, dtype=np.int32)
    indices: np.ndarray | None = None
    if capture.mode == "latents":
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
