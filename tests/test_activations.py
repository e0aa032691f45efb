"""Activations token by token: where tokens stand in text, what is read there, and what regions say of it."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from esr.__main__ import main
from esr.engine.chat import Chat
from esr.judge.locate import Span
from esr.params import HOME, load
from esr.store import Store
from esr.study import backtracking, episodes, regions
from esr.study.episodes import Watching
from esr.types import Latent

WORDS = [
    "wait",
    "that",
    "is",
    "not",
    "right",
    "let",
    "me",
    "try",
    "again",
    "the",
    "square",
    "root",
    "of",
    "a",
    "castle",
    "has",
    "towers",
    "and",
    "moats",
    "naïve",
    "café",
    "über",
    "東京",
    "🙂",
    "👩\u200d🚀",
]
SPECIALS = {
    "llama3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"],
    "gemma2": ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
    "tiny": ["<|bos|>", "<|user|>", "<|assistant|>", "<|end|>"],
}


def grown(vocabulary: dict[str, int], words: list[str]) -> list[tuple[str, str]]:
    """Merges that build each word from its left; the vocabulary has what they make."""
    merges = []
    for word in words:
        left = word[0]
        for character in word[1:]:
            pair = (left, character)
            left += character
            if left not in vocabulary:
                vocabulary[left] = len(vocabulary)
                merges.append(pair)
    return merges


def byte_level(split_digits: bool) -> Tokenizer:
    """As Llama 3 and SmolLM have it: bytes as characters, merges within words."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    coded = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][0] for word in WORDS[:20] for text in (word, " " + word)]  # fmt: skip
    vocabulary = {token: i for i, token in enumerate(alphabet)}
    merges = grown(vocabulary, coded)
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if split_digits else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    return made


def byte_fallback() -> Tokenizer:
    """As Gemma has it: spaces as ▁, characters that it does not know as bytes."""
    vocabulary = {f"<0x{i:02X}>": i for i in range(256)}
    for character in "▁abcdefghijklmnopqrstuvwxyzWABC.,!?\n'éü":
        vocabulary.setdefault(character, len(vocabulary))
    merges = grown(vocabulary, [f"▁{word}" for word in WORDS if word.isascii()])
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return made


def chat(kind: str) -> Chat:
    from transformers import PreTrainedTokenizerFast

    made, family = {
        "llama": (byte_level(False), "llama3"), "gemma": (byte_fallback(), "gemma2"), "smollm": (byte_level(True), "tiny"),
    }[kind]  # fmt: skip
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS[family]])
    return Chat(PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False), family)


CHATS = {kind: chat(kind) for kind in ("llama", "gemma", "smollm")}
TEXT = st.lists(
    st.sampled_from([*WORDS, "Wait, ", "12 345", "\n\n", "ﷺ", "e\u0301", "🏳️‍🌈", "𝒳", "ß"]), min_size=1, max_size=14
).map(" ".join)


@pytest.mark.parametrize("kind", CHATS)
@settings(max_examples=60, deadline=None)
@given(text=TEXT, data=st.data())
def test_a_character_is_found_in_the_token_that_holds_it(kind: str, text: str, data: st.DataObject) -> None:
    of = CHATS[kind]
    ids = [*of._encode(text), of.stop_ids[0]]
    decoded = of.decode(ids)
    assert decoded == text
    offsets = of.offsets(ids)
    assert len(offsets) == len(ids)
    assert "".join(decoded[low:high] for low, high in dict.fromkeys(offsets)) == decoded, "spans tile the text"
    at = data.draw(st.integers(0, len(text) - 1))
    token = regions.token_at(offsets, at)
    low, high = offsets[token]
    assert low <= at < high
    assert token == 0 or offsets[token - 1][1] <= at or offsets[token - 1] == offsets[token] or offsets[token - 1][0] >= low
    assert all(end <= at for start, end in offsets[:token] if end > start), "no earlier token holds it"
    assert regions.token_at(offsets, len(text)) == len(offsets)


@pytest.mark.parametrize("kind", CHATS)
@settings(max_examples=40, deadline=None)
@given(before=TEXT, after=TEXT)
def test_regions_in_tokens_cover_their_characters_and_part_the_reply(kind: str, before: str, after: str) -> None:
    of = CHATS[kind]
    text = f"{before} Wait, that is not right. {after}"
    cut = len(before) + 1
    ids = of._encode(text)
    offsets = of.offsets(ids)
    first, second = regions.spans(offsets, 0, cut, 7), regions.spans(offsets, cut, len(text), 7)
    assert first[1] == second[0], "no token is in both and none in neither"
    assert (first[0], second[1]) == (7, 7 + len(ids))
    inside = "".join(text[low:high] for low, high in dict.fromkeys(offsets[second[0] - 7 :]))
    assert inside.endswith(text[cut:])


