"""From the store to sorted files, and `dvc repro` over them."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from esr import params, prompts
from esr.errors import DataError
from esr.experiment import find
from esr.show import counted, figures, stages
from esr.show import recorded as export
from esr.store import Store
from esr.study.plan import plan, replay, unsteered
from esr.types import BASELINE, Arm, Attempt, Grade, Latent, Member, Reply

HOME = Path(__file__).resolve().parent.parent
QUIET = find("exp08")
CHOSEN = QUIET.selection("tiny", "full", "lexical")
P = params.load("tiny", "smoke").model_copy(update={"scale": "full"})


def filled(root: Path) -> Store:
    """exp01 and exp08 of tiny, every third trial corrected, one grade missing."""
    store = Store(root)
    latents = [Latent(i, f"latent {i}") for i in range(5)]
    base = plan(
        P,
        arm=BASELINE,
        model="tiny",
        weights="w",
        meaning="",
        latents=latents,
        thresholds={i: 4.0 + i for i in range(5)},
        questions=prompts.evaluation(),
        trials_per_latent=4,
    )
    members = base + replay(base, Arm("exp08", "no-steering", "unsteered"), unsteered)
    store.put_members(members)
    store.put_replies([reply(member) for member in members])
    store.put_grades([grade(i, member) for i, member in enumerate(members)])
    store.ingest()
    return store


def reply(member: Member) -> Reply:
    text = "word word word word word" if member.trial.latent.index == 2 else "a reply"
    return Reply(trial_id=member.trial.id, text=text, token_ids=(1, 2), n_prompt_tokens=3, finish_reason="stop", applied=1)


def grade(i: int, member: Member) -> Grade:
    scores = (20.0, 70.0) if i % 3 == 0 and member.arm.experiment == "exp01" else (50.0,)
    attempts = tuple(Attempt(score, "x", 0, 1) for score in scores)
    found = Grade(trial_id=member.trial.id, latent=member.trial.latent.index, judge="lexical", judge_prompt="p", attempts=attempts)
    return found if i != 1 else replace(found, attempts=(), missing="malformed")


def test_what_the_store_counts_is_what_the_export_counts(tmp_path):
    store = filled(tmp_path)
    found = export.recorded(store, P, QUIET, CHOSEN)
    base, quiet = counted.arms(found)
    assert (base.arm.experiment, base.name, base.planned, base.missing, base.n) == ("exp01", "baseline", 20, 1, 19)
    assert (quiet.arm.experiment, quiet.name, quiet.planned, quiet.missing, quiet.n) == ("exp08", "no-steering", 20, 0, 20)
    rows = {(r["experiment"], r["arm"]): r for r in store.sql("from summary").to_pylist()}
    for arm in (base, quiet):
        for name in ("multi_attempt_rate", "esr_rate", "improvement_rate", "first_score_mean", "gain_all_mean", "gain_multi_mean"):
            assert arm.estimates[name].value == pytest.approx(rows[arm.arm.experiment, arm.name][name]), name
    assert base.estimates["esr_rate"].k == 7
    assert quiet.differences["esr_rate"].n == 19
    assert base.estimates["degraded_rate"].k == 4


def test_the_same_results_in_another_order_export_to_the_same_bytes(tmp_path):
    files = {}
    for name in ("a", "b"):
        store = filled(tmp_path / name)
        if name == "b":
            store.rebuild()
        figures.draw(store, P, QUIET, CHOSEN)
        files[name] = {p.relative_to(tmp_path / name): p.read_bytes() for p in sorted((tmp_path / name / "export").rglob("*.*"))}
        files[name] |= {p.relative_to(tmp_path / name): p.read_bytes() for p in sorted((tmp_path / name / "figures").iterdir())}
    assert len(files["a"]) == 7
    assert files["a"] == files["b"]


def test_an_experiment_that_was_not_run_is_said(tmp_path):
    with pytest.raises(DataError, match="exp05 has no graded trials"):
        export.recorded(filled(tmp_path), P, find("exp05"), find("exp05").selection("tiny", "full", "lexical"))


def test_one_of_which_every_grade_is_missing_says_why(tmp_path):
    store = filled(tmp_path)
    rows = store.sql("select trial_id, latent from members where experiment = 'exp08'").to_pylist()
    unusable = {"judge": "served", "judge_prompt": "p", "attempts": [], "missing": "truncated", "cost": 0.0}
    store.put("grades", [row | unusable for row in rows])
    with pytest.raises(DataError, match=r"by 'served'; what it was asked about: [\d]+ truncated; .*rejudge served --again` asks"):
        export.recorded(store, P, QUIET, QUIET.selection("tiny", "full", "served"))


def test_scale_and_judge_have_places_of_their_own(tmp_path):
    base = find("exp01")
    assert export.place(tmp_path, P, base.selection("tiny", "full", "lexical")) == tmp_path / "export/exp01/tiny"
    assert export.place(tmp_path, P, base.selection("tiny", "smoke", "haiku-4.5")) == (
        tmp_path / "export/exp01/tiny-smoke@haiku-4.5"
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The project's files and one experiment's results, as a clone without a store would have them."""
    for name in ("esr", "flows", "tasks", "params.yaml", ".dvcignore", "pyproject.toml"):
        source = HOME / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    text = stages.HEAD + stages.stages(QUIET, ["tiny"]) + stages.TAIL
    (tmp_path / "dvc.yaml").write_text(text.replace(".venv/bin/python", sys.executable))
    store = filled(tmp_path / "store")
    figures.draw(store, P, QUIET, CHOSEN)
    shutil.rmtree(tmp_path / "store" / "figures")
    dvc(tmp_path, "init", "--no-scm", "--quiet")
    return tmp_path


def dvc(folder: Path, *words: str) -> str:
    env = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / ".site"), "PYTHONPATH": str(folder)}
    env.pop("ESR_STORE", None)
    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_repro_draws_once_does_nothing_again_and_gives_a_deleted_figure_back_to_the_byte(checkout):
    dvc(checkout, "repro")
    drawn = {p.name: p.read_bytes() for p in (checkout / "store" / "figures").iterdir()}
    assert {"exp08-tiny.png", "exp08-tiny.pdf", "table.md", "exp08-tiny.metrics.json"} <= set(drawn)
    assert "Running stage" not in dvc(checkout, "repro")
    shutil.rmtree(checkout / ".dvc" / "cache")
    shutil.rmtree(checkout / "store" / "shards")
    (checkout / "store" / "figures" / "exp08-tiny.png").unlink()
    dvc(checkout, "repro")
    assert {p.name: p.read_bytes() for p in (checkout / "store" / "figures").iterdir()} == drawn
    metrics = json.loads(dvc(checkout, "metrics", "show", "--json"))
    assert "exp08-tiny.metrics.json" in json.dumps(metrics)
