"""The batch interface: half the price, and everything that may be wrong with its results."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from judge_server import Provider, Schedule
from judge_setup import KEY, opened, params_at, questions

from esr.errors import JudgeError
from esr.judge.open import open_judge


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
