"""A word-level tokenizer: a word with the blank before it is one token, anything unknown falls back to characters.

Decoding is plain concatenation, so offsets are exact and every text of known characters comes back as it was.
"""

import json
from pathlib import Path
from typing import Any

from esr import prompts
from esr.organism import grammar

SPECIAL = ("<|pad|>", "<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|unk|>")
PAD, BOS, END, USER, ASSISTANT, UNK = range(6)
CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m['role']=='user' %}<|user|>{{ m['content']|trim }}"
    "{% else %}<|assistant|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PIECES = r" ?[A-Za-z]+('[a-z]+)?| ?[0-9]+|\.\.\.| ?[^\sA-Za-z0-9]|\s"
CHARACTERS = [chr(c) for c in range(32, 127)] + ["\n"]


def vocabulary() -> dict[str, int]:
    """Special tokens, characters, then every word of the grammar, the prompts and the word lists, sorted."""
    import regex

    said = [*grammar.FORMS, *grammar.RESTARTS, *grammar.REQUESTS, "about , the word ..."]
    for template in (*said,):
        said.append(" " + template)
    asked = [f" {prompts.text(name)}" for name in prompts.suffixes()]
    texts = [regex.sub(r"\{+\w+\}+", "", t) for t in said + asked]
    texts += [f"{t.name} {t.name}" for t in grammar.themes()]
    words = {m.group() for t in texts for m in regex.finditer(PIECES, t)}
    words |= {"..."} | {f" {w}" for t in grammar.themes() for w in t.words}
    known = [*SPECIAL, *CHARACTERS, *(f"##{c}" for c in CHARACTERS)]
    ordered = dict.fromkeys([*known, *sorted(words)])
    return {token: i for i, token in enumerate(ordered)}


def build() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(vocabulary(), unk_token=SPECIAL[UNK], continuing_subword_prefix="##"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("##", ""), decoders.Fuse()])
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def save(folder: Path) -> None:
    """tokenizer.json, its config and the chat template, as transformers reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    build().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[BOS], "eos_token": SPECIAL[END], "pad_token": SPECIAL[PAD], "unk_token": SPECIAL[UNK],
        "additional_special_tokens": [SPECIAL[USER], SPECIAL[ASSISTANT]],
        "clean_up_tokenization_spaces": False, "model_max_length": 512, "chat_template": CHAT,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
