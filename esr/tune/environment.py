"""axolotl's own environment: where it is, and the command that trains.

$ESR_FINETUNE names another: a folder with bin/python, or an interpreter itself (a script that calls one will do), by which axolotl can
be imported.
"""

import json
import os
import subprocess
from pathlib import Path

from esr.errors import DataError
from esr.params import HOME

NAME = ".venv-finetune"
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "AXOLOTL_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}
"""Nothing is downloaded and nothing is told to anybody; weights of the hub are fetched before."""
ON: dict[str, dict[str, str]] = {"gpu": {}, "cpu": {"CUDA_VISIBLE_DEVICES": ""}}
"""Where a recipe for a CPU trains on a machine that has a GPU: on its cores."""
PACKAGES = ("axolotl", "torch", "transformers", "peft")


def python() -> Path:
    """The interpreter that axolotl runs with."""
    named = Path(os.environ.get("ESR_FINETUNE") or HOME / NAME).absolute()
    found = named if named.is_file() else named / "bin" / "python"
    if not found.is_file():
        raise DataError(f"axolotl trains in an environment of its own and {named.name} has none; `make finetune` makes it")
    return found


def command(config: str) -> list[str]:
    """One process, without a launcher between."""
    return [str(python()), "-m", "axolotl.cli.main", "train", config, "--launcher", "python"]


def versions() -> dict[str, str]:
    """Of the packages that a checkpoint depends on."""
    ask = (
        f"import json; from importlib.metadata import version; print(json.dumps({{name: version(name) for name in {PACKAGES!r}}}))"
    )
    said = subprocess.run([python(), "-c", ask], capture_output=True, text=True, check=False)
    if said.returncode:
        last = (said.stderr.strip().splitlines() or ["nothing"])[-1]
        raise DataError(
            f"axolotl should be there for {python()} and it says {last[:200]!r}; `make finetune` makes an environment that has it"
        )
    found: dict[str, str] = json.loads(said.stdout)
    return found
