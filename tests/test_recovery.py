"""Recovery without words: thirds, means by hand, views, and a judge behind an interface."""

import json
from pathlib import Path

import pytest
from judge_server import Provider
from judge_setup import KEY, opened, params_at
from store_rows import grade, member, reply

from esr.__main__ import main
from esr.judge import JudgeQuestion, Relevances
from esr.judge.instructed.relevance import swapped
from esr.judge.lexical.judge import Lexical
from esr.judge.thirds import thirds
from esr.store import Store
from esr.types import Latent, replace

QUESTION = "How do you make a good cup of coffee?"
OFF, ON = "The castle has a moat and a tower.", "Grind the coffee beans and pour hot water over the coffee."
BACK, AWAY, RESTART = f"{OFF} {OFF} {ON}", f"{ON} {OFF} {OFF}", f"{OFF} Wait, that is not right. Let me try again. {ON}"


def asked(text: str, trial: str = "t0") -> JudgeQuestion:
    return JudgeQuestion(trial_id=trial, prompt=QUESTION, reply=text, latent=Latent(1, "castles"))


def test_thirds_are_whole_sentences_and_two_sentences_have_none() -> None:
    assert thirds("One. Two.") is None
    found = thirds("One is here. Two! Three?\nFour. Five. Six. Seven.")
    assert found is not None
    assert (found.first, found.last, found.sentences) == ("One is here. Two!", "Six. Seven.", 7)


def test_a_reply_that_comes_back_without_a_word_has_recovered_by_the_lexical_judge() -> None:
    judge = Lexical()
    assert isinstance(judge, Relevances)
    back, away, short = judge.relevances([asked(BACK), asked(AWAY), asked("Two. Only.")])
    assert back.last - back.first > 50  # type: ignore[operator]  # both are numbers
    assert away.last - away.first < -50  # type: ignore[operator]  # the same
    assert (short.first, short.missing) == (None, "too short")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    made = Store(tmp_path / "store")
    members = [member(i, scale="full") for i in range(48)]
    members = [replace(m, trial=replace(m.trial, prompt=QUESTION, question=QUESTION)) for m in members]
    texts = [BACK, AWAY, RESTART, "Two. Only."]
    made.put_members(members)
    made.put_replies([reply(m, texts[i % 4]) for i, m in enumerate(members)])
    made.put_grades([grade(m, 10.0) for m in members])
    return made


def test_means_are_of_all_of_sound_replies_and_of_those_without_words_and_in_no_explicit_rate(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    before = store.sql("from summary").to_pylist()
    assert main(["recovery", "exp01/tiny", "--json"]) == 0
    (arm,) = json.loads(capsys.readouterr().out)["arms"]
    (row,) = store.sql("from recovery_summary").to_pylist()
    assert (row["n"], row["n_missing"], row["n_wordless"]) == (36, 12, 24)
    assert (arm["every"]["n"], arm["missing"], arm["wordless"]["n"]) == (36, 12, 24)
    assert arm["every"]["value"] == pytest.approx(row["recovery_mean"])
    assert arm["wordless"]["value"] == pytest.approx(row["recovery_wordless_mean"])
    rows = store.sql(
        "select restarts, avg(recovery) as mean from recovered where recovery is not null group by restarts order by 1"
    ).to_pylist()
    assert rows[0]["mean"] == pytest.approx(row["recovery_wordless_mean"])
    assert rows[-1]["mean"] > 50
    assert arm["every"]["interval"][0] < arm["every"]["value"] < arm["every"]["interval"][1]
    assert store.sql("from summary").to_pylist() == before
    assert main(["recovery", "exp01/tiny"]) == 0
    said = capsys.readouterr().out
    assert "48 replies, 48 read before, cost $0.00" in said


def test_a_judge_behind_an_interface_has_instructions_of_its_own_and_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ESR_LIMITS", str(tmp_path / "limits"))
    server = Provider().start()
    judge = opened(params_at(server.url), "haiku-4.5", store=tmp_path)
    try:
        questions = [asked(BACK, f"t{i}") for i in range(4)] + [asked("Two. Only.", "t9")]
        found = judge.relevances(questions)
        assert [one.missing for one in found] == [None] * 4 + ["too short"]
        assert {swapped(one) for one in questions[:4]} == {True, False}
        assert {(one.first, one.last) for one in found[:4]} == {(0.0, 100.0)}  # whichever way round they were shown
        calls = judge.calls
        assert calls == 2  # the same passages the same way round are one question
        assert judge.relevances(questions) == found
        assert judge.calls == calls
        assert judge.relevance_hash != judge.prompt_hash
    finally:
        judge.close()
        server.stop()
