"""Real SDKs, real HTTP, a provider that misbehaves."""

import asyncio
import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from judge_server import ANSWER_FAULTS, HTTP_FAULTS, Provider
from judge_setup import KEY, opened, params_at, questions

from esr.errors import JudgeError
from esr.judge import Abilities, JudgeQuestion
from esr.judge.open import open_judge
from esr.types import Latent

BOTH = pytest.mark.parametrize("name", ["haiku-4.5", "gpt-5-mini", "qwen3-32b"])


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider().start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENROUTER_API_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("ESR_LIMITS", str(tmp_path / "limits"))


@BOTH
def test_every_reply_is_graded_once_and_quotations_are_in_the_reply(name: str, provider: Provider, tmp_path: Path) -> None:
    judge = opened(params_at(provider.url, name), name, tmp_path)
    replies = questions(40)
    grades = judge.grades(replies)
    assert [grade.missing for grade in grades] == [None] * 40
    assert [len(grade.attempts) for grade in grades] == [1, 2] * 20
    for ask, grade in zip(replies, grades, strict=True):
        for attempt in grade.attempts:
            assert ask.reply[attempt.start : attempt.end] == attempt.text
    assert judge.calls == 40
    assert judge.grades(replies) == grades
    assert judge.calls == 40
    judge.close()
    again = opened(params_at(provider.url, name), name, tmp_path)
    assert again.grades(replies) == grades
    assert again.calls == 0
    assert set(provider.answered().values()) == {1}
    again.close()


@BOTH
@pytest.mark.parametrize("fault", HTTP_FAULTS)
def test_a_call_that_fails_on_the_way_is_made_again(name: str, fault: str, provider: Provider, tmp_path: Path) -> None:
    provider.schedule.plan = [fault, fault]
    provider.schedule.hang = 3.0
    judge = opened(params_at(provider.url, name, timeout=1.5), name, tmp_path)
    assert judge.grades(questions(1))[0].missing is None
    assert [entry["what"] for entry in provider.requests] == [fault, fault, "ok"]
    judge.close()


@BOTH
@pytest.mark.parametrize("fault", ANSWER_FAULTS)
def test_an_answer_that_cannot_be_used_is_repaired_once(name: str, fault: str, provider: Provider, tmp_path: Path) -> None:
    provider.schedule.plan = [fault]
    judge = opened(params_at(provider.url, name), name, tmp_path)
    grade = judge.grades(questions(1))[0]
    assert grade.missing == ("refused" if fault == "refusal" else None)
    assert judge.calls == (1 if fault == "refusal" else 2)
    judge.close()


@BOTH
@pytest.mark.parametrize("fault", [fault for fault in ANSWER_FAULTS if fault not in ("refusal", "lies")])
def test_an_answer_that_stays_unusable_is_missing_kept_and_not_asked_again(
    name: str, fault: str, provider: Provider, tmp_path: Path
) -> None:
    provider.schedule.plan = [fault, fault]
    judge = opened(params_at(provider.url, name), name, tmp_path)
    for _ in range(2):
        grade = judge.grades(questions(1))[0]
        assert (grade.missing, grade.attempts) == ("truncated" if fault == "truncated" else "malformed", ())
        assert judge.calls == 2
    assert len(judge.caller.answers.of_kind("grade", judge.target)) == 1
    assert judge.grades(questions(1), again=True)[0].missing is None, "asked for, it gets one more try"
    assert judge.calls == 3
    assert judge.grades(questions(1))[0].missing is None, "and that one counts from now on"
    assert judge.calls == 3
    judge.close()


@BOTH
def test_text_that_no_file_can_hold_is_kept_and_graded(name: str, provider: Provider, tmp_path: Path) -> None:
    provider.schedule.plan = ["surrogate"]
    judge = opened(params_at(provider.url, name), name, tmp_path)
    ask = JudgeQuestion(trial_id="t", prompt="How \udfff?", reply="So it \ud800 goes.", latent=Latent(1, "\ud800"))
    grade = judge.grades([ask])[0]
    assert grade.missing is None
    calls = judge.calls  # litellm itself stumbles over such a body with one provider; then it was asked again
    assert judge.grades([ask]) == [grade]
    assert judge.calls == calls <= 2
    judge.close()


def test_a_passage_that_is_not_in_the_reply_is_flagged_not_located(provider: Provider, tmp_path: Path) -> None:
    provider.schedule.plan = ["lies", "lies"]
    judge = opened(params_at(provider.url), "haiku-4.5", tmp_path)
    grade = judge.grades(questions(2, 1)[:1])[0]
    assert grade.missing is None
    assert [attempt.located for attempt in grade.attempts] == [False, True]
    judge.close()


