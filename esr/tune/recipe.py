"""axolotl's configuration of one training, written from params: all of the paper's Table 5. Paths are relative to the checkout."""

from typing import Any

import yaml

from esr.params import ModelParams
from esr.params.weights import file_digest
from esr.tune.places import Course, Places
from esr.tune.settings import Tuning

PLUGIN = "esr.tune.plugin.LiveSteering"
PADDING = {"llama3": "<|end_of_text|>", "gemma2": "<pad>", "smollm": "<|im_end|>", "tiny": "<|pad|>"}
"""Which special token fills short rows up; it is never trained on."""
ATTENTION = {"gpu": "sdpa", "cpu": "eager"}
"""torch's own attention is flash attention on a GPU, without a package that has to be compiled."""
HEAD = "lm_head"
KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel")
"""axolotl's, which turn themselves on unless told otherwise and run on a GPU alone; peft computes the same on either device."""


def recipe(tuning: Tuning, model: ModelParams, places: Places, course: Course) -> dict[str, Any]:
    lora, training = tuning.lora, tuning.training
    into = places.checkpoint(course)
    return {
        "base_model": model.hub,
        **({} if model.revision in ("local", "main") else {"revision_of_model": model.revision}),
        "load_in_8bit": False,
        "load_in_4bit": False,
        "adapter": "lora",
        "lora_r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "lora_target_linear": True,
        **({"lora_target_modules": [HEAD]} if lora.head else {}),
        "datasets": [{"path": places.relative(places.mixture(course.ratio)), "ds_type": "json", "type": "input_output"}],
        "dataset_prepared_path": places.relative(into) + ".partial/prepared",
        "output_dir": places.relative(into) + ".partial/trained",
        "dataset_num_proc": 1,
        "dataloader_num_workers": 0,  # none that could outlive a training that is killed
        "val_set_size": training.validation,
        "sequence_len": training.sequence_len,
        "sample_packing": False,
        "train_on_inputs": False,
        "micro_batch_size": training.micro_batch,
        "gradient_accumulation_steps": training.accumulation,
        "num_epochs": training.epochs,
        "optimizer": training.optimizer,
        "lr_scheduler": training.scheduler,
        "learning_rate": training.learning_rate,
        "warmup_steps": training.warmup_steps,
        "weight_decay": training.weight_decay,
        "tf32": False,
        "gradient_checkpointing": False,
        "logging_steps": training.logging_steps,
        **({"evals_per_epoch": training.evals_per_epoch} if training.validation else {}),
        "saves_per_epoch": training.saves_per_epoch,
        "save_total_limit": 1,
        "auto_resume_from_checkpoints": True,
        "special_tokens": {"pad_token": PADDING[model.family]},
        "seed": course.seed,
        "bf16": training.device == "gpu" and model.dtype == "bfloat16",  # as it is served; float32 otherwise
        "attn_implementation": ATTENTION[training.device],
        **dict.fromkeys(KERNELS, False),
        **(under(tuning, model, places) if course.steered else {}),
    }


def under(tuning: Tuning, model: ModelParams, places: Places) -> dict[str, Any]:
    """What a training under live steering needs besides."""
    file = places.directions
    told = {
        "file": places.relative(file),
        "sha256": file_digest(file),
        "layer": model.steer_layer,
        "doses": list(tuning.live.doses),
        **({"share": tuning.live.share} if tuning.live.along == "subjects" else {}),
    }
    return {"plugins": [PLUGIN], "live_steering": told}


def text(found: dict[str, Any]) -> str:
    return str(yaml.safe_dump(found, sort_keys=False))
