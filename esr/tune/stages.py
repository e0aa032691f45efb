"""checkpoints/dvc.yaml, written from params: `python -m esr.tune stages`.

It stands apart from the checkout's own dvc.yaml, so that `dvc repro` draws figures and never begins to train.
"""

from typing import Any

from esr.params import HOME, load, path
from esr.params.tree import read_tree
from esr.tune.places import FOLDER, Places
from esr.tune.settings import Tuning

FILE = HOME / FOLDER / "dvc.yaml"
PYTHON = ".venv/bin/python"
HEAD = """\
# Examples, mixtures and LoRA checkpoints of experiment 4. Made by `python -m esr.tune stages`.
# One checkpoint: dvc repro checkpoints/dvc.yaml:checkpoint@tiny-plain-50-1. They follow params and word lists, not every line of code.

stages:
"""
READ = ("seed", "preset", "exp04", "scales.full")
"""Of params.yaml; of the model its own blocks besides."""
LISTS = {"grammar": ["esr/organism/data/subjects.tsv", "esr/organism/data/topics.tsv"]}
"""What a writer reads."""


def models() -> list[str]:
    """Those with a block of experiment 4 of their own."""
    return [model for model, block in _tree()["by_model"].items() if "exp04" in block]


def _tree() -> dict[str, Any]:
    found: dict[str, Any] = read_tree(path(), path().stat().st_mtime_ns)
    return found


def text() -> str:
    """Examples and mixtures of each model, and of all one stage for every training."""
    found = models()
    return HEAD + "\n".join([*(line for model in found for line in made(model)), *checkpoints(found)]) + "\n"


def made(model: str) -> list[str]:
    """Examples and mixtures of one model."""
    params, places = load(model), Places(model)
    tuning, spec = params.of(Tuning), params.model(model)
    folder = places.relative(places.folder)
    read = [f"          - {key}" for key in (*READ, f"models.{model}", f"by_model.{model}.exp04")]
    lists = LISTS.get(tuning.writer, ["esr/prompts/tuning"])
    own = [spec.hub] if tuning.writer == "itself" and spec.package else []
    return [
        f"  examples-{model}:",
        f"    cmd: {PYTHON} -m esr.tune examples {model}",
        "    wdir: ..",
        "    deps:",
        *(f"      - {file}" for file in (*lists, *own)),
        "    params:",
        "      - params.yaml:",
        *read,
        "    outs:",
        f"      - {folder}/examples.jsonl",
        f"      - {folder}/split.json",
        "",
        f"  mixtures-{model}:",
        f"    cmd: {PYTHON} -m esr.tune mixtures {model}",
        "    wdir: ..",
        "    deps:",
        f"      - {folder}/examples.jsonl",
        "    params:",
        "      - params.yaml:",
        *read,
        "    outs:",
        f"      - {folder}/mixtures",
        f"      - {folder}/recipes",
        "",
    ]


def checkpoints(found: list[str]) -> list[str]:
    """A stage for each training of each model."""
    courses = [(model, course) for model in found for course in load(model).of(Tuning).courses]
    return [
        "  checkpoint:",
        "    foreach:",
        *(f"      {model}-{course}: {{model: {model}, mixture: {course.ratio}, course: {course}}}" for model, course in courses),
        "    do:",
        f"      cmd: {PYTHON} -m esr.tune train ${{item.model}} ${{item.course}}",
        "      wdir: ..",
        "      deps:",
        f"        - {FOLDER}/${{item.model}}/mixtures/${{item.mixture}}.jsonl",
        f"        - {FOLDER}/${{item.model}}/recipes/${{item.course}}.yml",
        "      outs:",
        f"        - {FOLDER}/${{item.model}}/${{item.course}}",
    ]
