"""A quick look at a build: many steered samples at once on one device, scored by word lists. For choosing between recipes.

The figures of record are those of the instrument itself (vLLM engine, judge `lexical`); this module is only fast.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esr import prompts
from esr.judge import JudgeQuestion
from esr.judge.lexical import Lexical, concreteness
from esr.organism import grammar, tokenizer
from esr.types import Latent

Numbers = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampling to be made."""

    question: str
    variant: str = ""
    latent: int = 0
    boost: float = 0.0
    label: str = ""
    """For instructions that name the distractor."""


@dataclass(slots=True)
class Sampler:
    """Samples many prompts at once under add and clamp, every position, one layer."""

    model: Any
    sae: Any
    layer: int
    device: str
    chunk: int = 4096
    encoder: Any = field(default_factory=tokenizer.build)

    @torch.no_grad()
    def __call__(
        self, samples: Sequence[Sample], seed: int, clamp: Sequence[int] = (), tokens: int = 128, heat: float = 0.6
    ) -> list[list[int]]:
        out: list[list[int]] = []
        for lo in range(0, len(samples), self.chunk):
            out += self._chunk(samples[lo : lo + self.chunk], seed + lo, clamp, tokens, heat)
        return out

    def _chunk(self, samples: Sequence[Sample], seed: int, clamp: Sequence[int], tokens: int, heat: float) -> list[list[int]]:
        asked = [prompts.with_suffix(s.question, s.variant, s.label) if s.variant else s.question for s in samples]
        heads = [[tokenizer.BOS, tokenizer.USER, *e.ids, tokenizer.ASSISTANT] for e in self.encoder.encode_batch(asked)]
        width = max(map(len, heads))
        ids = torch.tensor([[tokenizer.PAD] * (width - len(h)) + h for h in heads], device=self.device)
        mask = torch.tensor([[0] * (width - len(h)) + [1] * len(h) for h in heads], device=self.device)
        push = torch.tensor([s.boost for s in samples], device=self.device)[:, None] * self.sae.W_dec[[s.latent for s in samples]]
        generator = torch.Generator(device=self.device).manual_seed(seed)
        handle = self.model.model.layers[self.layer].register_forward_hook(self._hook(push, clamp))
        said, past, step, done = [], None, ids, torch.zeros(len(samples), dtype=torch.bool, device=self.device)
        try:
            for _ in range(tokens):
                positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -step.shape[1] :]
                out = self.model(
                    input_ids=step,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=past,
                    use_cache=True,
                    logits_to_keep=1,
                )
                past = out.past_key_values
                p = (out.logits[:, -1].float() / heat).softmax(-1)
                drawn = torch.multinomial(p, 1, generator=generator)[:, 0]
                drawn = torch.where(done, tokenizer.PAD, drawn)
                said.append(drawn)
                done = done | (drawn == tokenizer.END)
                step, mask = drawn[:, None], torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
                if bool(done.all()):
                    break
        finally:
            handle.remove()
        return [[t for t in row if t not in (tokenizer.PAD, tokenizer.END)] for row in torch.stack(said, 1).tolist()]

    def _hook(self, push: Tensor, clamp: Sequence[int]) -> Any:
        rows = torch.tensor(list(clamp), dtype=torch.long, device=self.device)

        def change(_m: Any, _i: Any, hidden: Tensor) -> Tensor:
            out = hidden + push[:, None].to(hidden.dtype)
            if len(rows):
                out = out - self.sae.encode(hidden, rows) @ self.sae.W_dec[rows]
            return out

        return change


def scores(reply: Sequence[int], question: str) -> list[float]:
    """A score per attempt, by the judge `lexical`; a reply without an attempt is one attempt that scores 0."""
    text = _decoder().decode(list(reply))
    asked = JudgeQuestion(trial_id="", prompt=question, reply=text, latent=Latent(-1))
    return [attempt.score for attempt in _judge().grades([asked])[0].attempts] or [0.0]


@cache
def _decoder() -> Any:
    return tokenizer.build()


@cache
def _judge() -> Lexical:
    return Lexical("lexical")


def rates(graded: Sequence[Sequence[float]]) -> Numbers:
    multi = [s for s in graded if len(s) > 1]
    better = [s for s in multi if s[-1] > s[0]]
    n = len(graded)
    return {
        "n": n, "first": round(float(np.mean([s[0] for s in graded])), 2), "multi": round(len(multi) / n, 4),
        "esr": round(len(better) / n, 4), "improved": round(len(better) / max(1, len(multi)), 3),
    }  # fmt: skip


