"""Random models of every family that the plugin admits, their tokenizers and SAEs, as the folders that engines open; made in a second.

toy = make_toy(tmp_path, "llama")          # model folder, two SAE folders and the Params that name them
open_engine(toy.params, toy.name, "vllm")
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Glm4Config,
    Glm4ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    OlmoConfig,
    OlmoForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from esr.params import ModelParams, Params, SaeParams, Search, load

Architecture = Literal["llama", "gemma2", "mistral", "qwen2", "qwen3", "gemma3", "glm4", "phi3", "olmo", "olmo2", "smollm3"]
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM, {"tie_word_embeddings": True, "sliding_window": 64, "query_pre_attn_scalar": 32}),
    "mistral": (MistralConfig, MistralForCausalLM, {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"num_attention_heads": 2}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {}),
    "gemma3": (
        Gemma3TextConfig,
        Gemma3ForCausalLM,
        {"tie_word_embeddings": True, "sliding_window": 64, "query_pre_attn_scalar": 32, "initializer_range": 0.02},
    ),
    "glm4": (Glm4Config, Glm4ForCausalLM, {"partial_rotary_factor": 0.5}),
    "phi3": (Phi3Config, Phi3ForCausalLM, {"num_attention_heads": 2}),
    "olmo": (OlmoConfig, OlmoForCausalLM, {"num_attention_heads": 2}),
    "olmo2": (Olmo2Config, Olmo2ForCausalLM, {"num_attention_heads": 2}),
    "smollm3": (SmolLM3Config, SmolLM3ForCausalLM, {"num_attention_heads": 2}),
}
"""Configuration, model, and what a family needs besides."""
SPECIALS = ("<|pad|>", "<|bos|>", "<|end|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] | trim }}"
    "{% else %}<|assistant|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WIDTH, LAYERS, D_SAE = 64, 4, 96


@dataclass(frozen=True, slots=True)
class Toy:
    """A random model on disk and the parameters that name it."""

    name: str
    folder: Path
    params: Params


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, specials first (ids 0 to 4): text of any kind, long prompts from short ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*SPECIALS, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|bos|>", eos_token="<|end|>", pad_token="<|pad|>", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def model_config(architecture: Architecture, *, layers: int = LAYERS, width: int = WIDTH) -> Any:
    common = {
        "vocab_size": 272,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.15,
        "tie_word_embeddings": False,
    }
    config, _, more = FAMILIES[architecture]
    return config(**(common | more))


def write_model(folder: Path, architecture: Architecture, *, seed: int = 0, layers: int = LAYERS, width: int = WIDTH) -> Path:
    """A random fp32 model and its tokenizer as a Hugging Face folder."""
    torch.manual_seed(seed)
    config = model_config(architecture, layers=layers, width=width)
    model = FAMILIES[architecture][1](config).to(torch.float32).eval()
    if architecture == "gemma2":
        model.model.embed_tokens.weight.data *= 0.1  # tied and scaled by √width: at full size the model repeats its input
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def write_sae(
    folder: Path, layer: int, *, seed: int = 0, architecture: Literal["standard", "jumprelu"] = "standard",
    width: int = WIDTH, d_sae: int = D_SAE, apply_b_dec_to_input: bool = False, **extra: Any,
) -> Path:  # fmt: skip
    """A random SAE in SAELens' folder layout; neighbouring encoder rows are correlated, decoder norms are not 1."""
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(d_sae, width, generator=g)
    rows = (base + 0.5 * base.roll(1, 0)) / width**0.5
    weights = {
        "W_enc": rows.T.contiguous(),
        "b_enc": 0.3 * torch.randn(d_sae, generator=g),
        "W_dec": (rows + 0.1 * torch.randn(d_sae, width, generator=g)) * 0.7,
        "b_dec": 0.2 * torch.randn(width, generator=g),
    }
    if architecture == "jumprelu":
        weights["threshold"] = 0.1 + 0.3 * torch.rand(d_sae, generator=g)
    config = {
        "architecture": architecture,
        "d_in": width,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": apply_b_dec_to_input,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.0", "model_name": "toy", "hook_name": f"blocks.{layer}.hook_resid_post"},
    } | extra
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def toy_params(folder: Path, architecture: Architecture, *, layers: int = LAYERS, width: int = WIDTH) -> Params:
    """Params with model `toy-…` and the SAEs `early` (after block 1, ReLU) and `late` (after block 2, JumpReLU)."""
    base = load("tiny")
    saes = {
        name: SaeParams(name=name, loader="folder", repo=str(folder / name), layer=layer, d_in=width, d_sae=D_SAE)
        for name, layer in (("early", 1), ("late", 2))
    }
    name = f"toy-{architecture}"
    toy = ModelParams(
        name=name, hub=str(folder / "model"), revision="local", family="tiny", layers=layers, width=width, dtype="float32",
        quantization=None, max_model_len=512, sae="early", steer_layer=1, read_layer=1, ablate_layer=1,
        allow_layer_mismatch=False, repetition_penalty=1.0, search=Search(lower=0, upper=40, prior_mean=8, prior_std=8),
        judge="lexical", reference_names=(),
    )  # fmt: skip
    return base.model_copy(update={"models": {**base.models, name: toy}, "saes": {**base.saes, **saes}})


def make_toy(folder: Path, architecture: Architecture = "llama", *, seed: int = 0) -> Toy:
    """A model folder and two SAE folders under `folder`, and the parameters naming them."""
    write_model(folder / "model", architecture, seed=seed)
    write_sae(folder / "early", 1, seed=seed + 1)
    write_sae(folder / "late", 2, seed=seed + 2, architecture="jumprelu", apply_b_dec_to_input=True)
    params = toy_params(folder, architecture)
    return Toy(f"toy-{architecture}", folder / "model", params)
