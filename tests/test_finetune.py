"""One real checkpoint: made by DVC with axolotl on a CPU, killed on the way, pulled into a second clone, and served beside its base."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tuning_setup import SETTINGS

from esr.engine import Request
from esr.engine.open import close_engine, open_engine
from esr.errors import DataError
from esr.params import HOME, load, parse
from esr.store import Store
from esr.study.study import Study
from esr.tune import checkpoint, fetch
from esr.tune.places import Course, Places, stage
from esr.types import Op, Sampling

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
HALF, LIVE = Course(50, 1), Course(50, 1, steered=True)
ONE = stage("tiny-plain", HALF)
OFFLINE = (
    "No matching distribution",
    "Could not find a version",
    "NewConnectionError",
    "Name or service",
    "name resolution",
    "timed out",
)
"""What pip says where no registry can be reached."""


@pytest.fixture(scope="module")
def axolotl() -> Path:
    """The environment that `make finetune` makes."""
    done = subprocess.run(["make", "finetune", f"PYTHON={sys.executable}"], cwd=HOME, capture_output=True, text=True, timeout=840)
    if done.returncode and any(said in done.stderr for said in OFFLINE):
        pytest.skip(f"axolotl cannot be installed here, no registry has its packages: {done.stderr.strip().splitlines()[-1][:200]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return HOME / ".venv-finetune"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, axolotl: Path) -> Path:
    """A clone with a small experiment 4: one ratio, one seed, some steps."""
    root = tmp_path_factory.mktemp("project")
    for name in (
        "esr",
        "flows",
        "tasks",
        "checkpoints/.gitignore",
        ".dvc/config",
        ".dvc/.gitignore",
        ".dvcignore",
        ".gitignore",
        "pyproject.toml",
    ):
        source, there = HOME / name, root / name
        there.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, there, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, there)
    tree = yaml.safe_load((HOME / "params.yaml").read_text())
    small = SETTINGS | {"ratios": [50], "steered": [50], "masked": 60, "normal": 60, "total": 80}
    small["training"] = SETTINGS["training"] | {"epochs": 3, "learning_rate": 1e-3}
    small["lora"] = SETTINGS["lora"] | {"head": True}
    for block in tree["by_model"].values():
        block.pop("exp04", None)
    tree["by_model"]["tiny-plain"]["exp04"] = json.loads(json.dumps(small))
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    (root / ".venv").symlink_to(sys.prefix)
    ran(root, sys.executable, "-m", "esr.tune", "stages")
    for words in (("init", "-q"), ("add", "-A", "--", ".", ":!.venv"), ("commit", "-qm", "a")):
        git(root, *words)
    return root


def environment(root: Path) -> dict[str, str]:
    env = {
        **os.environ,
        "PYTHONPATH": str(root),
        "ESR_FINETUNE": str(HOME / ".venv-finetune"),
        "DVC_SITE_CACHE_DIR": str(root / ".dvc/tmp/site"),
    }
    return {name: value for name, value in env.items() if name not in ("ESR_STORE", "ESR_PARAMS", "ESR_ENGINE")}


def ran(root: Path, *words: str) -> str:
    done = subprocess.run(words, cwd=root, env=environment(root), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def dvc(root: Path, *words: str) -> str:
    return ran(root, sys.executable, "-m", "dvc", *words)


def git(root: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)


@pytest.fixture(scope="module")
def trained(project: Path) -> Path:
    """The checkpoint's folder; its training was killed once after a save, and DVC then finished it."""
    dvc(project, "repro", "-q", "checkpoints/dvc.yaml:mixtures-tiny-plain")
    places = Places("tiny-plain", project)
    partial = places.checkpoint(HALF).with_name("50-1.partial")
    words = [sys.executable, "-m", "esr.tune", "train", "tiny-plain", "50-1"]
    process = subprocess.Popen(words, cwd=project, env=environment(project), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while (
        process.poll() is None and not list(partial.glob("trained/checkpoint-*/trainer_state.json")) and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    process.kill()  # axolotl goes with whoever waits for it
    process.wait(60)
    assert not places.checkpoint(HALF).exists() or process.returncode == 0
    dvc(project, "repro", "-q", ONE)
    return places.checkpoint(HALF)


def test_a_checkpoint_is_there_whole_with_its_loss_and_what_it_was_made_from(trained: Path) -> None:
    assert sorted(file.name for file in trained.iterdir()) == ["about.json", "adapter", "loss.csv"]
    assert sorted(file.name for file in (trained / "adapter").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    rows = list(csv.DictReader((trained / "loss.csv").open()))
    held_back = [float(row["eval_loss"]) for row in rows if row["eval_loss"]]
    assert held_back[-1] < held_back[0], "the loss on what was held back falls"
    about = json.loads((trained / "about.json").read_text())
    assert about["versions"]["axolotl"] == "0.19.0"
    assert about["steps"] == sum(bool(row["loss"]) for row in rows), "the curve is whole, also of a training that went on"
    config = json.loads((trained / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "esr/organism/data/tiny-plain"
    assert not trained.with_name("50-1.partial").exists()


@pytest.fixture(scope="module")
def live(project: Path, trained: Path) -> Path:
    """The same trained under live steering, by the line that makes whatever is not there."""
    before = {file: file.stat().st_mtime_ns for file in trained.rglob("*")}
    said = ran(project, sys.executable, "-m", "esr.tune", "all", "tiny-plain", "--at-once", "2")
    assert "1 of 2 checkpoints are to be trained, 2 at once" in said
    assert {file: file.stat().st_mtime_ns for file in trained.rglob("*")} == before, "what is there and current is left as it is"
    dvc(project, "commit", "-q", "-f", "checkpoints/dvc.yaml")
    return Places("tiny-plain", project).checkpoint(LIVE)


def test_a_distractor_is_felt_in_the_first_step_of_axolotl_s_training(trained: Path, live: Path) -> None:
    """The same rows in the same order and an adapter that says nothing yet: only the distractor is another."""
    first, steered = (
        float(next(row["loss"] for row in csv.DictReader((one / "loss.csv").open()) if row["loss"])) for one in (trained, live)
    )
    assert steered > first + 0.02
    assert json.loads((live / "about.json").read_text())["steered"] is True


def test_a_second_clone_pulls_it_and_trains_nothing(project: Path, trained: Path, live: Path, tmp_path: Path) -> None:
    dvc(project, "push", "-q", "checkpoints/dvc.yaml")
    git(project, "add", "-A", "--", ".", ":!.venv")
    git(project, "commit", "-qm", "b")
    there = tmp_path / "second"
    git(tmp_path, "clone", "-q", str(project), str(there))
    (there / ".venv").symlink_to(sys.prefix)
    dvc(there, "remote", "modify", "--local", "checkpoints", "url", str(project / "store" / "remote"))
    pulled = Places("tiny-plain", there)
    assert not pulled.checkpoint(HALF).exists()
    dvc(there, "pull", "-q", ONE, stage("tiny-plain", LIVE))
    for name in ("about.json", "loss.csv", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"):
        assert (pulled.checkpoint(HALF) / name).read_bytes() == (trained / name).read_bytes()
    study = Study(
        parse(yaml.safe_load((project / "params.yaml").read_text()), "tiny-plain", "full"), "tiny-plain", Store(tmp_path / "store")
    )
    one, two = fetch.checkpoints(study, pulled)
    assert two.course == LIVE
    assert one.adapter == "checkpoints/tiny-plain/50-1/adapter"
    (pulled.checkpoint(HALF) / "loss.csv").unlink()
    with pytest.raises(DataError, match="not what DVC recorded"):
        fetch.checkpoints(study, pulled)


@pytest.fixture(scope="module")
def requests(trained: Path) -> list[Request]:
    """The base and the checkpoint, each with and without steering, in one batch."""
    sampling = Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=48)
    boost = (Op("add", 14, 60.0, 3, "tiny-l3"),)
    asked = ["How do you make a good cup of coffee?", "Explain how to darn a hole in a sock.", "How do you mow a lawn?"]
    return [
        Request(prompt=prompt, sampling=sampling, ops=ops, adapter=adapter)
        for prompt in asked for adapter in ("", str(trained / "adapter")) for ops in ((), boost)
    ]  # fmt: skip


def test_it_is_served_beside_its_base_token_by_token_as_peft_has_it(trained: Path, requests: list[Request]) -> None:
    params = load("tiny-plain")
    one = checkpoint.Checkpoint("tiny-plain:50-1", HALF, str(trained / "adapter"))
    wide = checkpoint.with_checkpoints(params, "tiny-plain", [one])
    wanted = open_engine(params, "tiny-plain", "hf").generate(requests)
    engine = open_engine(wide, "tiny-plain", "vllm")
    try:
        assert [o.token_ids for o in engine.generate(requests)] == [o.token_ids for o in wanted]
        tuned = [replace(request, adapter="") for request in requests if request.adapter]
        by_name = open_engine(wide, one.name, "vllm").generate(tuned)
        assert [o.token_ids for o in by_name] == [o.token_ids for o, r in zip(wanted, requests, strict=True) if r.adapter]
    finally:
        close_engine(engine)
    assert len({(o.token_ids) for o in wanted}) > len(requests) // 2, "steering and the adapter change what is said"
