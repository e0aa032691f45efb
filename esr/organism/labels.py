"""Automatic labels: what a latent stands for, said from what it fires on, never from the answer key.

A latent that fires on one word is `the word "hive"`. One that fires on texts in which certain words are over-represented is
`about hive, nectar, bee, honey`. The rest are named by the commonest words they fire on. A latent that never fires has no label.
"""

import csv
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from esr.organism import grammar, tokenizer
from esr.organism.dictionary import residuals
from esr.organism.recipe import Build
from esr.organism.train import Encoded, encode

ONE_WORD = 0.6
"""Share of a latent's activation on its commonest word above which the label is that word."""
LIFT = 4.0
"""How much commoner than elsewhere a word must be where the latent fires, to be named."""
NAMED = 4
SHARE = 0.55
"""Share of the activation in texts with one of the named words within, for the label to be `about`."""


@dataclass(frozen=True, slots=True)
class Score:
    """Labels against the key, over latents labelled `about`."""

    labelled: int
    """Latents with a label."""
    about: int
    """Latents labelled `about …`."""
    right: int
    """Of these: the theme whose words the label names is the theme of most of the latent's activation."""
    subjects: int
    """Different subjects among the right ones."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where the latents fired."""

    on_word: Tensor
    """[latents, words]: activation mass by the token it fell on."""
    in_text: Tensor
    """[latents, words]: activation mass by the words of the text so far."""
    base: Tensor
    """[words]: share of tokens at which the word has occurred so far."""


@torch.no_grad()
def evidence(model: Any, sae: Any, build: Build, device: str, rows: Encoded) -> Evidence:
    vocab = len(tokenizer.vocabulary())
    on = torch.zeros(sae.d_sae, vocab, device=device)
    near, base, seen = torch.zeros_like(on), torch.zeros(vocab, device=device), 0
    for lo in range(0, len(rows.tokens_NT), 256):
        part = Encoded(*(getattr(rows, f.name)[lo : lo + 256] for f in fields(Encoded)))
        f = sae.encode(residuals(model, part, build.layer, device))
        ids = torch.from_numpy(part.tokens_NT.astype("int64")).to(device)
        at = torch.arange(ids.shape[1], device=device)[None] < torch.from_numpy(part.lengths_N).to(device)[:, None]
        once = torch.nn.functional.one_hot(ids, vocab).to(torch.int8)
        window = _recent(once)[at].float()
        on.index_add_(1, ids[at], f.T.contiguous())
        near += f.T @ window
        base += window.sum(0)
        seen += len(f)
    return Evidence(on, near, base / seen)


def _recent(once: Tensor, width: int = 24) -> Tensor:
    """Whether a word occurred in the last `width` tokens, [rows, tokens, words]."""
    total = once.to(torch.int16).cumsum(1, dtype=torch.int16)
    total[:, width:] -= total[:, :-width].clone()
    return total > 0


def describe(found: Evidence) -> dict[int, str]:
    words = [w.strip() for w in sorted(tokenizer.vocabulary(), key=tokenizer.vocabulary().__getitem__)]
    known = frozenset(w for t in grammar.themes() for w in t.words)
    content = torch.tensor([w in known for w in words], device=found.base.device)
    mass = found.on_word.sum(1)
    out: dict[int, str] = {}
    for latent in torch.nonzero(mass > 0).flatten().tolist():
        top, share = found.on_word[latent].argmax(), found.on_word[latent].max() / mass[latent]
        near = found.in_text[latent] / mass[latent]
        lift = torch.where(content & (near > 0.1), near / (found.base + 1e-3), 0.0)
        best = (lift * near).topk(NAMED).indices
        named = [i for i in best.tolist() if lift[i] > LIFT]
        if share > ONE_WORD and words[int(top)]:
            out[latent] = f'the word "{words[int(top)]}"'
        elif len(named) == NAMED and float(near[named].sum()) > SHARE:
            out[latent] = "about " + ", ".join(words[i] for i in named)
        else:
            common = found.on_word[latent].topk(3).indices.tolist()
            out[latent] = "where the text says " + ", ".join(f'"{words[i] or " "}"' for i in common)
    return out


def score(labels: dict[int, str], found: Evidence) -> Score:
    """The key: the theme whose words take most of the activation mass of a latent's texts."""
    ids = tokenizer.vocabulary()
    themes = grammar.themes()
    member = torch.zeros(len(ids), len(themes), device=found.base.device)
    for j, theme in enumerate(themes):
        for word in theme.words:
            member[ids[f" {word}"], j] = 1.0 / len(theme.words)
    key = (found.in_text @ member).argmax(1)
    about = {k: v.removeprefix("about ").split(", ") for k, v in labels.items() if v.startswith("about ")}
    right = {k for k, named in about.items() if len(set(named) & themes[int(key[k])].words) > len(named) / 2}
    subjects = {themes[int(key[k])].name for k in right if themes[int(key[k])].kind == "subject"}
    return Score(labelled=len(labels), about=len(about), right=len(right), subjects=len(subjects))


def make(model: Any, sae: Any, build: Build, device: str, count: int = 4096) -> tuple[dict[int, str], Score]:
    found = evidence(model, sae, build, device, encode("corrected", build, count, "labels"))
    labels = describe(found)
    return labels, score(labels, found)


def save(labels: dict[int, str], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index_in_sae", "label"])
        writer.writerows(sorted(labels.items()))
