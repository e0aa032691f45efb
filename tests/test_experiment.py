"""An experiment is one file: a further one, written into a folder of its own, appears everywhere and nothing else is touched."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from flow_runs import Place, place

from esr.params import HOME

PAGE = (HOME / "docs" / "experiments.md").read_text()


def block(language: str) -> str:
    """The first block of docs/experiments.md in this language."""
    return PAGE.split(f"```{language}\n", 1)[1].split("```", 1)[0]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """The file and the block of docs/experiments.md, and the experiment run on the fake engine."""
    root = tmp_path_factory.mktemp("further")
    (root / "mine").mkdir()
    (root / "mine" / "exp77.py").write_text(block("python"))
    before = subprocess.run(["git", "status", "--porcelain"], cwd=HOME, capture_output=True, text=True).stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESR_EXPERIMENTS", str(root / "mine"))
        where = place(root / "p")
        tree = yaml.safe_load((where.root / "params.yaml").read_text())
        tree |= yaml.safe_load(block("yaml"))
        (where.root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        code, said = where.run("exp77", "tiny", "--scale", "smoke")
        assert code == 0, said
        assert subprocess.run(["git", "status", "--porcelain"], cwd=HOME, capture_output=True, text=True).stdout == before
        yield where, said


def ask(where: Place, *words: str) -> str:
    env = {**os.environ, **where.env}
    done = subprocess.run([sys.executable, "-m", *words], cwd=HOME, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_closing_table_has_its_arms_beside_the_baseline(done: tuple[Place, str]) -> None:
    said = done[1]
    assert "exp77 on tiny, scale smoke" in said
    for row in ("exp01/baseline", "exp77/generated", "exp77/prompt"):
        assert any(line.startswith(row) for line in said.splitlines()), said
    assert said.count("figure: ") == 2


def test_plan_and_list_know_it(done: tuple[Place, str]) -> None:
    where = done[0]
    found: dict[str, Any] = json.loads(ask(where, "esr", "plan", "exp77", "tiny", "--scale", "smoke", "--json"))
    assert (found["own_arms"], found["own_trials"]) == (2, 2 * found["baseline_trials"])
    assert "| `exp77` | do the positions at which a model is steered matter? | nowhere yet |" in ask(
        where, "esr", "experiments", "--markdown"
    )
    assert "figures exp77, exp77-again" in ask(where, "esr", "experiments")


def test_its_table_can_be_asked_for_again(done: tuple[Place, str]) -> None:
    where = done[0]
    text = ask(where, "esr", "table", "exp77", "tiny", "--scale", "smoke")
    assert all(f"exp77/{arm}" in text for arm in ("generated", "prompt"))
    assert "Methods: " in text
    found = json.loads(ask(where, "esr", "table", "exp77", "tiny", "--scale", "smoke", "--json"))
    one = next(arm for arm in found["arms"] if arm["arm"] == "exp77/generated")["metrics"]["esr_rate"]
    assert bool(one["interval"]) != bool(one["no_interval"])
    assert one["n"] == found["arms"][0]["n"]


def test_every_table_and_figure_that_it_declares_is_there(done: tuple[Place, str]) -> None:
    where = done[0]
    folder = where.store / "export" / "exp77" / "tiny+fake-smoke"
    assert {file.name for file in folder.iterdir()} == {"outcomes.parquet", "boosts.parquet", "about.json"}
    drawn = {file.name for file in (where.store / "figures").iterdir()}
    assert {f"{name}-tiny+fake-smoke.{kind}" for name in ("exp77", "exp77-again") for kind in ("png", "pdf", "json")} <= drawn
    assert "exp77-tiny+fake-smoke.csv" in drawn
    arms = json.loads((folder / "about.json").read_text())["arms"]
    assert {(arm["arm"], arm["kind"], arm["against"]) for arm in arms if arm["experiment"] == "exp77"} == {
        ("generated", "positions", "exp01/baseline"),
        ("prompt", "positions", "exp01/baseline"),
    }


def test_it_has_a_deployment_for_every_model_and_stages_for_dvc(done: tuple[Place, str]) -> None:
    where = done[0]
    text = ask(where, "deployments.definitions", "--show")
    found = [one for one in yaml.safe_load(text)["deployments"] if one["entrypoint"].endswith("exp77.py:exp77")]
    assert {one["name"] for one in found} == set(yaml.safe_load((where.root / "params.yaml").read_text())["models"])
    code = "from esr.experiment import find; from esr.show.stages import stages; print(stages(find('exp77'), ['tiny']))"
    env = {**os.environ, **where.env}
    made = subprocess.run([sys.executable, "-c", code], cwd=HOME, env=env, capture_output=True, text=True, check=True).stdout
    stage = yaml.safe_load(made)
    assert stage["exp77"]["foreach"] == ["tiny"]
    assert "store/figures/exp77-again-${item}.pdf" in stage["exp77"]["do"]["outs"]


def test_a_wrong_block_is_said_by_its_place(done: tuple[Place, str], tmp_path: Path) -> None:
    where = done[0]
    text = (where.root / "params.yaml").read_text()
    tree = yaml.safe_load(text) | {"exp77": {"scopes": ["promt"]}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    code, said = where.run("exp77", "tiny", "--scale", "smoke", ESR_PARAMS=str(tmp_path / "params.yaml"))
    assert code == 2
    assert "exp77.scopes.0 is 'promt'" in said.splitlines()[-1]


@pytest.mark.parametrize("name", ["deployments/prefect.yaml", "dvc.yaml"])
def test_what_is_made_from_the_declarations_is_fresh(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESR_EXPERIMENTS", raising=False)
    from deployments import definitions
    from esr.show import stages

    made = {"deployments/prefect.yaml": definitions.text, "dvc.yaml": stages.text}[name]
    assert (HOME / name).read_text() == made(), f"{name} is not what the experiments say; make it again as its first lines tell"


def test_the_readme_lists_the_experiments_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESR_EXPERIMENTS", raising=False)
    from esr.command.experiments import markdown

    assert markdown() in (HOME / "README.md").read_text()


def test_nothing_but_the_files_lists_experiments() -> None:
    """Names may be examples; three or more of them together are a list that somebody would have to keep."""
    import re

    found = []
    for path in [
        *(HOME / "esr").rglob("*.py"),
        *(HOME / "tasks").rglob("*.py"),
        *(HOME / "flows").glob("[!e]*.py"),
        *(HOME / "deployments").glob("*.py"),
    ]:
        if "reference" in path.parts:
            continue
        for i, line in enumerate(path.read_text().splitlines(), 1):
            if len(set(re.findall(r"\bexp\d\d\b", line))) >= 3:
                found.append(f"{path.relative_to(HOME)}:{i}: {line.strip()}")
    assert not found
