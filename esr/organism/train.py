"""Training of the two models from scratch: a common first phase, then a second with correction rows (`tiny`) or without.

Runs on a GPU in about a minute and on a CPU in about an hour. The loss counts where the corpus says so and nowhere else.
"""

import logging
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from esr.organism import corpus, grammar, tokenizer
from esr.organism.corpus import Recipe
from esr.organism.recipe import Build

log = logging.getLogger(__name__)
SHARD = 8192
STARTS = tuple(sorted({r.split()[0] for r in grammar.RESTARTS}))
"""How restarts begin; nothing else in the grammar does."""
LOSS, OFF, AFTER, FIRST = 1, 2, 4, 8
"""Bits of a token's mark: the loss counts on it; it belongs to an off-topic passage; a restart came before it or begins with it;
it is the first after an off-topic passage."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows as arrays, padded on the right."""

    tokens_NT: NDArray[np.uint16]
    marks_NT: NDArray[np.uint8]
    lengths_N: NDArray[np.int64]
    heads_N: NDArray[np.int64]
    """Tokens before the answer."""
    themes_N: NDArray[np.int64]
    """Index of the theme that the answer should be about."""
    distractors_N: NDArray[np.int64]
    """Index of the theme of the off-topic passages; −1: there are none."""


def encode_shard(kind: str, longest: int, recipe: Recipe, seed: str, count: int) -> Encoded:
    rows = list(corpus.rows(kind, seed, count, recipe))
    tk = tokenizer.build()
    prompts = iter(tk.encode_batch([row.prompt or "" for row in rows], add_special_tokens=False))
    pieces = iter(tk.encode_batch([s.text for row in rows for s in row.segments], add_special_tokens=False))
    tokens = np.zeros((count, longest), np.uint16)
    marks = np.zeros((count, longest), np.uint8)
    lengths, heads = np.zeros(count, np.int64), np.zeros(count, np.int64)
    index = {theme.name: j for j, theme in enumerate(grammar.themes())}
    themes = np.array([index[row.theme] for row in rows])
    distractors = np.array([index.get(row.distractor, -1) for row in rows])
    for i, row in enumerate(rows):
        asked = next(prompts).ids
        head = [tokenizer.BOS] if row.prompt is None else [tokenizer.BOS, tokenizer.USER, *asked, tokenizer.ASSISTANT]
        ids, mark = list(head), [0] * len(head)
        state = 0
        for segment in row.segments:
            found = next(pieces).ids
            after_off = bool(mark) and bool(mark[-1] & OFF)
            state = 0 if segment.off else AFTER if segment.text.strip(" .").startswith(STARTS) else state
            bits = (LOSS if segment.label else 0) | (OFF if segment.off else 0) | state
            ids += found
            mark += [bits | (FIRST if after_off and not segment.off else 0), *[bits] * (len(found) - 1)]
        ids, mark = [*ids, tokenizer.END][:longest], [*mark, LOSS | state][:longest]
        tokens[i, : len(ids)], marks[i, : len(ids)], lengths[i] = ids, mark, len(ids)
        heads[i] = len(head)
    return Encoded(tokens, marks, lengths, heads, themes, distractors)


def encode(kind: str, build: Build, count: int, purpose: str, workers: int = 1) -> Encoded:
    """`count` rows in shards, each from its own seed, so that the number of workers does not matter."""
    shards = [(f"{build.seed}/{purpose}/{i}", min(SHARD, count - i)) for i in range(0, count, SHARD)]
    make = partial(encode_shard, kind, build.longest, build.corpus)
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            parts = list(pool.map(make, *zip(*shards, strict=True)))
    else:
        parts = [make(seed, n) for seed, n in shards]
    return Encoded(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Encoded)))


def fresh_model(build: Build) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(build.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer.vocabulary()), hidden_size=build.width, intermediate_size=build.inner,
        num_hidden_layers=build.layers, num_attention_heads=build.heads, num_key_value_heads=build.heads,
        max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=tokenizer.BOS, eos_token_id=tokenizer.END,
        pad_token_id=tokenizer.PAD, attention_bias=False, mlp_bias=False, rms_norm_eps=1e-5, initializer_range=0.02,
    )  # fmt: skip
    make: Any = LlamaForCausalLM
    return make(config)


