"""Tasks: thin, keyed by name, inputs and code, and tried again only where that helps."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flow_runs import place

from esr.errors import BudgetSpent, JudgeBusy, JudgeError, StoreError
from esr.params import HOME

TASKS = sorted((HOME / "tasks").glob("*.py"))
KEYS = """
import json
from tasks import ablate, calibrate, choose, collect
from tasks.study import Study
from types import SimpleNamespace
def key(task, **inputs):
    return task.cache_policy.compute_key(task_ctx=SimpleNamespace(task=task, task_run=None), inputs=inputs, flow_parameters={})
a, b = Study.of("exp01", "tiny", "smoke"), Study.of("exp05", "tiny", "smoke", "haiku-4.5")
print(json.dumps({
    "choose": key(choose.latents, study=a), "choose again": key(choose.latents, study=a), "other experiment and judge": key(choose.latents, study=b),
    "other scale": key(choose.latents, study=Study.of("exp01", "tiny", "full")),
    "calibrate": key(calibrate.thresholds, study=a, latents=[[1, "x"]]), "other latents": key(calibrate.thresholds, study=a, latents=[[2, "x"]]),
    "collect": key(collect.activations, study=a), "detectors": key(ablate.detectors, study=a, activations=""),
}))
"""


def keys(root: Path, seed: str) -> dict[str, str]:
    env = {**os.environ, **place(root).env, "PYTHONHASHSEED": seed}
    said = subprocess.run([sys.executable, "-c", KEYS], cwd=HOME, env=env, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(said.stdout)
    return found


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, str]]:
    root = tmp_path_factory.mktemp("keys")
    return keys(root, "1"), keys(root, "2")


def test_a_key_is_the_same_in_a_fresh_process(here: tuple[dict[str, str], dict[str, str]]) -> None:
    assert here[0] == here[1]


def test_tasks_with_equal_inputs_do_not_share_a_key(here: tuple[dict[str, str], dict[str, str]]) -> None:
    found = here[0]
    names = ("choose", "other scale", "calibrate", "other latents", "collect", "detectors")
    assert len({found[name] for name in names}) == len(names)
    assert found["choose"].startswith("choose.latents-")


def test_what_experiments_share_has_one_key(here: tuple[dict[str, str], dict[str, str]]) -> None:
    assert here[0]["choose"] == here[0]["choose again"] == here[0]["other experiment and judge"]


def test_a_changed_module_changes_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import cache

    package = tmp_path / "made_up"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "prompt.txt").write_text("one")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = cache.code.__wrapped__("made_up")
    assert cache.code.__wrapped__("made_up") == before
    (package / "inner" / "prompt.txt").write_text("two")
    assert cache.code.__wrapped__("made_up") != before
    with pytest.raises(ModuleNotFoundError):
        cache.code.__wrapped__("made_up.nothing")


@pytest.mark.parametrize(
    ("error", "again"), [(JudgeBusy, True), (JudgeError, False), (BudgetSpent, False), (StoreError, False), (ValueError, False)]
)
def test_only_a_busy_judge_is_asked_again(error: type[Exception], again: bool) -> None:
    from prefect.states import Failed

    from tasks import judge

    def result() -> Any:
        raise error("no")

    state = SimpleNamespace(result=result, type=Failed().type)
    assert judge.is_busy(None, None, state) is again  # type: ignore[arg-type]  # only the state is looked at


def test_a_task_is_a_decorator_and_one_call() -> None:
    found = 0
    for path in TASKS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any("task" in ast.unparse(d) for d in node.decorator_list):
                found += 1
                assert (node.end_lineno or 0) - node.body[0].lineno + 1 <= 10, f"{path.name}: {node.name} is no thin task"
                assert not any(isinstance(inner, ast.While | ast.Try) for inner in ast.walk(node)), f"{path.name}: {node.name}"
    assert found >= 12


def test_flows_hold_no_number_no_path_and_no_model() -> None:
    for path in (HOME / "flows").glob("exp*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
                pytest.fail(f"{path.name} line {node.lineno} holds the number {node.value}; params.yaml is its place")
            assert not isinstance(node, ast.If), f"{path.name} line {node.lineno} branches"


def test_board_counts_what_is_left() -> None:
    from esr.study.bench import Tick
    from tasks import board

    board.begin(None)
    board.expect("steer", 10)
    board.tick(Tick("steer", 4, stored=4))
    assert board.stages()[0].remaining is None
    board.tick(Tick("steer", 2, missing=1, cost=0.5))
    (stage,) = board.stages()
    assert (stage.done, stage.stored, stage.missing, stage.total) == (6, 4, 1, 10)
    assert stage.remaining is not None
    assert board.cost() == 0.5
    board.tick(Tick("steer", 1, cost=None))
    assert board.cost() is None
