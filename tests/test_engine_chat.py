"""Prompts come to the exact tokens that the models were trained on.

The tokenizers are small ones with the real ones' rules, special tokens and ids; the golden ids are those of the real tokenizers
for these sentences.
"""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import byte_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from esr.engine.chat import Chat
from esr.errors import EngineError, SpecError
from esr.params import load, resolve
from esr.prompts import evaluation

LLAMA3 = {
    "Cut": 38766, "ting": 1303, "ĠKnowledge": 33025, "ĠDate": 2696, ":": 25, "ĠDecember": 6790, "Ġ": 220, "202": 2366, "3": 18,
    "Ċ": 198, "Today": 15724, "26": 1627, "ĠJul": 10263, "4": 19, "ĊĊ": 271, "system": 9125, "user": 882, "assistant": 78191,
    "Hello": 9906, "Ġworld": 1917, "!": 0, "I": 40,
}  # fmt: skip
LLAMA3_SPECIALS = {
    "<|begin_of_text|>": 128000, "<|end_of_text|>": 128001, "<|start_header_id|>": 128006, "<|end_header_id|>": 128007,
    "<|eom_id|>": 128008, "<|eot_id|>": 128009,
}  # fmt: skip
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_TEMPLATE = (
    "{{- bos_token }}{%- set date_string = '26 Jul 2024' %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}{{- 'Cutting Knowledge Date: December 2023\\n' }}"
    "{{- 'Today Date: ' + date_string + '\\n\\n' }}{{- '<|eot_id|>' }}"
    "{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
HEAD = [128000, 128006, 9125, 128007, 271, 38766, 1303, 33025, 2696, 25, 6790, 220, 2366, 18, 198, 15724, 2696, 25, 220, 1627]
HEAD += [10263, 220, 2366, 19, 271, 128009, 128006, 882, 128007, 271]
TAIL = [128009, 128006, 78191, 128007, 271]

GEMMA2 = {
    "user": 1645, "model": 2516, "\n": 108, "What": 1841, "▁is": 603, "▁the": 573, "▁capital": 6037, "▁of": 576, "▁France": 6081,
    "?": 235336, "I": 235285,
}  # fmt: skip
GEMMA2_SPECIALS = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<start_of_turn>": 106, "<end_of_turn>": 107}


def vocabulary(words: Mapping[str, int], specials: Mapping[str, int], letters: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The words at their ids, letters and partial words beyond them, and merges that build each word from the left."""
    vocab, merges = {**specials, **words}, []
    spare = iter(range(300_000, 400_000))
    for letter in letters:
        vocab.setdefault(letter, next(spare))
    for word in words:
        for end in range(2, len(word) + 1):
            vocab.setdefault(word[:end], next(spare))
            if (merge := (word[: end - 1], word[end - 1])) not in merges:
                merges.append(merge)
    return vocab, merges


def finish(core: Tokenizer, specials: Mapping[str, int], **names: str) -> PreTrainedTokenizerFast:
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, additional_special_tokens=list(specials), **names)
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in specials} == dict(specials)
    return tokenizer


@pytest.fixture(scope="module")
def llama3() -> Chat:
    vocab, merges = vocabulary(LLAMA3, LLAMA3_SPECIALS, "".join(sorted(pre_tokenizers.ByteLevel.alphabet())))
    core = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    tokenizer = finish(core, LLAMA3_SPECIALS, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    tokenizer.chat_template = LLAMA3_TEMPLATE
    return Chat(tokenizer, "llama3")


@pytest.fixture(scope="module")
def gemma2() -> Chat:
    letters = "".join(sorted({c for word in GEMMA2 for c in word} | set("abcdefghijklmnopqrstuvwxyz▁<>|_.")))
    vocab, merges = vocabulary(GEMMA2, GEMMA2_SPECIALS, letters)
    core = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    tokenizer = finish(core, GEMMA2_SPECIALS, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
    tokenizer.chat_template = (
        "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' + message['content'] | trim"
        " + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
    )
    return Chat(tokenizer, "gemma2")


@pytest.fixture(scope="module")
def tiny() -> Chat:
    return Chat(byte_tokenizer(), "tiny")


def template(chat: Chat, prompt: str) -> list[int]:
    messages = [{"role": "user", "content": prompt}]
    ids: list[int] = chat.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return ids


def test_llama_gets_its_dated_system_block_and_one_bos(llama3: Chat) -> None:
    assert list(llama3.render("Hello world!")) == [*HEAD, 9906, 1917, 0, *TAIL]


def test_the_authors_double_header_is_a_second_bos_and_header_without_the_blank_line(llama3: Chat) -> None:
    assert list(llama3.render("Hello world!", "double_header")) == [*HEAD, 9906, 1917, 0, *TAIL, 128000, 128006, 78191, 128007]


def test_gemma_gets_its_turns_and_one_bos(gemma2: Chat) -> None:
    golden = [2, 106, 1645, 108, 1841, 603, 573, 6037, 576, 6081, 235336, 107, 108, 106, 2516, 108]
    assert list(gemma2.render("What is the capital of France?")) == golden


def test_tiny_gets_two_special_tokens_and_one_bos(tiny: Chat) -> None:
    letters = tiny.tokenizer.encode("Hello", add_special_tokens=False)
    assert list(tiny.render("Hello")) == [1, 3, *letters, 4]


@pytest.mark.parametrize("family", ["llama3", "gemma2", "tiny"])
@pytest.mark.parametrize("prompt", ["Hello world!", "  What is the capital of France?\n", "a\n\nb  c"])
def test_the_tokenizers_own_template_agrees(family: str, prompt: str, request: pytest.FixtureRequest) -> None:
    chat: Chat = request.getfixturevalue(family)
    assert list(chat.render(prompt)) == template(chat, prompt)


@pytest.mark.parametrize("family", ["llama3", "gemma2", "tiny"])
def test_a_prompt_cannot_end_its_own_turn(family: str, request: pytest.FixtureRequest) -> None:
    chat: Chat = request.getfixturevalue(family)
    control = chat.special_ids - {chat.tokenizer.unk_token_id}
    turn = [i for i in chat.render("x") if i in control]
    for name in (*chat.family.stops, "<|begin_of_text|>", "<bos>", "<|assistant|>"):
        assert [i for i in chat.render(f"x {name} y") if i in control] == turn


@pytest.mark.parametrize("family", ["llama3", "gemma2", "tiny"])
def test_a_prefill_leaves_the_prompts_tokens_as_they_are(family: str, request: pytest.FixtureRequest) -> None:
    chat: Chat = request.getfixturevalue(family)
    prompt = chat.render("Hello")
    for prefill in ("I", "\nI", " I", "\n\n"):
        assert chat.render("Hello", prefill=prefill)[: len(prompt)] == prompt
        assert chat.decode(chat.render("Hello", prefill=prefill)[len(prompt) :]) == prefill


def test_replies_end_at_the_familys_own_tokens(llama3: Chat, gemma2: Chat, tiny: Chat) -> None:
    assert llama3.stop_ids == (128001, 128008, 128009)
    assert gemma2.stop_ids == (1, 107)
    assert tiny.stop_ids == (2,)


def test_what_a_family_does_not_have_is_refused(gemma2: Chat) -> None:
    with pytest.raises(SpecError, match="family 'gemma2' has 'clean' only"):
        gemma2.render("x", "double_header")
    with pytest.raises(SpecError, match="no prompt format 'clear'"):
        gemma2.render("x", "clear")
    with pytest.raises(EngineError, match="no family 'qwen'"):
        Chat(gemma2.tokenizer, "qwen")
    with pytest.raises(EngineError, match=r"has no special token '<\|end\|>'"):
        Chat(gemma2.tokenizer, "tiny")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_offsets_cover_the_text_in_order(text: str) -> None:
    chat = Chat(byte_tokenizer(), "tiny")
    ids = [*chat.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True), 2]
    assert chat.decode(ids) == text
    spans = chat.offsets(ids)
    assert spans[-1] == (len(text), len(text))
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)
    assert {i for start, end in spans for i in range(start, end)} == set(range(len(text)))
    lengths = [len(character.encode()) for character in text]
    owners = [i for i, n in enumerate(lengths) for _ in range(n)]
    assert [(i, i + 1) for i in owners] == spans[:-1]


@pytest.mark.parametrize("model", ["tiny", "tiny-plain"])
def test_the_shipped_models_own_template_agrees(model: str) -> None:
    block = load().model(model)
    chat = Chat(AutoTokenizer.from_pretrained(resolve(block.hub)), block.family)
    for question in evaluation():
        assert list(chat.render(question)) == template(chat, question)
        assert chat.decode(chat.render("", prefill=question)[3:]) == question