REPLY = "The castle has a moat. Wait, that is not right. Let me try again. Grind the beans."


def attempts(*pieces: str) -> list[Span]:
    return [Span(REPLY.index(piece), REPLY.index(piece) + len(piece)) for piece in pieces]


@pytest.mark.parametrize(
    "second",
    ["Grind the beans.", "Wait, that is not right. Let me try again. Grind the beans.", "Let me try again. Grind the beans."],
)
def test_the_correction_is_the_words_of_the_restart_wherever_the_judge_cut(second: str) -> None:
    parts = episodes.by_rule(REPLY, attempts("The castle has a moat.", second))
    assert parts is not None
    assert REPLY[parts.off.start : parts.off.end].strip() == "The castle has a moat."
    assert REPLY[parts.correction.start : parts.correction.end].strip() == "Wait, that is not right. Let me try again."
    assert REPLY[parts.on.start :].strip() == "Grind the beans."


def test_without_words_of_a_restart_the_correction_is_what_stands_between() -> None:
    text = "The castle has a moat. Hm. Grind the beans."
    parts = episodes.by_rule(text, [Span(0, 22), Span(27, 43)])
    assert parts is not None
    assert text[parts.correction.start : parts.correction.end] == " Hm. "
    assert episodes.by_rule(text, [Span(0, 43)]) is None


def row(trial: str, latent: int, first: float, last: float | None = None, text: str = REPLY, n: int = 1) -> dict[str, Any]:
    located = [{"start": 0, "end": 22}, {"start": 66, "end": 82}] if last is not None else [{"start": 0, "end": len(text)}]
    return {
        "trial_id": trial, "latent": latent, "question": "q", "seed": n, "n_attempts": 1 if last is None else 2, "first_score": first,
        "last_score": first if last is None else last, "multi": last is not None, "corrected": last is not None and last > first,
        "judge_prompt": "hash", "text": text, "located": located,
    }  # fmt: skip


def test_a_restart_free_reply_is_of_the_same_latent_near_in_score_and_long_enough() -> None:
    quiet = "The castle has a moat and towers and a gate."
    rows = [
        row("e1", 1, 10, 90), row("e2", 1, 40, 90), row("e3", 2, 10, 90), row("worse", 1, 50, 20),
        row("far", 1, 80, text=quiet), row("near", 1, 42, text=quiet), row("short", 1, 10, text="The castle."),
        row("other", 3, 10, text=quiet), row("says so", 2, 10, text=REPLY),
    ]  # fmt: skip
    found = {one.trial_id: one for one in episodes.found(rows, load("tiny").of(Watching))}
    assert set(found) == {"e1", "e2", "e3"}, "the last attempt of an episode is better"
    assert {key: one.control for key, one in found.items()} == {"e1": "near", "e2": "far", "e3": None}
    few = episodes.found(rows, load("tiny").of(Watching).model_copy(update={"max_episodes": 2}))
    assert [one.trial_id for one in few] == ["e1", "e3"], "one of every distractor before a second of any"


def test_two_sources_agree_by_tokens() -> None:
    one = {"a": {"off-topic": (0, 10), "correction": (10, 14)}, "b": {"off-topic": (0, 20), "correction": (20, 22)}, "c": {}}
    other = {"a": {"off-topic": (0, 8), "correction": (8, 14)}, "b": {"off-topic": (10, 30), "correction": (30, 33)}}
    told = regions.agreement(one, other)
    assert told is not None
    assert (told.n, told.within_five, told.apart_median) == (2, 0.5, 6.0)
    assert told.overlap_mean == pytest.approx((0.8 + 10 / 30) / 2)
    assert regions.agreement(one, {}) is None


def test_labels_of_programs_errors_do_not_count() -> None:
    assert backtracking.label_score("The model apologizes: I made a mistake") == 3 + 3 + 3 + 2
    assert backtracking.label_score("apologize") == 6, "both patterns of weight 3 match"
    assert backtracking.label_score("Owning an error, taking ownership") == 1 + 2
    assert backtracking.label_score("Python type error, apologize") == 0
    labels = [Latent(4, "apologize for a mistake"), Latent(2, "wrong"), Latent(9, "apologies"), Latent(1, "connection error")]
    assert [latent.index for latent in backtracking.by_label(labels, 3)] == [4, 9]


