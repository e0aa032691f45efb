"""dvc.yaml from what experiments say of themselves and what has been recorded: `python -m esr.show.stages`.

A run leaves store/recorded/<experiment>-<model>.json; the models with such a file are those whose figures DVC makes. A test
holds dvc.yaml against this.
"""

import sys

from esr.experiment import Experiment, known
from esr.params import HOME

FILE = HOME / "dvc.yaml"
PYTHON = ".venv/bin/python"
HEAD = """\
# Figures and number tables from the recorded results; experiments themselves are Prefect's (python -m flows exp01 tiny).
# Made by `python -m esr.show.stages`; after a model's first run, make it again. Exports are small and stand in git, so a clone
# draws every figure without a store: dvc repro

stages:
"""
TAIL = f"""\
  table:
    desc: paper | ours, of everything that was run
    cmd: {PYTHON} -m esr.show.paper_table
    deps:
      - esr/count
      - esr/show
      - store/export
    outs:
      - store/figures/table.md

  organism:
    desc: the shipped models, their SAE and labels; made again only on purpose (dvc unfreeze organism)
    frozen: true
    cmd: {PYTHON} -m esr.organism build
    deps:
      - esr/organism/data/subjects.tsv
      - esr/organism/data/topics.tsv
    outs:
      - esr/organism/data/tiny:
          cache: false
      - esr/organism/data/tiny-plain:
          cache: false
      - esr/organism/data/sae:
          cache: false
      - esr/organism/data/labels.csv:
          cache: false
      - esr/organism/data/built.json:
          cache: false
"""


def recorded(experiment: str) -> list[str]:
    """Models of which there are full results by vLLM, graded by their own judge; a checkpoint's figures are those that its run draws."""
    files = (HOME / "store" / "recorded").glob(f"{experiment}-*.json")
    names = [file.stem.removeprefix(f"{experiment}-") for file in files]
    return sorted(name for name in names if not {"@", "+", ":"} & set(name) and not name.endswith("-smoke"))


def text() -> str:
    parts = [stages(experiment, models) for experiment in known().values() if (models := recorded(experiment.name))]
    return HEAD + "\n".join(parts) + "\n" + TAIL


def stages(experiment: Experiment, models: list[str]) -> str:
    """Export and drawing of one experiment, for each of these models."""
    name, each = experiment.name, "${item}"
    folder = f"store/export/{name}/{each}"
    exports = [f"{folder}/{table}" for table in (*(f"{table.name}.parquet" for table in experiment.tables), "about.json")]
    drawings = [f"store/figures/{stem}-{each}" for stem in experiment.drawings()]
    numbers = f"store/figures/{name}-{each}"
    lines = [
        f"  export-{name}:",
        f"    foreach: [{', '.join(models)}]",
        "    do:",
        f"      cmd: {PYTHON} -m esr.show.figures export {name} {each}",
        "      deps:",
        f"        - store/recorded/{name}-{each}.json",
        "      outs:",
        *(line for file in exports for line in (f"        - {file}:", "            cache: false")),
        "",
        f"  {name}:",
        f"    foreach: [{', '.join(models)}]",
        "    do:",
        f"      desc: {experiment.question}",
        f"      cmd: {PYTHON} -m esr.show.figures draw {name} {each}",
        "      deps:",
        "        - esr/count",
        "        - esr/show",
        f"        - flows/{name}.py",
        *(f"        - {file}" for file in exports),
        "      outs:",
        *(f"        - {stem}.{kind}" for stem in drawings for kind in ("pdf", "json")),
        "      plots:",
        *(f"        - {stem}.png" for stem in drawings),
    ]
    if any(table.name == "outcomes" for table in experiment.tables):
        lines += [
            f"        - {numbers}.csv:",
            "            x: arm",
            "            y: value",
            "      metrics:",
            f"        - {numbers}.metrics.json",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    sys.stderr.write(f"{FILE.name}: written\n")