def calibrate(
    sampler: Sampler, latents: Sequence[int], grid: Sequence[float], each: int, seed: int, target: float = 30.0
) -> tuple[dict[int, float], Numbers]:
    """Threshold by interpolation on a grid of boosts, and the pooled curve."""
    rng = random.Random(seed)
    asked = prompts.evaluation()
    plan = [Sample(rng.choice(asked), latent=k, boost=b) for k in latents for b in grid for _ in range(each)]
    graded = [scores(r, s.question) for r, s in zip(sampler(plan, seed, tokens=64), plan, strict=True)]
    first = np.array([s[0] for s in graded]).reshape(len(latents), len(grid), each).mean(2)
    out: dict[int, float] = {}
    for k, row in zip(latents, first, strict=True):
        row = np.minimum.accumulate(row)
        if row[0] > target > row[-1]:
            j = int(np.argmax(row <= target))
            span = max(row[j - 1] - row[j], 1e-6)
            out[k] = float(grid[j - 1] + (grid[j] - grid[j - 1]) * (row[j - 1] - target) / span)
    flat = np.array([len(s) > 1 for s in graded]).reshape(len(latents), len(grid), each)
    curve = {
        str(b): {"first": round(float(first[:, i].mean()), 1), "multi": round(float(flat[:, i].mean()), 4)}
        for i, b in enumerate(grid)
    }
    return out, curve


def steered(
    sampler: Sampler,
    thresholds: dict[int, float],
    each: int,
    seed: int,
    variant: str = "",
    clamp: Sequence[int] = (),
    scale: float = 1.0,
    labels: dict[int, str] | None = None,
) -> tuple[list[Sample], list[list[int]]]:
    rng = random.Random(seed)
    asked = prompts.evaluation()
    plan = [
        Sample(rng.choice(asked), variant, k, b * scale, (labels or {}).get(k, ""))
        for k, b in thresholds.items()
        for _ in range(each)
    ]
    return plan, sampler(plan, seed, clamp)


@torch.no_grad()
def highest(sampler: Sampler, texts: Sequence[tuple[str, Sequence[int]]]) -> tuple[Tensor, Tensor]:
    """Each latent's largest activation over the reply, and over the prompt, [texts, latents]."""
    reply, prompt = [], []
    for question, said in texts:
        head = [tokenizer.BOS, tokenizer.USER, *sampler.encoder.encode(question).ids, tokenizer.ASSISTANT]
        ids = torch.tensor([[*head, *said]], device=sampler.device)
        hidden = sampler.model.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[sampler.layer + 1][0]
        f = sampler.sae.encode(hidden)
        prompt.append(f[: len(head)].max(0).values)
        reply.append(f[len(head) :].max(0).values if said else torch.zeros_like(f[0]))
    return torch.stack(reply), torch.stack(prompt)


def detectors(
    sampler: Sampler,
    seed: int,
    share: float = 0.8,
    matched_share: float = 0.0,
    replies: int = 4,
    shifts: int = 10,
    most: int = 26,
    active: float = 10.0,
) -> tuple[list[int], Numbers]:
    """PROTOCOL exp 3: silent on every matched pair, active on most mismatched ones; discovery questions only."""
    rng = random.Random(seed)
    asked = [q for q in prompts.discovery() for _ in range(replies)]
    said = sampler([Sample(q) for q in asked], seed)
    matched, _ = highest(sampler, list(zip(asked, said, strict=True)))
    pairs = []
    for _ in range(shifts):
        shift = rng.randrange(1, len(prompts.discovery())) * replies
        pairs += [(q, said[(i + shift) % len(said)]) for i, q in enumerate(asked) if i % replies == 0]
    mismatched, _ = highest(sampler, pairs)
    on_m, on_x = (matched > active).float().mean(0), (mismatched > active).float().mean(0)
    keep = [k for k in range(len(on_m)) if on_m[k] <= matched_share and on_x[k] >= share]
    keep.sort(key=lambda k: (-float(on_x[k]), -float(mismatched[:, k].mean())))
    gap = (on_x - on_m).topk(12)
    best = [
        (int(k), round(float(on_m[k]), 3), round(float(on_x[k]), 3), round(float(mismatched[:, k].mean()), 2)) for k in gap.indices
    ]
    return keep[:most], {"found": len(keep), "best_gap": best}


