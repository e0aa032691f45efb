"""Where examples, mixtures and checkpoints lie: under checkpoints/ of the checkout, where DVC keeps them."""

from dataclasses import dataclass
from pathlib import Path

from esr.params import HOME

FOLDER = "checkpoints"


@dataclass(frozen=True, slots=True)
class Places:
    """Of one model; `root` is the checkout."""

    model: str
    root: Path = HOME

    @property
    def folder(self) -> Path:
        return self.root / FOLDER / self.model

    @property
    def examples(self) -> Path:
        return self.folder / "examples.jsonl"

    @property
    def split(self) -> Path:
        """What was held out of the examples, and why."""
        return self.folder / "split.json"

    def mixture(self, ratio: int) -> Path:
        return self.folder / "mixtures" / f"{ratio}.jsonl"

    def recipe(self, ratio: int, seed: int) -> Path:
        """axolotl's configuration of one training."""
        return self.folder / "recipes" / f"{ratio}-{seed}.yml"

    def checkpoint(self, ratio: int, seed: int) -> Path:
        return self.folder / f"{ratio}-{seed}"

    def relative(self, path: Path) -> str:
        """As it stands in files: from the checkout, so that no file names a machine's folder."""
        return path.relative_to(self.root).as_posix()


def stage(model: str, ratio: int, seed: int) -> str:
    """The DVC stage that makes a checkpoint."""
    return f"{FOLDER}/dvc.yaml:checkpoint@{model}-{ratio}-{seed}"
