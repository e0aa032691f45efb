"""Models that differ by an adapter alone share one engine; the real one serves them in tests/test_engine_served.py."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from esr.engine import Request
from esr.engine.open import already_open, close_engine, close_engines, open_engine
from esr.engine.shared import adapters, options
from esr.params import Params, load
from esr.store import Store
from esr.study.study import Study


def with_checkpoints(folder: Path, *, dtype: str = "float32") -> Params:
    """`tiny`, two checkpoints of it, and a third of another type that cannot be served with them."""
    params = load("tiny", "smoke")
    models = dict(params.models)
    for name in ("early", "late", "other"):
        place = folder / name
        place.mkdir(parents=True)
        (place / "adapter_config.json").write_text(json.dumps({"r": 4, "peft_type": "LORA", "target_modules": ["q_proj"]}))
        save_file({"w": np.full(2, len(name), np.float32)}, place / "adapter_model.safetensors")
        change = {"name": name, "adapter": str(place)} | ({"dtype": "bfloat16"} if name == "other" else {})
        models[name] = params.model("tiny").model_copy(update=change)
    return params.model_copy(update={"models": models})


def test_a_base_and_its_checkpoints_are_one_engine_and_answer_each_for_itself(tmp_path: Path) -> None:
    params = with_checkpoints(tmp_path)
    assert adapters(params, "tiny") == adapters(params, "late") == [str(tmp_path / "early"), str(tmp_path / "late")]
    assert options(adapters(params, "tiny")) == {"enable_lora": True, "max_loras": 2, "max_lora_rank": 8}
    assert already_open(params, "late", "fake") is None
    base, early, late = (open_engine(params, name, "fake") for name in ("tiny", "early", "late"))
    assert early.engine is late.engine is base  # type: ignore[attr-defined]  # a checkpoint is the engine and its adapter
    assert open_engine(params, "other", "fake").engine is not base  # type: ignore[attr-defined]  # likewise
    asked = Request(prompt="Explain how to tie a knot.", sampling=params.sampling("tiny"), seed=3)
    said = [engine.generate([asked])[0].text for engine in (base, early, late)]
    assert len(set(said)) > 1
    assert said == [engine.generate([asked])[0].text for engine in (base, early, late)]
    close_engine(late)
    assert already_open(params, "early", "fake") is None


def test_a_study_lets_its_engine_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESR_ENGINE", "fake")
    close_engines()
    study = Study(load("tiny", "smoke"), "tiny", Store(tmp_path))
    assert study.opened is None
    engine = study.engine
    assert study.opened is engine
    study.close()
    assert study.opened is None
    assert study.engine is not engine
    study.close()
