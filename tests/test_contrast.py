"""Contrasted texts in a model's own words: chosen by rule, generated once, read back as a set of directions reads them."""

import csv
from pathlib import Path

import pytest

from esr.__main__ import main
from esr.labelling import contrast
from esr.params import HOME, load
from esr.store import Store
from esr.study.along import rows
from esr.study.study import Study


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ESR_ENGINE", "fake")
    return tmp_path


def test_the_command_writes_texts_of_each_subject_and_generates_them_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = here / "contrast.tsv"
    line = ["directions", "texts", "tiny", "--subjects", "5", "--texts", "3", "--to", str(file)]
    assert main(line) == 0
    assert "5 subjects, 3 texts each; name it as `texts:` of a block under directions: in params.yaml" in capsys.readouterr().out
    found, first = rows(file, ""), file.read_bytes()
    assert [subject for subject, _, _ in found] == [subject for subject in dict.fromkeys(s for s, _, _ in found) for _ in range(3)]
    assert all(subject in prompt and text for subject, prompt, text in found)
    n = Store().sql("select count(*) as n from replies")["n"].to_pylist()
    assert main(line) == 0
    assert file.read_bytes() == first
    assert Store().sql("select count(*) as n from replies")["n"].to_pylist() == n == [15]


def test_its_trials_are_those_that_labels_are_made_from(here: Path) -> None:
    from esr import prompts
    from esr.labelling import texts

    study = Study.of("tiny")
    made = {trial.id for trial in texts.trials(study, prompts.lines("label_subjects"), 3, max_tokens=contrast.TOKENS)}
    some = contrast.trials(study, 200, 2)
    assert len({trial.id for trial in some}) == 400
    assert {trial.id for trial in some} <= made


@pytest.mark.parametrize(("subjects", "texts"), [("1", "2"), ("9999", "2"), ("5", "9")])
def test_what_there_is_not_is_said(here: Path, subjects: str, texts: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["directions", "texts", "tiny", "--subjects", subjects, "--texts", texts]) == 2
    assert "subjects, of which two or more" in capsys.readouterr().err


def test_the_shipped_texts_of_smollm2_are_of_subjects_that_no_evaluation_question_asks_about() -> None:
    block = load("smollm2").directions_of(str(load("smollm2").model("smollm2").directions))
    path = HOME / str(block.texts)
    assert path.stat().st_size < 1 << 20
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file, delimiter="\t"))
    assert len({row["subject"] for row in found}) == contrast.SUBJECTS
    assert len(found) == contrast.SUBJECTS * contrast.TEXTS
    assert all(row["text"].strip() and row["subject"] in row["prompt"] for row in found)
