"""What there is to write about: exports of full scale with their figures, and what was not run."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esr import experiment as experiments
from esr import params
from esr.experiment import Experiment
from esr.show import recorded
from esr.show.figures import SIZES
from esr.show.recorded import VLLM

MADE_UP = "fake"
"""The engine whose replies are no model's."""
IMPORTED = "imported"
"""The store's folder of exports of imported results, which no run wrote."""

FEW = 6
"""Arms that are named in a caption."""


@dataclass(frozen=True, slots=True)
class Exported:
    """One experiment on one model, as its export tells of it."""

    folder: Path
    experiment: Experiment
    about: Mapping[str, Any]

    @property
    def title(self) -> str:
        """`tiny`, `tiny@haiku-4.5`, `tiny+hf`: the model, with judge and engine where they are not the usual ones."""
        return self.folder.name

    @property
    def results(self) -> str:
        """A short hash of the exported files: the same results, the same name."""
        total = hashlib.sha256()
        for file in sorted(self.folder.iterdir()):
            total.update(file.name.encode() + b"\0" + file.read_bytes())
        return total.hexdigest()[:12]

    @property
    def usual(self) -> bool:
        """Made by vLLM and graded by the model's own judge: models that are shown in one figure are alike in both."""
        return "@" not in self.title and "+" not in self.title

    def stem(self, drawing: str) -> str:
        return f"{drawing}-{self.title}"

    def n(self) -> str:
        """Graded trials of each arm that is shown, of many arms the range; of a sample, its replies."""
        if "outcomes" not in self.about["tables"]:
            counts = [rows["trial_id"].nunique() for rows in recorded.read(self.folder).tables.values() if "trial_id" in rows]
            return f"{max(counts, default=0):,} replies"
        graded = [(str(arm["arm"]), int(arm["n_graded"])) for arm in self.about["arms"]]
        missing = sum(int(arm["n_missing"]) for arm in self.about["arms"])
        sizes = [n for _, n in graded]
        if len(graded) <= FEW:
            told = ", ".join(f"{name} {n:,}" for name, n in graded)
        else:
            told = f"{len(graded)} arms of {min(sizes):,}" + (f" to {max(sizes):,}" if max(sizes) > min(sizes) else "")
        return told + (f", {missing:,} missing" if missing else "")

    def line(self) -> str:
        """What runs it again, or goes on with it."""
        if self.about.get("imported"):
            return "python -m esr import-reference DIR"
        judge = f" --judge {self.about['judge']}" if "@" in self.title else ""
        engine = self.about.get("engine", VLLM)
        return f"{'' if engine == VLLM else f'ESR_ENGINE={engine} '}python -m flows {self.experiment.name} {self.about['model']}{judge}"

    def drawn_by(self) -> str:
        judge = f" --judge {self.about['judge']}" if "@" in self.title else ""
        return f"python -m esr.show.figures draw {self.experiment.name} {self.about['model']}{judge}"


def every(root: Path) -> list[Exported]:
    """Of full scale, by experiment and small models first; a smoke run tries the machinery and its numbers mean nothing."""
    known = experiments.known()
    found: dict[tuple[str, str], Exported] = {}
    for file in [file for place in ("export", IMPORTED) for file in sorted((root / place).glob("*/*/about.json"))]:
        about = json.loads(file.read_text(encoding="utf-8"))
        if about["experiment"] in known and about["scale"] == "full" and about.get("engine") != MADE_UP:
            one = Exported(file.parent, known[about["experiment"]], about)
            found.setdefault((one.experiment.name, one.title), one)  # own results stand before imported ones
    order = list(known)
    return sorted(found.values(), key=lambda one: (order.index(one.experiment.name), _size(str(one.about["model"])), one.title))


def _size(model: str) -> int:
    return SIZES.index(model) if model in SIZES else len(SIZES)


NOT_RUN = "not run"


def absent(found: Sequence[Exported], root: Path) -> dict[str, str]:
    """What a reader might miss, each with the reason."""
    ran = {(one.experiment.name, str(one.about["model"])) for one in found}
    models = sorted({model for _, model in ran}, key=lambda model: (_size(model), model))
    none = [model for model in params.load().models if model not in models]
    out = {f"{name} on {model}": NOT_RUN for name in experiments.known() for model in models if (name, model) not in ran}
    out |= {f"every experiment on {model}": NOT_RUN for model in none}
    for file in sorted((root / "export").glob("*/*/about.json")):
        what = f"{file.parent.parent.name} on {file.parent.name}"
        if json.loads(file.read_text(encoding="utf-8")).get("engine") == MADE_UP:
            out[what] = "made up by the fake engine"
        elif recorded.scale(file.parent) != "full":
            out[what] = "a trial of the machinery at small scale, whose numbers mean nothing"
    return out


def told(absent: Mapping[str, str]) -> list[str]:
    """A line an experiment: `exp04: not run on tiny, 8b`."""
    by: dict[tuple[str, str], list[str]] = {}
    for what, why in absent.items():
        head, _, model = what.partition(" on ")
        by.setdefault((head, why), []).append(model)
    return [f"{head} on {', '.join(models)}: {why}" for (head, why), models in by.items()]