@BOTH
def test_retry_after_is_obeyed(name: str, provider: Provider, tmp_path: Path) -> None:
    provider.schedule.plan = ["429-after"]
    provider.schedule.retry_after = 1.2
    judge = opened(params_at(provider.url, name), name, tmp_path)
    assert judge.grades(questions(1))[0].missing is None
    first, second = provider.requests
    assert second["at"] - first["done"] >= 1.2
    judge.close()


@BOTH
def test_a_model_that_is_no_longer_served_ends_the_run_and_says_what_to_change(
    name: str, provider: Provider, tmp_path: Path
) -> None:
    provider.schedule.refuse = 404
    judge = opened(params_at(provider.url, name), name, tmp_path)
    with pytest.raises(JudgeError, match=r"status 404.*no longer served needs another one in params\.yaml"):
        judge.grades(questions(3))
    judge.close()


@BOTH
def test_a_key_that_is_refused_ends_the_run_at_once_and_is_not_quoted(name: str, provider: Provider, tmp_path: Path) -> None:
    provider.schedule.refuse = 401
    judge = opened(params_at(provider.url, name, concurrency=4), name, tmp_path)
    with pytest.raises(JudgeError, match="401") as caught:
        judge.grades(questions(50))
    assert KEY not in str(caught.value)
    assert len(provider.requests) <= 8
    provider.schedule.refuse = 0
    assert judge.grades(questions(1))[0].missing is None, "mended, it works in the same process"
    judge.close()


def test_one_request_that_is_not_accepted_is_missing_and_many_end_the_run(provider: Provider, tmp_path: Path) -> None:
    provider.schedule.refuse = 400
    judge = opened(params_at(provider.url, concurrency=2), "haiku-4.5", tmp_path)
    assert judge.grades(questions(1))[0].missing == "rejected"
    with pytest.raises(JudgeError, match="answered none of the last"):
        judge.grades(questions(100))
    assert len(provider.requests) < 20
    judge.close()


def test_a_missing_key_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, provider: Provider) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JudgeError, match="ANTHROPIC_API_KEY is not set"):
        open_judge(params_at(provider.url), "haiku-4.5", store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_key_may_stand_in_a_dotenv_and_stays_out_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, provider: Provider
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"# keys\nexport ANTHROPIC_API_KEY='{KEY}'\n")
    judge = opened(params_at(provider.url), "haiku-4.5", tmp_path)
    assert judge.grades(questions(1))[0].missing is None
    import os

    assert "ANTHROPIC_API_KEY" not in os.environ
    judge.close()


def test_cache_only_sends_nothing_and_needs_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, provider: Provider) -> None:
    live = opened(params_at(provider.url), "haiku-4.5", tmp_path)
    graded = live.grades(questions(3))
    live.close()
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.chdir(tmp_path)
    judge = opened(params_at(provider.url, judging={"mode": "cache-only"}), "haiku-4.5", tmp_path)
    found = judge.grades(questions(5))
    assert found[:3] == graded
    assert [grade.missing for grade in found[3:]] == ["not stored"] * 2
    assert len(provider.requests) == 3
    judge.close()


def test_a_blind_judge_never_sees_the_label(tmp_path: Path, provider: Provider) -> None:
    ask = JudgeQuestion(trial_id="t", prompt="How?", reply="So it goes.", latent=Latent(3, "zeppelins"))
    seen, blind = (opened(params_at(provider.url, judging={"blind": b}), "haiku-4.5", tmp_path) for b in (False, True))
    assert seen.grades([ask])[0].latent == 3
    assert blind.grades([ask])[0].latent == -1
    said = [turns[0].text for turns, _ in blind.caller.answers.of_kind("grade", blind.target)]
    assert sorted("zeppelins" in text for text in said) == [False, True]
    assert seen.prompt_hash != blind.prompt_hash
    seen.close()
    blind.close()


def test_equal_questions_are_asked_once(provider: Provider, tmp_path: Path) -> None:
    provider.schedule.latency = 0.1
    judge = opened(params_at(provider.url), "haiku-4.5", tmp_path)
    grades = judge.grades([questions(1)[0]] * 20)
    assert judge.calls == 1
    assert len({grade.answer_key for grade in grades}) == 1
    judge.close()


def test_an_empty_reply_is_no_attempt_and_costs_nothing(provider: Provider, tmp_path: Path) -> None:
    judge = opened(params_at(provider.url), "haiku-4.5", tmp_path)
    grade = judge.grades([JudgeQuestion(trial_id="t", prompt="How?", reply=" \n", latent=Latent(1, "x"))])[0]
    assert (grade.missing, grade.cost, judge.calls) == ("no attempt", 0, 0)
    judge.close()


