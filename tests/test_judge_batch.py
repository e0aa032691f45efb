"""The batch interface: half the price, and everything that may be wrong with its results."""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from judge_server import Provider, Schedule
from judge_setup import KEY, opened, paid_twice, params_at, questions

from esr.errors import JudgeError
from esr.judge.open import open_judge
from esr.judge.providers.client import ProviderBatch
from esr.judge.providers.retry import TryLater


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Provider]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ESR_LIMITS", str(tmp_path / "limits"))
    server = Provider(schedule=Schedule(batch_seconds=0.2)).start()
    yield server
    server.stop()


def test_a_batch_grades_everything_at_the_batch_price_and_once(provider: Provider, tmp_path: Path) -> None:
    judge = opened(params_at(provider.url, judging={"mode": "batch"}), "haiku-4.5", store=tmp_path)
    grades = judge.grades(questions(60))
    assert {grade.missing for grade in grades} == {None}
    assert [len(batch["requests"]) for batch in provider.batches.values()] == [60]
    spec = judge.caller.judge
    first = grades[0]
    assert spec.price_in_batch is not None
    assert spec.price_out_batch is not None
    assert first.cost == pytest.approx(
        (first.input_tokens * spec.price_in_batch + first.output_tokens * spec.price_out_batch) / 1e6
    )
    assert judge.grades(questions(60)) == grades
    assert len(provider.batches) == 1
    judge.close()
    live = opened(params_at(provider.url), "haiku-4.5", store=tmp_path)
    assert live.grades(questions(60)) == grades, "what a batch answered is not asked again live"
    assert live.calls == 0
    live.close()


@pytest.mark.parametrize("what", ["duplicate", "expire", "error", "drop"])
def test_whatever_a_batch_leaves_open_goes_into_the_next(what: str, provider: Provider, tmp_path: Path) -> None:
    provider.schedule.batch_plan = [what]
    judge = opened(params_at(provider.url, judging={"mode": "batch"}), "haiku-4.5", store=tmp_path)
    grades = judge.grades(questions(40))
    assert {grade.missing for grade in grades} == {None}
    assert all(0 <= attempt.score <= 100 for grade in grades for attempt in grade.attempts)
    sizes = [len(batch["requests"]) for batch in provider.batches.values()]
    if what == "duplicate":
        assert sizes[0] == 40
    else:
        assert len(sizes) == 2
        assert sizes[1] < 40
    judge.close()


def test_unusable_answers_of_a_batch_are_repaired_by_a_second(provider: Provider, tmp_path: Path) -> None:
    provider.schedule.faults = 0.3
    provider.schedule.kinds = ("not-json", "140", "empty", "refusal")
    judge = opened(params_at(provider.url, judging={"mode": "batch"}), "haiku-4.5", store=tmp_path)
    missing = Counter(grade.missing for grade in judge.grades(questions(60)))
    assert set(missing) <= {None, "refused", "malformed"}
    assert missing[None] > 40
    assert len(provider.batches) == 2
    judge.close()


def test_max_cost_holds_for_a_batch(provider: Provider, tmp_path: Path) -> None:
    judge = opened(params_at(provider.url, judging={"mode": "batch", "max_cost": 0.02}), "haiku-4.5", store=tmp_path)
    missing = Counter(grade.missing for grade in judge.grades(questions(80)))
    assert set(missing) == {None, "budget"}
    assert 0.01 < judge.spent <= 0.02
    judge.close()


def test_a_provider_without_batches_is_said_before_any_work(provider: Provider, tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="has no batch interface; set judging"):
        open_judge(params_at(provider.url, "gpt-5-mini", judging={"mode": "batch"}), "gpt-5-mini", store=tmp_path)


def test_a_refused_key_ends_a_batch_run_at_once(provider: Provider, tmp_path: Path) -> None:
    provider.schedule.refuse = 401
    judge = opened(params_at(provider.url, judging={"mode": "batch"}), "haiku-4.5", store=tmp_path)
    with pytest.raises(JudgeError, match="401"):
        judge.grades(questions(5))
    provider.schedule.refuse = 0
    assert {grade.missing for grade in judge.grades(questions(5))} == {None}
    judge.close()


