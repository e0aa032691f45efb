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
MODEL = "tiny-plain"
"""The model whose checkpoints these stages make."""
HEAD = """\
# Examples, mixtures and LoRA checkpoints of experiment 4. Made by `python -m esr.tune stages`.
# One checkpoint: dvc repro checkpoints/dvc.yaml:checkpoint@tiny-plain-50-1. They follow params and word lists, not every line of code.

stages:
"""
READ = ("seed", "preset", "exp04", "scales.full")
"""Of params.yaml; of the model its own blocks besides."""


def text() -> str:
    return HEAD + stages(MODEL)


def stages(model: str) -> str:
    """Examples and mixtures of one model, and a matrix of checkpoints over ratio and seed."""
    tuning, places = load(model).of(Tuning), Places(model)
    tree: dict[str, Any] = read_tree(path(), path().stat().st_mtime_ns)
    own = [f"models.{model}"] + ([f"by_model.{model}.exp04"] if "exp04" in tree["by_model"].get(model, {}) else [])
    params = [f"        - {key}" for key in (*READ, *own)]
    folder = places.relative(places.folder)
    each = "${item.ratio}-${item.seed}"
    lists = (
        ["esr/organism/data/subjects.tsv", "esr/organism/data/topics.tsv"] if tuning.writer == "grammar" else ["esr/prompts/tuning"]
    )
    lines = [
        f"  examples-{model}:",
        f"    cmd: {PYTHON} -m esr.tune examples {model}",
        "    wdir: ..",
        "    deps:",
        *(f"      - {file}" for file in lists),
        "    params:",
        "      - params.yaml:",
        *(f"  {line}" for line in params),
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
        *(f"  {line}" for line in params),
        "    outs:",
        f"      - {folder}/mixtures",
        f"      - {folder}/recipes",
        "",
        "  checkpoint:",
        "    matrix:",
        f"      model: [{model}]",
        f"      ratio: {list(tuning.ratios)}",
        f"      seed: {list(tuning.seeds)}",
        f"    cmd: {PYTHON} -m esr.tune train ${{item.model}} ${{item.ratio}} ${{item.seed}}",
        "    wdir: ..",
        "    deps:",
        f"      - {FOLDER}/${{item.model}}/mixtures/${{item.ratio}}.jsonl",
        f"      - {FOLDER}/${{item.model}}/recipes/{each}.yml",
        "    outs:",
        f"      - {FOLDER}/${{item.model}}/{each}",
    ]
    return "\n".join(lines) + "\n"
