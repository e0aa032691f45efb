"""axolotl's own environment: where it is, and the command that trains."""

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
PACKAGES = ("axolotl", "torch", "transformers", "peft")


def python() -> Path:
    """Its interpreter: in the checkout, or where $ESR_FINETUNE says."""
    folder = Path(os.environ.get("ESR_FINETUNE") or HOME / NAME)
    found = folder / "bin" / "python"
    if not (found.is_file() and (folder / "bin" / "axolotl").is_file()):
        raise DataError(f"axolotl trains in an environment of its own and {folder.name} has none; `make finetune` makes it")
    return found


def command(config: str) -> list[str]:
    """One process, without a launcher between."""
    return [str(python().with_name("axolotl")), "train", config, "--launcher", "python"]


def versions() -> dict[str, str]:
    """Of the packages that a checkpoint depends on."""
    ask = (
        f"import json; from importlib.metadata import version; print(json.dumps({{name: version(name) for name in {PACKAGES!r}}}))"
    )
    said = subprocess.run([python(), "-c", ask], capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = json.loads(said)
    return found