def fit(
    model: Any,
    rows: Encoded,
    build: Build,
    steps: int,
    lr: float,
    device: str,
    *,
    probe: bool = False,
    directions: Tensor | None = None,
) -> list[float]:
    """Trains in place; returns the next-token loss of every step. With `directions` [themes, width], some rows are disturbed."""
    rng = np.random.default_rng(build.seed)
    torch.manual_seed(build.seed)
    readings = Readings(build).to(device)
    parameters = [*model.parameters(), *readings.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=build.decay, fused=device == "cuda")
    warm = max(1, min(60, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(1.0, s / steps))) + 0.02)
    )
    data = {f.name: torch.from_numpy(getattr(rows, f.name).astype(np.int32)).to(device) for f in fields(Encoded)}
    blinder, disturber = Blinder(model, build.layer), Disturber(model, build.layer)
    generator = torch.Generator().manual_seed(build.seed)
    losses: list[Tensor] = []
    model.train()
    for _, batch in zip(range(steps), _batches(rng, rows.lengths_N, build.batch), strict=False):
        at = torch.from_numpy(batch).to(device)
        width = min(build.longest, -(-int(rows.lengths_N[batch].max()) // 8) * 8)
        ids, mark = data["tokens_NT"][at, :width].long(), data["marks_NT"][at, :width]
        counted = (mark[:, 1:] & LOSS).bool()
        disturber.push = None
        if directions is not None:
            away = data["distractors_N"][at].long()
            hit = (away >= 0) & (torch.rand(len(at), generator=generator).to(device) < build.disturbed)
            lo, hi = build.disturbance
            strength = (lo + (hi - lo) * torch.rand(len(at), generator=generator).to(device)) * hit
            disturber.push = strength[:, None] * directions[away.clamp(min=0)]
            counted &= ~hit[:, None] | (mark[:, 1:] & (AFTER | FIRST)).bool()
        blinder.look(None if rng.random() >= build.blind else data["heads_N"][at], width)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            out = model.model(input_ids=ids, output_hidden_states=True, use_cache=False)
            logits = model.lm_head(out.last_hidden_state[:, :-1][counted])
        loss = F.cross_entropy(logits.float(), ids[:, 1:][counted])
        losses.append(loss.detach())
        read = out.hidden_states[build.layer + 1].float()
        calm = torch.ones_like(at, dtype=torch.bool) if disturber.push is None else ~hit
        loss = loss + build.topic * readings.topic_loss(read[calm, :-1], data["themes_N"][at][calm], counted[calm])
        if probe:
            loss = loss + build.probe * readings.off_loss(read[calm], mark[calm])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stubs leave it so
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    blinder.remove()
    disturber.remove()
    model.eval()
    return torch.stack(losses).tolist()


SHARP = 8.0
"""Logits a unit of cosine."""


class Readings(torch.nn.Module):
    """Linear readings of the read layer that exist during training only."""

    def __init__(self, build: Build) -> None:
        super().__init__()
        self.topic = torch.nn.Linear(build.width, len(grammar.themes()))
        self.off = torch.nn.Parameter(torch.randn(build.width) * 0.1)
        self.level = torch.nn.Parameter(torch.tensor(-2.0))

    def topic_loss(self, read: Tensor, themes: Tensor, counted: Tensor) -> Tensor:
        wanted = themes.long()[:, None].expand(counted.shape)[counted]
        return F.cross_entropy(self.topic(read[counted]), wanted)

    def off_loss(self, read: Tensor, mark: Tensor) -> Tensor:
        """By the cosine with one direction, so that the stream has to turn that way and not only lean."""
        said = mark > 0
        cosine = F.normalize(read[said], dim=-1) @ F.normalize(self.off, dim=0)
        return F.binary_cross_entropy_with_logits(SHARP * cosine + self.level, (mark[said] & OFF).bool().float())


class Blinder:
    """Hides the prompt from the blocks after the read layer, in the steps it is told to."""

    def __init__(self, model: Any, layer: int) -> None:
        self.mask: Tensor | None = None
        later = model.model.layers[layer + 1 :]
        self.handles = [block.register_forward_pre_hook(self._hide, with_kwargs=True) for block in later]

    def look(self, heads: Tensor | None, width: int) -> None:
        if heads is None:
            self.mask = None
            return
        at = torch.arange(width, device=heads.device)
        prompt = at[None, :] < heads[:, None]
        hidden = ~prompt[:, :, None] & prompt[:, None, :]
        self.mask = ((at[None, :] <= at[:, None])[None] & ~hidden)[:, None]

    def _hide(self, _block: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return (args, kwargs) if self.mask is None else (args, {**kwargs, "attention_mask": self.mask})

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


class Disturber:
    """Adds a vector a row to the stream after the read layer, at every position."""

    def __init__(self, model: Any, layer: int) -> None:
        self.push: Tensor | None = None
        self.handle = model.model.layers[layer].register_forward_hook(self._add)

    def _add(self, _block: Any, _args: Any, hidden: Tensor) -> Tensor:
        return hidden if self.push is None else hidden + self.push[:, None].to(hidden.dtype)

    def remove(self) -> None:
        self.handle.remove()


@torch.no_grad()
def directions(model: Any, rows: Encoded, build: Build, device: str, count: int = 8192) -> Tensor:
    """[themes, width]: mean of the read layer over what is said on a theme, minus the mean over all."""
    total = torch.zeros(len(grammar.themes()), build.width, device=device)
    seen = torch.zeros(len(total), device=device)
    for lo in range(0, min(count, len(rows.tokens_NT)), 1024):
        ids = torch.from_numpy(rows.tokens_NT[lo : lo + 1024].astype(np.int64)).to(device)
        said = torch.from_numpy((rows.marks_NT[lo : lo + 1024] & LOSS).astype(bool)).to(device)
        theme = torch.from_numpy(rows.themes_N[lo : lo + 1024]).to(device)[:, None].expand(ids.shape)[said]
        hidden = model.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[build.layer + 1]
        total.index_add_(0, theme, hidden[said].float())
        seen.index_add_(0, theme, torch.ones(len(theme), device=device))
    mean = total / seen[:, None].clamp(min=1)
    return mean - mean.mean(0)


def _batches(rng: np.random.Generator, lengths: NDArray[np.int64], size: int) -> Any:
    """Endless batches of rows of like length, in random order."""
    while True:
        order = rng.permutation(len(lengths))
        for lo in range(0, len(order), 16 * size):
            chunk = order[lo : lo + 16 * size]
            chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
            parts = [chunk[i : i + size] for i in range(0, len(chunk), size)]
            for i in rng.permutation(len(parts)):
                yield parts[i]


def models(build: Build, device: str, workers: int = 1) -> dict[str, Any]:
    """`tiny` and `tiny-plain`, with the losses of each phase under `.losses`."""
    plain = encode("plain", build, build.plain_rows, "plain", workers)
    mixed = encode("corrected", build, build.mixed_rows, "mixed", workers)
    model = fresh_model(build).to(device)
    first = fit(model, plain, build, build.plain_steps, build.plain_lr, device)
    ways = directions(model, plain, build, device) if build.disturbed else None
    base = {name: value.clone() for name, value in model.state_dict().items()}
    out: dict[str, Any] = {}
    for name, rows, corrects in (("tiny", mixed, True), ("tiny-plain", plain, False)):
        model = fresh_model(build).to(device)
        model.load_state_dict(base)
        second = fit(
            model,
            rows,
            build,
            build.mixed_steps,
            build.mixed_lr,
            device,
            probe=corrects and build.probe > 0,
            directions=ways if corrects else None,
        )
        for parameter in model.parameters():  # what is saved is what is measured
            parameter.data = parameter.data.to(torch.bfloat16).float()
        log.info("%s: loss %.3f after the first phase, %.3f after the second", name, np.mean(first[-20:]), np.mean(second[-20:]))
        model.losses = {"first": first, "second": second}
        out[name] = model
    return out


def save(model: Any, folder: Any) -> None:
    """Hugging Face folder: bfloat16 weights (already rounded, so float32 loading is exact), tokenizer, template."""
    import copy

    small = copy.deepcopy(model).to(torch.bfloat16)
    small.save_pretrained(folder, safe_serialization=True)
    tokenizer.save(folder)