def test_max_cost_stops_cleanly_and_the_rest_is_asked_when_it_is_raised(provider: Provider, tmp_path: Path) -> None:
    judge = opened(params_at(provider.url, judging={"max_cost": 0.03}, concurrency=4), "haiku-4.5", tmp_path, "a-run")
    missing = Counter(grade.missing for grade in judge.grades(questions(60)))
    assert set(missing) == {None, "budget"}
    assert 0.02 < judge.spent <= 0.03
    judge.close()
    poor = opened(params_at(provider.url, judging={"max_cost": 0.03}, concurrency=4), "haiku-4.5", tmp_path, "a-run")
    assert Counter(grade.missing for grade in poor.grades(questions(60))) == missing, "the same run goes on counting"
    poor.close()
    rich = opened(params_at(provider.url, judging={"max_cost": 1.0}), "haiku-4.5", tmp_path, "a-run")
    assert {grade.missing for grade in rich.grades(questions(60))} == {None}
    assert len(provider.requests) == 60
    rich.close()


def test_max_cost_is_shared_by_the_judges_of_a_run(monkeypatch: pytest.MonkeyPatch, provider: Provider, tmp_path: Path) -> None:
    monkeypatch.setattr("esr.judge.providers.budget.REFRESH", 0.0)
    both = [
        opened(params_at(provider.url, name, judging={"max_cost": 0.03}), name, tmp_path, "b-run")
        for name in ("haiku-4.5", "sonnet-4.5")
    ]
    for judge in both:
        judge.grades(questions(15))
    assert sum(grade.missing == "budget" for judge in both for grade in judge.grades(questions(15))) > 5
    assert both[1].spent <= 0.03
    for judge in both:
        judge.close()


def test_a_stored_answer_that_is_not_yet_settled_is_not_counted_twice(
    monkeypatch: pytest.MonkeyPatch, provider: Provider, tmp_path: Path
) -> None:
    monkeypatch.setattr("esr.judge.providers.budget.REFRESH", 0.0)
    judge = opened(params_at(provider.url, "haiku-4.5", judging={"max_cost": 1.0}), "haiku-4.5", tmp_path, "one-run")
    judge.grades(questions(10))
    cost = sum(grade.cost or 0 for grade in judge.grades(questions(10)))
    budget = judge.caller.budget
    budget._own = 0.0  # as between the writing of the answers and their settling
    reserved = budget.reserve(100)
    assert reserved is not None
    assert budget.spent == 0.0
    budget.settle(reserved, cost, answered=True)
    assert budget.spent == pytest.approx(cost)
    other = opened(params_at(provider.url, "sonnet-4.5", judging={"max_cost": 1.0}), "sonnet-4.5", tmp_path, "one-run")
    assert other.spent == pytest.approx(cost)
    judge.close()
    other.close()


def test_answers_from_before_their_owner_was_kept_count_and_are_found(provider: Provider, tmp_path: Path) -> None:
    judge = opened(params_at(provider.url, "haiku-4.5"), "haiku-4.5", tmp_path)
    grades = judge.grades(questions(5))
    judge.close()
    with sqlite3.connect(tmp_path / "answers.sqlite") as db:
        db.execute("DROP INDEX answers_paid")
        db.execute("ALTER TABLE answers DROP COLUMN owner")
    db.close()
    again = opened(params_at(provider.url, "haiku-4.5"), "haiku-4.5", tmp_path)
    assert again.grades(questions(5)) == grades
    assert again.calls == 0
    assert again.spent == pytest.approx(sum(grade.cost or 0 for grade in grades))
    assert len(again.grades(questions(7))) == 7
    assert again.calls == 2
    again.close()


def test_max_cost_with_an_unknown_price_is_refused(provider: Provider, tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="price of judge 'qwen3-32b' is unknown"):
        open_judge(params_at(provider.url, "qwen3-32b", judging={"max_cost": 1.0}), "qwen3-32b", store=tmp_path)


def test_an_unknown_price_is_unknown_not_nothing(provider: Provider, tmp_path: Path) -> None:
    judge = opened(params_at(provider.url, "qwen3-32b"), "qwen3-32b", tmp_path)
    grade = judge.grades(questions(1))[0]
    assert grade.cost is None
    assert grade.input_tokens > 0
    judge.close()


