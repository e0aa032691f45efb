"""Where examples, mixtures and checkpoints lie: under checkpoints/ of the checkout, where DVC keeps them."""

from dataclasses import dataclass
from pathlib import Path

from esr.errors import DataError
from esr.params import HOME
from esr.params.load import COURSE

FOLDER = "checkpoints"
STEERED = "steered-"


@dataclass(frozen=True, slots=True)
class Course:
    """One training: what it is trained on, and with which seed."""

    ratio: int
    """Per cent of masked rows."""
    seed: int
    steered: bool = False
    """Under live steering."""

    def __str__(self) -> str:
        """Its name in files and stages: `50-1`, `steered-50-1`."""
        return f"{self.kind}-{self.seed}"

    @property
    def kind(self) -> str:
        """What is trained on and how, whatever the seed: `50`, `steered-50`."""
        return f"{STEERED * self.steered}{self.ratio}"

    @classmethod
    def of(cls, text: str) -> "Course":
        """As `str` writes it."""
        found = COURSE.fullmatch(text)
        if found is None:
            raise DataError(f"a training is named by its ratio and seed, such as 50-1 or steered-50-1, and {text!r} is not")
        return cls(int(found["ratio"]), int(found["seed"]), bool(found["steered"]))


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

    @property
    def directions(self) -> Path:
        """What is steered with while some are trained."""
        return self.folder / "recipes" / "directions.safetensors"

    def recipe(self, course: Course) -> Path:
        """axolotl's configuration of one training."""
        return self.folder / "recipes" / f"{course}.yml"

    def checkpoint(self, course: Course) -> Path:
        return self.folder / str(course)

    def relative(self, path: Path) -> str:
        """As it stands in files: from the checkout, so that no file names a machine's folder."""
        return path.relative_to(self.root).as_posix()


def stage(model: str, course: Course) -> str:
    """The DVC stage that makes a checkpoint."""
    return f"{FOLDER}/dvc.yaml:checkpoint@{model}-{course}"