@pytest.mark.parametrize("fate", ["reset", "500"])
def test_a_batch_that_was_taken_and_whose_receipt_is_lost_is_not_handed_over_again(
    fate: str, provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esr.judge.providers.batch.LARGEST", 30)
    provider.schedule.receipt_plan = [fate] * 3
    judge = opened(params_at(provider.url, judging={"mode": "batch"}), "haiku-4.5", store=tmp_path)
    assert {grade.missing for grade in judge.grades(questions(90))} == {None}
    judge.close()
    assert len(provider.batches) == 3
    assert paid_twice(provider) == []


def test_a_batch_that_was_not_taken_is_handed_over_again(provider: Provider, tmp_path: Path) -> None:
    provider.schedule.receipt_plan = ["refused", "refused"]
    judge = opened(params_at(provider.url, judging={"mode": "batch"}), "haiku-4.5", store=tmp_path)
    assert {grade.missing for grade in judge.grades(questions(20))} == {None}
    judge.close()
    assert len(provider.batches) == 1
    assert paid_twice(provider) == []


def test_a_batch_that_appears_in_the_list_only_later_is_waited_for(provider: Provider, tmp_path: Path) -> None:
    provider.schedule.receipt_plan = ["reset"]
    provider.schedule.created_late = 3.0
    judge = opened(params_at(provider.url, judging={"mode": "batch"}), "haiku-4.5", store=tmp_path)
    assert {grade.missing for grade in judge.grades(questions(20))} == {None}
    judge.close()
    assert paid_twice(provider) == []


def test_whether_a_batch_was_taken_is_found_out_by_the_next_run_if_it_must_be(provider: Provider, tmp_path: Path) -> None:
    provider.schedule.receipt_plan = ["reset"]
    params = params_at(provider.url, judging={"mode": "batch", "attempts": 1})
    judge = opened(params, "haiku-4.5", store=tmp_path)
    judge.caller._batches._client.recent = provider_is_down  # type: ignore[union-attr, method-assign]  # the client is another in other modes
    with pytest.raises(JudgeError):
        judge.grades(questions(20))
    judge.close()
    again = opened(params, "haiku-4.5", store=tmp_path)
    assert {grade.missing for grade in again.grades(questions(20))} == {None}
    again.close()
    assert len(provider.batches) == 1


LOOKS = iter([False])


async def provider_is_down(since: float) -> list[ProviderBatch]:
    """After the first look, which comes before the hand-over."""
    if next(LOOKS, True):
        raise TryLater("down")
    return []


@pytest.mark.parametrize("what", ["bad-line", "cut", "always-bad"])
def test_what_can_be_read_of_a_batch_is_kept_and_what_cannot_is_read_again(what: str, provider: Provider, tmp_path: Path) -> None:
    provider.schedule.batch_plan = [what]
    params = params_at(provider.url, judging={"mode": "batch", "attempts": 3})
    judge = opened(params, "haiku-4.5", store=tmp_path)
    assert {grade.missing for grade in judge.grades(questions(40))} == {None}
    judge.close()
    sizes = [len(batch["requests"]) for batch in provider.batches.values()]
    assert sizes == ([40, 1] if what == "always-bad" else [40])


def test_answers_whose_file_is_lost_are_collected_once_more_and_not_paid(provider: Provider, tmp_path: Path) -> None:
    params = params_at(provider.url, judging={"mode": "batch"})
    judge = opened(params, "haiku-4.5", store=tmp_path / "a")
    grades = judge.grades(questions(20))
    judge.close()
    other = opened(params, "haiku-4.5", store=tmp_path / "b")
    assert other.grades(questions(20)) == grades
    other.close()
    assert len(provider.batches) == 1


def test_one_call_that_is_refused_does_not_refuse_its_batch(provider: Provider, tmp_path: Path) -> None:
    provider.schedule.unacceptable = "castle moat 7"
    asked = [replace(question, reply=f"castle moat {i}.") for i, question in enumerate(questions(16), 1)]
    judge = opened(params_at(provider.url, judging={"mode": "batch"}), "haiku-4.5", store=tmp_path)
    missing = {question.reply: grade.missing for question, grade in zip(asked, judge.grades(asked), strict=True)}
    judge.close()
    assert {reply for reply, reason in missing.items() if reason} == {"castle moat 7."}
    assert missing["castle moat 7."] == "rejected"
    assert paid_twice(provider) == []


def test_a_batch_that_the_provider_no_longer_has_is_asked_again(provider: Provider, tmp_path: Path) -> None:
    provider.schedule.batch_seconds = 1.0
    judge = opened(params_at(provider.url, judging={"mode": "batch"}), "haiku-4.5", store=tmp_path)
    threading.Timer(0.8, provider.batches.clear).start()
    assert {grade.missing for grade in judge.grades(questions(5))} == {None}
    judge.close()