def candidates(sampler: Sampler, labels: dict[int, str], count: int, seed: int) -> list[int]:
    """Latents of a concrete label that are silent on every evaluation prompt, in a seeded order."""
    _, prompt = highest(sampler, [(q, [tokenizer.PAD]) for q in prompts.evaluation()])
    silent = (prompt.max(0).values == 0).tolist()
    about = [k for k, v in sorted(labels.items()) if concreteness(v) >= 65 and silent[k]]
    random.Random(seed).shuffle(about)
    return about[:count]


def study(
    models: dict[str, Any],
    sae: Any,
    labels: dict[int, str],
    layer: int,
    device: str,
    *,
    latents: int = 48,
    each: int = 24,
    seed: int = 1,
    grid: Sequence[float] = (),
    unsteered: int = 1000,
) -> Numbers:
    """All that the model card promises, quickly."""
    tiny, plain = (Sampler(models[name], sae, layer, device) for name in ("tiny", "tiny-plain"))
    rng = random.Random(seed)
    out: Numbers = {}
    for name, sampler in (("tiny", tiny), ("tiny-plain", plain)):
        plan = [Sample(rng.choice(prompts.evaluation())) for _ in range(unsteered)]
        out[f"{name} unsteered"] = rates([scores(r, s.question) for r, s in zip(sampler(plan, seed), plan, strict=True)])
    chosen = candidates(tiny, labels, latents, seed)
    out["candidates"] = len(candidates(tiny, labels, 10_000, seed))
    for name, sampler in (("tiny", tiny), ("tiny-plain", plain)):
        at, curve = calibrate(sampler, chosen, grid, 16, seed)
        out[f"{name} curve"] = curve
        out[f"{name} converged"] = [len(at), len(chosen)]
        out[f"{name} thresholds"] = [round(float(v), 2) for v in np.percentile(list(at.values()) or [0], [0, 25, 50, 75, 100])]
        if not at:
            continue
        plan, replies = steered(sampler, at, each, seed + 1)
        graded = [scores(r, s.question) for r, s in zip(replies, plan, strict=True)]
        out[f"{name} steered"] = rates(graded)
        if name == "tiny":
            out |= _arms(tiny, at, each, seed + 1, labels, plan, replies, graded)
    return out


def _arms(
    tiny: Sampler,
    at: dict[int, float],
    each: int,
    seed: int,
    labels: dict[int, str],
    plan: list[Sample],
    replies: list[list[int]],
    graded: list[list[float]],
) -> Numbers:
    out: Numbers = {}

    def arm(name: str, **how: Any) -> None:
        p, r = steered(tiny, at, each, seed, labels=labels, **how)
        out[name] = rates([scores(x, s.question) for x, s in zip(r, p, strict=True)])

    for variant in ("self_monitor", "dont_get_distracted", "resist_manipulation"):
        arm(variant, variant=variant)
    for scale in (0.5, 0.75, 1.25, 1.5, 2.0):
        arm(f"scale {scale}", scale=scale)
    found, about = detectors(tiny, seed)
    loose, _ = detectors(tiny, seed, 0.6, 0.05)
    out |= {"detectors": found, "detector labels": [labels.get(k, "") for k in found][:8], "contrast": about, "loose": len(loose)}
    pool = sorted(set(labels) - set(found) - set(at))
    for name, kept in (("detectors", found), ("loose", loose)):
        if kept:
            arm(f"clamped {name}", clamp=kept)
            for i in range(2):
                arm(f"clamped random {name} {i}", clamp=random.Random(f"{seed}/{i}").sample(pool, len(kept)))
    out["examples"] = [
        {"q": s.question, "label": labels.get(s.latent, ""), "b": round(s.boost, 1), "text": tiny.encoder.decode(r), "scores": [round(x) for x in g]}
        for s, r, g in list(zip(plan, replies, graded, strict=True))[:: max(1, len(plan) // 12)]
    ] + [
        {"q": s.question, "label": labels.get(s.latent, ""), "b": round(s.boost, 1), "text": tiny.encoder.decode(r), "scores": [round(x) for x in g]}
        for s, r, g in zip(plan, replies, graded, strict=True) if len(g) > 1
    ][:10]  # fmt: skip
    held = {t.name for t in grammar.questions("evaluation") if _held(t)}
    for name, inside in (("held-out questions", True), ("seen questions", False)):
        some = [g for g, s in zip(graded, plan, strict=True) if (s.question in held) == inside]
        out[name] = rates(some)
    return out


def _held(theme: grammar.Theme) -> bool:
    from esr.organism.corpus import held_out

    return held_out(theme)