def activations(
    store: Store, trial: str, values: Sequence[tuple[int, int, float]], listed: list[int] | None, selection: str
) -> None:
    columns = list(zip(*values, strict=True)) or [(), (), ()]
    store.put_activations([
        {"trial_id": trial, "model": "tiny", "sae": "s", "layer": 3, "steering": "on", "stage": "before", "pooling": "token", "selection": selection,
         "latents": list(columns[0]), "positions": list(columns[1]), "values": list(columns[2]), "listed": listed, "n_positions": 12},
    ])  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    parts = [("prompt", 0, 3), ("off-topic", 3, 8), ("correction", 8, 10), ("on-topic", 10, 13)]
    made.put("regions", [
        {"trial_id": "t", "source": "rule/x", "kind": kind, "place": i, "token_start": low, "token_end": high} for i, (kind, low, high) in enumerate(parts)
    ])  # fmt: skip
    return made


def test_a_regions_mean_counts_the_silent_tokens_and_latents(store: Store) -> None:
    activations(store, "t", [(7, 3, 4.0), (7, 4, 6.0), (7, 11, 3.0)], [7, 9], "list")
    rows = store.sql("select kind, latent, n_tokens, mean from region_activations order by place, latent").to_pylist()
    found = {(one["kind"], one["latent"]): (one["n_tokens"], one["mean"]) for one in rows}
    assert found["off-topic", 7] == (5, 2.0)
    assert found["on-topic", 7] == (2, 1.5), "of three tokens the last was never fed back, so two were read"
    assert found["correction", 7] == (2, 0.0)
    assert found["off-topic", 9] == (5, 0.0)


def test_the_line_of_the_page_gives_the_detectors_mean_by_region(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = [one for one in (HOME / "docs" / "activations.md").read_text().splitlines() if one.startswith("python -m esr sql")]
    monkeypatch.setenv("ESR_STORE", str(store.root))
    activations(store, "t", [(7, 3, 4.0), (7, 4, 6.0), (9, 3, 100.0)], [7, 9], "list")
    activations(store, "t", [(7, 3, 99.0)], None, "top-32")
    store.put("detectors", [{"set_id": "a", "model": "tiny", "latent": 7, "kind": "detector"}])
    assert main([*shlex.split(line)[3:], "--json"]) == 0
    found = {row["kind"]: (row["mean"], row["n"]) for row in json.loads(capsys.readouterr().out)}
    assert found == {"prompt": (0.0, 1), "off-topic": (2.0, 1), "correction": (0.0, 1), "on-topic": (0.0, 1)}


def test_backtracking_latents_are_active_in_corrections_and_silent_elsewhere(store: Store) -> None:
    steps = [(5, 8, 2.0), (6, 8, 2.0), (6, 4, 2.0), (6, 5, 2.0), (8, 11, 3.0)]
    activations(store, "t", steps, None, "top-32")
    asked = load("tiny").of(Watching).model_copy(update={"contrast_active": 1.0, "contrast_elsewhere": 0.2})
    (one,) = backtracking.contrast(store, {"t": "rule/x"}, model="tiny", sae="s", layer=3, settings=asked)
    assert (one.latent, one.corrections, one.elsewhere) == (5, 1.0, 0.0)
    assert backtracking.contrast(store, {}, model="tiny", sae="s", layer=3, settings=asked) == []
    found_on, tested_on = backtracking.halves([9, 4, 4, 7, 1])
    assert (found_on, tested_on) == ({1, 7}, {4, 9})


def test_series_are_arrays_of_the_reply_alone(store: Store) -> None:
    from esr.show.seen import arrays

    store.put("trials", [{"trial_id": "t", "model": "tiny", "prompt": "q"}])
    activations(store, "t", [(7, 1, 9.0), (7, 3, 4.0), (9, 11, 6.0)], [7, 9], "list")
    found = arrays(store, ["t"], {"t": 3}, "list", "on", "before", (7, 9))["t"]
    wanted = np.zeros((2, 9))
    wanted[0, 0], wanted[1, 8] = 4.0, 6.0
    assert (found == wanted).all(), "what is read of the prompt is not the reply's"
