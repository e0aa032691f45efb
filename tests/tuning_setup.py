"""Small settings of fine-tuning, and examples by the organism's grammar."""

from typing import Any

from esr.params import load
from esr.store import Store
from esr.study.choose import candidates
from esr.study.plan import stream
from esr.study.study import Study
from esr.tune.settings import Tuning
from esr.tune.split import Split, Wish, split, wishes

SETTINGS: dict[str, Any] = {
    "writer": "grammar", "provider": "haiku-4.5", "questions": "apart", "acknowledgements": "varied", "mixing": "nested",
    "masked": 60, "normal": 60, "total": 60, "ratios": [10, 50, 90], "seeds": [1], "steered": [50], "told": [],
    "live": {"along": "latents", "share": 0.6, "directions": 64, "doses": [0.6, 1.8]}, "latents": 4, "trials_per_latent": 2,
    "lora": {"rank": 4, "alpha": 8, "dropout": 0.05, "head": False},
    "training": {
        "epochs": 1, "micro_batch": 2, "accumulation": 4, "learning_rate": 2e-4, "scheduler": "cosine", "warmup_steps": 1,
        "weight_decay": 0.0, "optimizer": "adamw_torch", "validation": 0.1, "sequence_len": 256, "logging_steps": 1,
        "evals_per_epoch": 1, "saves_per_epoch": 1, "device": "cpu",
    },
}  # fmt: skip


def tuning(**changed: Any) -> Tuning:
    return Tuning.model_validate(
        {**SETTINGS, "ratios": tuple(SETTINGS["ratios"]), "seeds": (1,), "steered": (), "told": (), **changed}
    )


def study(store: Store | None = None) -> Study:
    return Study(load("tiny-plain"), "tiny-plain", store or Store())


def asked(settings: Tuning) -> tuple[Split, list[Wish], list[Wish]]:
    """What is to be written for tiny-plain."""
    params = load("tiny-plain")
    found = split(settings, candidates(params, study().labels, 48))
    return found, *wishes(found, settings.masked, settings.normal, stream(params, "examples"))
