"""Training one checkpoint with axolotl, so that it is there whole or not at all.

Everything is written to `<checkpoint>.partial`. A training that was killed goes on from axolotl's last whole save where the recipe and the
mixture are the same, and starts again where they are not. Only what has been checked takes the checkpoint's name.
"""

import csv
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from esr.engine.adapter import CONFIG, WEIGHTS
from esr.errors import DataError
from esr.params import Params
from esr.parent import end_with_parent
from esr.store.locks import exclusive
from esr.tune import checkpoint, environment
from esr.tune.places import Course, Places
from esr.tune.settings import Tuning

log = logging.getLogger(__name__)
COLUMNS = ("step", "epoch", "loss", "eval_loss", "learning_rate")
STATE = "trainer_state.json"
"""What a save writes last: one without it broke off."""
POLL = 1.0


def train(params: Params, places: Places, course: Course) -> Path:
    """The checkpoint's folder. Two who train the same wait for one another, and the second starts from what the first left."""
    with exclusive(places.folder / "locks", "train", str(course)):
        return _train(params, places, course)


def _train(params: Params, places: Places, course: Course) -> Path:
    into, config = places.checkpoint(course), places.recipe(course)
    for needed in (config, places.mixture(course.ratio), *([places.directions] if course.steered else [])):
        if not needed.is_file():
            raise DataError(f"no {places.relative(needed)}; `python -m esr.tune mixtures {places.model}` writes it")
    command, versions = environment.command(places.relative(config)), environment.versions()
    partial, made_from = into.with_name(f"{into.name}.partial"), checkpoint.made_from(params, places, course)
    _prepared(partial, made_from)
    began = time.monotonic()
    _run(command, places.root, partial / "train.log", environment.ON[params.of(Tuning).training.device])
    history = _history(partial / "trained")
    about = made_from | {
        "model": places.model, "ratio": course.ratio, "seed": course.seed, "steered": course.steered, "seconds": round(time.monotonic() - began, 1),
        "steps": history[-1]["step"], "versions": versions,
    }  # fmt: skip
    whole = into.with_name(f"{into.name}.new")
    _put_together(partial / "trained", whole, about, history, params.model(places.model).hub)
    checkpoint.check(params, params.model(places.model), whole)
    shutil.rmtree(into, ignore_errors=True)
    whole.rename(into)
    shutil.rmtree(partial)
    return into


def _prepared(partial: Path, made_from: dict[str, str]) -> None:
    """A folder in which what an earlier training of the same left can be used; half a save is taken away."""
    note = partial / "made_from.json"
    if not note.is_file() or json.loads(note.read_text(encoding="utf-8")) != made_from:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        note.write_text(json.dumps(made_from), encoding="utf-8")
    for save in (partial / "trained").glob("checkpoint-*"):
        if not _whole(save):
            shutil.rmtree(save)


def _whole(save: Path) -> bool:
    try:
        return isinstance(json.loads((save / STATE).read_text(encoding="utf-8"))["log_history"], list)
    except (OSError, ValueError, KeyError):
        return False


def _run(command: list[str], root: Path, said: Path, device: dict[str, str]) -> None:
    """To its end, telling how far it is; killed with whoever waits for it."""
    with said.open("ab") as file:
        process = subprocess.Popen(
            command, cwd=root, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **environment.QUIET, **device},
            start_new_session=True, preexec_fn=end_with_parent,
        )  # fmt: skip
    try:
        told = ""
        while process.poll() is None:
            time.sleep(POLL)
            if (now := progress(said)) != told:
                log.info("%s: %s", said.parent.stem, now)
                told = now
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        last = [line for line in said.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()][-1:] or [
            "nothing"
        ]
        raise DataError(
            f"axolotl ended with {process.returncode} and said last {last[0][:300]!r}; the whole of it is in {said.parent.name}/{said.name}"
        )


STEP = re.compile(r"[\r\n]\s*\d+%\|[^|\r\n]*\| (\d+)/(\d+) \[")
"""A bar without a name: of the training, or of an evaluation within it, which has fewer steps."""
LOSSES = re.compile(r"'loss': '?([\d.]+(?:e[-+]\d+)?)")


def progress(said: Path) -> str:
    """The newest step and loss that its log tells."""
    text = said.read_text(encoding="utf-8", errors="replace")[-20_000:]
    steps, losses = STEP.findall(text), LOSSES.findall(text)
    whole = max((int(total) for _, total in steps), default=0)
    done = [step for step, total in steps if int(total) == whole]
    return (f"step {done[-1]} of {whole}" if done else "starting") + (f", loss {losses[-1]}" if losses else "")


def _history(trained: Path) -> list[dict[str, Any]]:
    """The loss curve, from the last save."""
    saves = sorted(
        (save for save in trained.glob("checkpoint-*") if _whole(save)), key=lambda save: int(save.name.rpartition("-")[2])
    )
    if not saves:
        raise DataError(f"axolotl ended well and left no save in {trained.name}; see train.log beside it")
    found: list[dict[str, Any]] = json.loads((saves[-1] / STATE).read_text(encoding="utf-8"))["log_history"]
    return found


def _adapter_alone(saved: Path, into: Path) -> None:
    """Without the base's own rows, which peft saves beside an adapter on its head."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(saved)
    kept = {name: tensor for name, tensor in tensors.items() if ".lora_" in name}
    if len(kept) == len(tensors):
        shutil.copyfile(saved, into)
    else:
        save_file(kept, into, metadata={"format": "pt"})


def _put_together(trained: Path, whole: Path, about: dict[str, Any], history: list[dict[str, Any]], hub: str) -> None:
    shutil.rmtree(whole, ignore_errors=True)
    adapter = whole / checkpoint.ADAPTER
    adapter.mkdir(parents=True)
    _adapter_alone(trained / WEIGHTS[0], adapter / WEIGHTS[0])
    config = json.loads((trained / CONFIG).read_text(encoding="utf-8")) | {"base_model_name_or_path": hub}
    (adapter / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    with (whole / checkpoint.LOSS).open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        out.writeheader()
        out.writerows(history)
    (whole / checkpoint.ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
