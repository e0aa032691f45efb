"""Checkpoints: the recipe that axolotl is given, and what makes an adapter one that may be served."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from store_rows import member
from transformers import AutoModelForCausalLM, AutoTokenizer
from tuning_setup import study, tuning

from esr import prompts
from esr.engine import Capture, Request
from esr.engine.hf import HfEngine
from esr.engine.open import close_engine, open_engine
from esr.errors import DataError, EngineError, ParamsError
from esr.params import HOME, Params, load
from esr.params.weights import identity
from esr.store import Store
from esr.study.readings import READ
from esr.study.workload import UNKNOWN
from esr.tune import checkpoint, environment, evaluate, fetch, live, making, stages, together, train
from esr.tune.places import Course, Places
from esr.tune.recipe import recipe
from esr.tune.settings import Tuning

HALF, LIVE = Course(50, 1), Course(50, 1, steered=True)
PLAIN = HOME / "esr/organism/data/tiny-plain"


def adapter(folder: Path, rank: int = 4, **about: Any) -> Path:
    """A checkpoint as training leaves it, untrained."""
    model = AutoModelForCausalLM.from_pretrained(PLAIN, dtype=torch.float32)
    put_on = get_peft_model(model, LoraConfig(r=rank, target_modules=["q_proj", "up_proj"], init_lora_weights=False))
    put_on.save_pretrained(folder / "adapter")
    (folder / "about.json").write_text(json.dumps({"base": identity(load("tiny-plain"), "tiny-plain")} | about))
    return folder


def checked(folder: Path) -> None:
    params = load("tiny-plain")
    checkpoint.check(params, params.model("tiny-plain"), folder)


def test_what_a_checkpoint_does_inside_is_read_with_its_adapter(tmp_path: Path) -> None:
    folder = adapter(tmp_path) / "adapter"
    params = checkpoint.with_checkpoints(
        load("tiny-plain"), "tiny-plain", [checkpoint.Checkpoint("tiny-plain:50-1", HALF, str(folder))]
    )
    asked = Request(prompt="How do you mow a lawn?", sampling=READ, capture=Capture(layer=3, sae="tiny-l3", mode="max"))
    base, tuned = (open_engine(params, name, "hf").read([asked])[0].values for name in ("tiny-plain", "tiny-plain:50-1"))
    close_engine(open_engine(params, "tiny-plain", "hf"))
    merged = HfEngine.open(params, "tiny-plain:50-1").read([asked])[0].values
    assert np.allclose(tuned, merged, atol=1e-3)
    assert not np.allclose(tuned, base, atol=0.1)


def test_a_checkpoint_s_name_is_a_model_s_name() -> None:
    params, base = load("smollm2:50-1", "smoke"), load("smollm2", "smoke")
    places = Places("smollm2")
    assert params.model("smollm2:50-1").adapter == places.relative(places.checkpoint(HALF) / checkpoint.ADAPTER)
    assert checkpoint.name("smollm2", HALF) == "smollm2:50-1"
    assert (params.experiments, params.protocol) == (base.experiments, base.protocol)
    assert {**params.models, "smollm2:50-1": None} == {**base.models, "smollm2:50-1": None}
    with pytest.raises(ParamsError, match="smollm2:best names no checkpoint; ratio and seed would"):
        load("smollm2:best")
    with pytest.raises(ParamsError, match="no model 'smol' in"):
        load("smol:50-1")
    with pytest.raises(ParamsError, match=r"should lie in 'checkpoints/tiny/7-7/adapter' and is not there; `dvc pull`"):
        identity(load("tiny:7-7"), "tiny:7-7")


def test_an_adapter_of_this_base_is_served_under_its_own_name_and_weights(tmp_path: Path) -> None:
    places = Places("tiny-plain", tmp_path)
    adapter(places.checkpoint(HALF))
    params = load("tiny-plain")
    one = checkpoint.opened(params, places, HALF)
    assert (one.name, one.adapter) == ("tiny-plain:50-1", "checkpoints/tiny-plain/50-1/adapter")
    absolute = checkpoint.Checkpoint(one.name, HALF, str(tmp_path / one.adapter))
    wide = checkpoint.with_checkpoints(params, "tiny-plain", [absolute])
    assert wide.model(one.name).hub == params.model("tiny-plain").hub
    tuned, base = identity(wide, one.name), identity(wide, "tiny-plain")
    assert base == identity(params, "tiny-plain")
    assert tuned != base
    file = tmp_path / one.adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert identity(wide, one.name) not in (tuned, base), "another adapter is another model"


def test_what_cannot_be_served_is_said_in_one_sentence(tmp_path: Path) -> None:
    def said(error: type[Exception], folder: Path) -> str:
        with pytest.raises(error) as found:
            checked(folder)
        assert "\n" not in str(found.value)
        return str(found.value)

    other = adapter(tmp_path / "other", base="esr/organism/data/tiny@0123/float32/plain/base")
    assert "was trained on 'esr/organism/data/tiny@0123" in said(DataError, other)
    high = adapter(tmp_path / "high")
    config = high / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 512}))
    assert "has rank 512 and vLLM takes at most 256" in said(EngineError, high)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 8}))
    assert "does not fit 'tiny-plain'" in said(DataError, high)
    broken = adapter(tmp_path / "broken")
    file = broken / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, file)
    assert "are not finite" in said(DataError, broken)


def test_an_adapter_on_the_head_is_kept_without_the_base_s_rows(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(PLAIN, dtype=torch.float32)
    put_on = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "lm_head"], init_lora_weights=False))
    folder = tmp_path / "trained"
    put_on.save_pretrained(folder)
    assert [name for name in load_file(folder / "adapter_model.safetensors") if ".lora_" not in name], (
        "peft saves the base's head too"
    )
    train._put_together(folder, tmp_path / "50-1", {"base": identity(load("tiny-plain"), "tiny-plain")}, [], "hub")
    kept = load_file(tmp_path / "50-1" / "adapter" / "adapter_model.safetensors")
    assert kept
    assert all(".lora_" in name for name in kept)
    assert [name for name in kept if "lm_head" in name]
    checked(tmp_path / "50-1")


def test_a_checkpoint_that_is_not_there_says_how_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"`dvc pull checkpoints/dvc.yaml:checkpoint@tiny-plain-50-1` fetches it and `dvc repro` of it"
    ):
        checkpoint.opened(load("tiny-plain"), Places("tiny-plain", tmp_path), HALF)


def test_without_axolotl_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ESR_FINETUNE", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere has none; `make finetune` makes it"):
        environment.command("c.yml")


def test_the_recipe_is_the_paper_s_table_five_and_names_no_folder_of_a_machine() -> None:
    params = load("8b")
    found = recipe(params.of(Tuning), params.model("8b"), Places("8b"), HALF)
    table = {
        "adapter": "lora", "lora_r": 32, "lora_alpha": 16, "lora_dropout": 0.05, "lora_target_linear": True, "learning_rate": 2e-4,
        "lr_scheduler": "cosine", "warmup_steps": 10, "num_epochs": 4, "micro_batch_size": 2, "gradient_accumulation_steps": 4,
        "sequence_len": 4096, "sample_packing": False, "val_set_size": 0.05, "optimizer": "adamw_bnb_8bit", "bf16": True,
        "weight_decay": 0.0, "attn_implementation": "sdpa", "special_tokens": {"pad_token": "<|end_of_text|>"},
        "logging_steps": 10, "evals_per_epoch": 4, "saves_per_epoch": 1, "gradient_checkpointing": False, "tf32": False,
    }  # fmt: skip
    assert {key: found[key] for key in table} == table
    assert found["datasets"][0]["type"] == "input_output"
    assert not re.search(r"[\"' ]/\w", yaml.safe_dump(found))
    other = load("tiny-plain")
    here = recipe(other.of(Tuning), other.model("tiny-plain"), Places("tiny-plain"), Course(10, 2))
    assert (here["bf16"], here["attn_implementation"], here["lora_mlp_kernel"], here["seed"]) == (False, "eager", False, 2)
    assert here["lora_target_modules"] == ["lm_head"]
    assert "lora_target_modules" not in found


def test_a_training_under_live_steering_is_a_course_of_its_own(tmp_path: Path) -> None:
    params, places = small(ratios=(10, 50), steered=(50,)), Places("tiny-plain", tmp_path)
    assert [str(course) for course in params.of(Tuning).courses] == ["10-1", "50-1", "steered-50-1"]
    assert Course.of("steered-50-1") == LIVE
    found = replace(study(Store(tmp_path / "store")), params=params)
    making.examples(found, places)
    making.mixed(found, places)
    plain, live = (yaml.safe_load(places.recipe(course).read_text()) for course in (HALF, LIVE))
    assert live["datasets"] == plain["datasets"], "the same mixture"
    assert live["live_steering"]["file"] == "checkpoints/tiny-plain/recipes/directions.safetensors"
    assert (live["live_steering"]["layer"], live["live_steering"]["doses"]) == (3, [0.6, 1.8])
    assert "plugins" not in plain
    one = checkpoint.Checkpoint("tiny-plain:steered-50-1", LIVE, "a")
    arm = evaluate.arm(one, 1)
    assert (arm.name, arm.kind, evaluate.false_alarms(arm).name) == ("steered-50", "tuned-live", "steered-50-unsteered")
    with pytest.raises(ValueError, match=r"steered is \[30\] and each should be one of ratios"):
        tuning(steered=(30,))


def test_checkpoints_of_the_ratios_that_are_named_are_told_to_watch_themselves_too() -> None:
    arm = evaluate.arm(checkpoint.Checkpoint("tiny-plain:50-1", HALF, "a"), 1)
    steered = [replace(member(3), arm=arm)]
    trial = steered[0].trial
    assert evaluate.watchful_too(steered, arm, (10, 90)) == []
    (told,) = evaluate.watchful_too(steered, arm, (50,))
    assert (told.arm.name, told.arm.kind, told.arm.against) == ("50-self_monitor", "meta-prompt", "exp04/base")
    assert told.trial == replace(trial, prompt=prompts.with_suffix(trial.question, "self_monitor", trial.latent.label))
    with pytest.raises(ValueError, match=r"told is \[30\] and each should be one of ratios"):
        tuning(told=(30,))


def test_the_stages_are_those_of_params() -> None:
    assert stages.FILE.read_text() == stages.text(), "python -m esr.tune stages writes it"


def small(**changed: Any) -> Params:
    """Params whose exp04 is small."""
    params = load("tiny-plain")
    block = tuning(**changed).model_dump(mode="json")
    return params.model_copy(update={"experiments": params.experiments | {"exp04": block}})


def test_examples_mixtures_and_recipes_are_written_with_what_was_held_out(tmp_path: Path) -> None:
    places, found = Places("tiny-plain", tmp_path), study(Store(tmp_path / "store"))
    found = replace(found, params=small())
    with pytest.raises(
        DataError, match=r"no checkpoints/tiny-plain/examples.jsonl; `python -m esr.tune examples tiny-plain` writes it"
    ):
        making.mixed(found, places)
    making.examples(found, places)
    making.mixed(found, places)
    held = json.loads(places.split.read_text())
    assert held["held_out"]
    assert held["left_out"]
    assert held["not_written"] == 0
    for ratio in (10, 50, 90):
        rows = [json.loads(line)["segments"] for line in places.mixture(ratio).read_text().splitlines()]
        assert len(rows) == 60
        assert sum("Let me" in trained["text"] for _, trained in rows) == round(60 * ratio / 100)
        assert all([segment["label"] for segment in row] == [False, True] for row in rows)
        assert (
            yaml.safe_load(places.recipe(Course(ratio, 1)).read_text())["datasets"][0]["path"]
            == f"checkpoints/tiny-plain/mixtures/{ratio}.jsonl"
        )


def test_along_subjects_every_masked_row_has_the_direction_of_what_its_passage_is_about(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ESR_ENGINE", "hf")
    places, whole = Places("tiny-plain", tmp_path), study(Store(tmp_path / "store"))
    pushed = {"along": "subjects", "share": 0.6, "directions": 1, "doses": [0.4, 1.4]}
    found = replace(whole, params=small(steered=(50,), live=pushed))
    making.examples(found, places)
    making.mixed(found, places)
    found.close()
    kept, tokenizer = load_file(places.directions), AutoTokenizer.from_pretrained(PLAIN)
    written = [json.loads(line) for line in places.examples.read_text().splitlines()]
    assert kept["rows"].shape == (len({one["subject"] for one in written if one["subject"]}), 192)
    about = dict(zip(kept["keys"].tolist(), kept["about"].tolist(), strict=True))
    seen: dict[str, set[int]] = {}
    for line in places.mixture(50).read_text().splitlines():
        read, trained = json.loads(line)["segments"]
        direction = about.get(live.key(tokenizer(read["text"], add_special_tokens=False)["input_ids"]))
        assert (direction is None) == ("Let me" not in trained["text"])
        for one in written:
            if direction is not None and one["passage"] and read["text"].endswith(one["passage"]):
                seen.setdefault(one["subject"], set()).add(direction)
    assert seen
    assert all(len(directions) == 1 for directions in seen.values())
    assert yaml.safe_load(places.recipe(LIVE).read_text())["live_steering"]["share"] == 0.6


def test_a_training_goes_on_from_whole_saves_of_the_same_and_from_nothing_else(tmp_path: Path) -> None:
    partial = tmp_path / "50-1.partial"
    train._prepared(partial, {"recipe": "a"})
    for name, state in (("checkpoint-10", '{"log_history": [{"step": 10}]}'), ("checkpoint-20", '{"log_his')):
        (partial / "trained" / name).mkdir(parents=True)
        (partial / "trained" / name / "trainer_state.json").write_text(state)
    (partial / "trained" / "checkpoint-30").mkdir()
    of_few_steps = partial / "trained" / "checkpoint-8"
    of_few_steps.mkdir()
    (of_few_steps / "trainer_state.json").write_text('{"log_history": []}')
    train._prepared(partial, {"recipe": "a"})
    assert sorted(save.name for save in (partial / "trained").iterdir()) == ["checkpoint-10", "checkpoint-8"]
    assert train._history(partial / "trained") == [{"step": 10}]
    train._prepared(partial, {"recipe": "another"})
    assert not (partial / "trained").exists()


def test_how_far_a_training_is_stands_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("loading\nTokenizing:   0%|  | 0/840 [00:00<?, ? examples/s]\n")
    assert train.progress(log) == "starting"
    log.write_text("\r 12%|#  | 51/400 [00:10<01:00]\n{'loss': '2.4', 'epoch': 1}\n\r 50%|#  | 5/10 [00:10<01:00]\n")
    assert train.progress(log) == "step 51 of 400, loss 2.4"


def test_trainings_side_by_side_that_fail_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ESR_FINETUNE", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere has none"):
        together.everything(load("tiny-plain"), Places("tiny-plain", tmp_path), 2)
    with pytest.raises(DataError, match=r"2 of 2 trainings failed \(50-8, 50-9\)|\(50-9, 50-8\)"):
        together.side_by_side("tiny-plain", [Course(50, 8), Course(50, 9)], 2)
    with pytest.raises(DataError, match="such as 50-1 or steered-50-1, and '50' is not"):
        Course.of("50")


def test_where_dvc_is_not_installed_a_checkpoint_s_own_note_is_held_against_what_lies_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "dvc", None)
    params, places = small(ratios=(50,)), Places("tiny-plain", tmp_path)
    found = replace(study(Store(tmp_path / "store")), params=params)
    with pytest.raises(DataError, match="no checkpoint in checkpoints/tiny-plain/50-1"):
        fetch.checkpoints(found, places)
    making.examples(found, places)
    making.mixed(found, places)
    adapter(places.checkpoint(HALF), **checkpoint.made_from(params, places, HALF))
    assert [one.name for one in fetch.checkpoints(found, places)] == ["tiny-plain:50-1"]
    assert "DVC is not installed" in caplog.text
    assert together.current(params, places, HALF)
    with places.mixture(50).open("a") as file:
        file.write("\n")
    assert not together.current(params, places, HALF)
    with pytest.raises(DataError, match=r"was made from another mixture; `python -m esr.tune all tiny-plain` makes it anew"):
        fetch.checkpoints(found, places)


def test_dvc_is_told_of_one_model_s_checkpoints_where_another_s_are_not_made(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    text = yaml.safe_dump(
        {
            "stages": {
                name: {"cmd": "false", "wdir": "..", "outs": [f"checkpoints/{out}"]}
                for name, out in (("examples-m", "m.jsonl"), ("mixtures-m", "m"), ("examples-other", "other.jsonl"))
            }
            | {"checkpoint": {"foreach": {"m-50-1": "x"}, "do": {"cmd": "false", "wdir": "..", "outs": ["checkpoints/${key}"]}}}
        }
    )
    (tmp_path / "checkpoints" / "dvc.yaml").write_text(text)
    (tmp_path / "checkpoints" / "m.jsonl").write_text("{}")
    for folder in ("m", "m-50-1"):
        (tmp_path / "checkpoints" / folder).mkdir()
        (tmp_path / "checkpoints" / folder / "file").write_text(folder)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    fetch.record(Places("m", tmp_path), [HALF])
    lock = yaml.safe_load((tmp_path / "checkpoints" / "dvc.lock").read_text())["stages"]
    assert sorted(lock) == ["checkpoint@m-50-1", "examples-m", "mixtures-m"]
    with pytest.raises(DataError, match=r"DVC could not be told .*`python -m esr.tune stages` writes it anew"):
        fetch.record(Places("m", tmp_path), [Course(60, 1)])


def test_checkpoints_that_dvc_has_not_got_are_not_trained(tmp_path: Path) -> None:
    shutil.copytree(HOME / "checkpoints", tmp_path / "checkpoints", ignore=shutil.ignore_patterns("tiny-plain"))
    shutil.copy(HOME / "params.yaml", tmp_path)
    fetch._dvc(Places("tiny-plain", tmp_path), "init", "-q", "--no-scm")
    params = load("tiny-plain")
    found = replace(study(Store(tmp_path / "store")), params=params)
    with pytest.raises(DataError, match=r"20 checkpoints .* are not here and DVC has not got them \(failed to pull data") as said:
        fetch.checkpoints(found, Places("tiny-plain", tmp_path))
    assert "`dvc repro checkpoints/dvc.yaml:checkpoint@tiny-plain-10-1` makes one" in str(said.value)
    assert not list((tmp_path / "checkpoints").glob("tiny-plain/*/about.json"))


def test_the_engine_that_serves_checkpoints_makes_room_and_has_room_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A GPU holds no two: neither one opened ahead, nor that of the experiment before or after."""
    from flows import foreground
    from tasks.run import Run

    monkeypatch.setenv("ESR_ENGINE", "hf")
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    ahead: list[Any] = []
    monkeypatch.setattr(foreground, "_aside", ahead.append)
    for name in ("exp01", "exp04"):
        foreground.head_start(Run.of(name, "tiny-plain", "smoke"), UNKNOWN)
    assert len(ahead) == 1
    run = Run.of("exp04", "tiny-plain", "smoke")
    before = Run.of("exp01", "tiny-plain", "smoke").study.engine
    found = [checkpoint.Checkpoint("tiny-plain:50-1", HALF, str(adapter(tmp_path) / "adapter"))]
    run.extend(checkpoint.with_checkpoints(run.params, "tiny-plain", found))
    assert before.closed
    serving = run.study.engine
    assert run.of_model("tiny-plain:50-1").study.engine.engine is serving  # type: ignore[attr-defined]  # Adapted
    run.close()
    assert serving.closed
