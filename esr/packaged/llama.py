"""A Llama model's GGUF as a Hugging Face folder: configuration, weights in bfloat16, tokenizer.

llama.cpp's converter interleaves the rows of the query and key projections for its own rotary embedding; here they go back.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from esr import gguf
from esr.errors import DataError
from esr.gguf import Floats, Gguf

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BLOCK: Final = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
WHOLE: Final = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
CONTROL: Final = 3
"""Kind of a special token in `tokenizer.ggml.token_type`."""
DIGITS: Final = ("smollm",)
"""Pre-tokenizers that split digits one by one before the bytes are looked at."""


def convert(weights: Path, folder: Path) -> None:
    """The same bytes on every machine."""
    file = gguf.read(weights)
    if file.fields.get("general.architecture") != "llama":
        raise DataError(f"{weights.name} is of architecture {file.fields.get('general.architecture')!r}; llama is converted")
    folder.mkdir(parents=True)
    try:
        config = _config(file)
        _save(file, config, folder / "model.safetensors")
        written = {"config.json": config, "tokenizer_config.json": _tokenizer_config(file), "generation_config.json": _ends(file)}
        for name, block in written.items():
            (folder / name).write_text(json.dumps(block, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        tokenizer(file).save(str(folder / "tokenizer.json"))
    except KeyError as error:
        raise DataError(f"{weights.name} lacks {error}") from None


def _config(file: Gguf) -> dict[str, Any]:
    of = {key.removeprefix("llama."): value for key, value in file.fields.items() if key.startswith("llama.")}
    ids = {key: file.fields[f"tokenizer.ggml.{key}_token_id"] for key in ("bos", "eos", "padding")}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": ids["bos"],
        "dtype": "bfloat16",
        "eos_token_id": ids["eos"],
        "head_dim": of["embedding_length"] // of["attention.head_count"],
        "hidden_act": "silu",
        "hidden_size": of["embedding_length"],
        "initializer_range": 0.02,
        "intermediate_size": of["feed_forward_length"],
        "max_position_embeddings": of["context_length"],
        "mlp_bias": False,
        "num_attention_heads": of["attention.head_count"],
        "num_hidden_layers": of["block_count"],
        "num_key_value_heads": of["attention.head_count_kv"],
        "pad_token_id": ids["padding"],
        "rms_norm_eps": float(f"{of['attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": of["rope.freq_base"],
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "use_cache": True,
        "vocab_size": len(file.fields["tokenizer.ggml.tokens"]),
    }


def _save(file: Gguf, config: dict[str, Any], path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = {}
    for name in sorted(file.tensors):
        numbers = file.tensor(name)
        short, *_ = name.split(".")[2:] if name.startswith("blk.") else [name]
        if short in heads:
            numbers = apart(numbers, heads[short])
        tensors[_named(name)] = torch.from_numpy(numbers).to(torch.bfloat16)
    save_file(tensors, path, metadata={"format": "pt"})


def apart(rows: Floats, heads: int) -> Floats:
    """Rows of each head, (0, half), (1, half + 1), … in the file, with the first halves first."""
    n = len(rows) // heads
    return np.ascontiguousarray(rows.reshape(heads, n // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape))


def _named(name: str) -> str:
    stem, _, end = name.rpartition(".")
    if stem.startswith("blk."):
        _, block, part = stem.split(".")
        if part in BLOCK:
            return f"model.layers.{block}.{BLOCK[part]}.{end}"
    elif stem in WHOLE:
        return f"{WHOLE[stem]}.{end}"
    raise DataError(f"a Llama model has no tensor {name!r}")


def tokenizer(file: Gguf) -> "Tokenizer":
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    if (model := file.fields["tokenizer.ggml.model"]) != "gpt2":
        raise DataError(f"{file.name} has a tokenizer of kind {model!r}; byte-level BPE ('gpt2') is converted")
    if (pre := file.fields["tokenizer.ggml.pre"]) not in DIGITS:
        raise DataError(f"{file.name} splits texts as {pre!r}; known: {', '.join(DIGITS)}")
    words = file.fields["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in file.fields["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    kinds = file.fields["tokenizer.ggml.token_type"]
    made.add_special_tokens(
        [AddedToken(word, special=True, normalized=False) for word, kind in zip(words, kinds, strict=True) if kind == CONTROL]
    )
    return made


def _tokenizer_config(file: Gguf) -> dict[str, Any]:
    words = file.fields["tokenizer.ggml.tokens"]
    names = {"bos": "bos_token", "eos": "eos_token", "padding": "pad_token", "unknown": "unk_token"}
    return {
        "add_prefix_space": False,
        **{name: words[file.fields[f"tokenizer.ggml.{key}_token_id"]] for key, name in names.items()},
        "chat_template": file.fields["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": file.fields["llama.context_length"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _ends(file: Gguf) -> dict[str, Any]:
    ids = {key: file.fields[f"tokenizer.ggml.{key}_token_id"] for key in ("bos", "eos", "padding")}
    return {"bos_token_id": ids["bos"], "eos_token_id": ids["eos"], "pad_token_id": ids["padding"]}