@BOTH
def test_the_key_is_in_no_log_no_message_and_no_file(
    name: str, provider: Provider, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    provider.schedule.plan = ["500", "body", "not-json", "ok", "429", "key-in-body", "echo"]
    judge = opened(params_at(provider.url, name), name, tmp_path)
    judge.grades(questions(5))
    provider.schedule.refuse = 401
    with pytest.raises(JudgeError) as caught:
        judge.grades(questions(3, 100))
    judge.close()
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"castle" in kept
    for text in (kept, caplog.text.encode(), repr(judge.__dict__).encode(), str(caught.value).encode()):
        assert KEY.encode() not in text


@pytest.mark.quiet
def test_thousands_of_stored_grades_are_read_in_seconds(provider: Provider, tmp_path: Path) -> None:
    judge = opened(params_at(provider.url), "haiku-4.5", tmp_path)
    judge.grades(questions(300))
    began = time.monotonic()
    judge.grades(questions(300) * 10)
    assert time.monotonic() - began < 10
    assert judge.calls == 300
    judge.close()


@BOTH
@pytest.mark.parametrize("what", ["inner-error", "finish-error", "inner-code", "no-choices"])
def test_an_error_inside_a_success_is_asked_again(name: str, what: str, provider: Provider, tmp_path: Path) -> None:
    if name == "haiku-4.5" and what in ("inner-code", "finish-error"):
        pytest.skip("another interface's way")
    provider.schedule.plan = [what, what]
    judge = opened(params_at(provider.url, name), name, tmp_path)
    grade = judge.grades(questions(1))[0]
    assert (grade.missing, judge.calls) == (None, 3)
    assert judge.caller.answers.of_kind("grade-repair", judge.target) == []
    judge.close()


@BOTH
@pytest.mark.parametrize("usage", ["usage-text", "usage-list", "usage-null", "usage-odd"])
def test_an_answer_whose_token_counts_are_odd_is_an_answer_of_unknown_price(
    name: str, usage: str, provider: Provider, tmp_path: Path
) -> None:
    provider.schedule.plan = [usage]
    judge = opened(params_at(provider.url, name), name, tmp_path)
    grade = judge.grades(questions(1))[0]
    assert (grade.missing, grade.cost, judge.calls) == (None, None, 1)
    judge.close()


@BOTH
def test_a_wait_until_the_year_99999_is_no_end_of_the_run(
    name: str, provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esr.judge.providers.retry.OBEYED", 0.2)
    provider.schedule.plan = ["429-year-99999"]
    judge = opened(params_at(provider.url, name), name, tmp_path)
    assert judge.grades(questions(1))[0].missing is None
    judge.close()


def test_judges_say_what_they_can_do(provider: Provider, tmp_path: Path) -> None:
    lexical = open_judge(params_at(provider.url), "lexical", store=tmp_path)
    assert lexical.abilities == Abilities(ratings=True, local=True)
    assert lexical.ratings(["", "castles"])[0] == 0.0
    with pytest.raises(JudgeError, match="marks no regions"):
        lexical.regions(questions(1))
    judge = opened(params_at(provider.url), "haiku-4.5", tmp_path)
    assert judge.abilities == Abilities(structured=True, ratings=True, regions=True)
    judge.close()
    batch = opened(params_at(provider.url, judging={"mode": "batch", "blind": True}), "haiku-4.5", tmp_path)
    assert batch.abilities == Abilities(structured=True, batches=True, ratings=True, regions=True, blind=True)
    batch.close()


def test_a_grade_knows_what_was_shown(provider: Provider, tmp_path: Path) -> None:
    params = params_at(provider.url)
    question = questions(1)[0]
    renamed = replace(question, latent=Latent(question.latent.index, "fortresses"))
    told, blind = (
        opened(params, "haiku-4.5", tmp_path),
        opened(params_at(provider.url, judging={"blind": True}), "haiku-4.5", tmp_path),
    )
    lexical = open_judge(params, "lexical", store=tmp_path)
    for judge, tells in ((told, True), (blind, False), (lexical, False)):
        grade = judge.grades([question])[0]
        assert grade.shown == judge.shown(question) == judge.shown(replace(question, reply=""))
        assert (judge.shown(renamed) != grade.shown) == tells
        assert judge.shown(replace(question, prompt="Why?")) != grade.shown
    told.close()
    blind.close()


def test_a_long_looping_reply_does_not_hold_up_the_others(provider: Provider, tmp_path: Path) -> None:
    judge = opened(params_at(provider.url), "haiku-4.5", tmp_path)
    loop, gaps = judge._loop, [0.0]
    stop = threading.Event()

    async def beat() -> None:
        last = time.monotonic()
        while not stop.is_set():
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - last - 0.01)
            last = time.monotonic()

    beating = threading.Thread(target=lambda: loop.run(beat()))
    beating.start()
    reply = "the cat sat on " * 14_000 + "Wait, that is not right. " + "a dog stood by " * 100
    judge.grades([replace(question, reply=reply + str(i)) for i, question in enumerate(questions(3))])
    stop.set()
    beating.join()
    judge.close()
    assert max(gaps) < 0.8
