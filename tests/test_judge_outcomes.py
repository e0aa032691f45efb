"""From what a judge says to what is counted: what it made up counts for nothing, and a renamed latent is another question."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from judge_server import Provider
from judge_setup import KEY, opened, params_at

from esr.judge import JudgeQuestion
from esr.store import Store
from esr.study import grade
from esr.study.rejudge import rejudge
from esr.types import BASELINE, Attempt, Grade, Latent, Member, Reply, Sampling, Trial

TEXT = "Grind the beans finely. Wait, that is not right. Let me pour the water."


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Provider]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ESR_LIMITS", str(tmp_path / "limits"))
    server = Provider().start()
    yield server
    server.stop()


def planned(store: Store, label: str) -> JudgeQuestion:
    """One trial about a latent of this name."""
    trial = Trial(model="tiny", weights="w", meaning="", prompt="How do you make coffee?", prompt_format="clean", seed=1,
                  sampling=Sampling(1.0, 1.0, 1.0, 8), question="How do you make coffee?", latent=Latent(3, label))  # fmt: skip
    store.put_members([Member(arm=BASELINE, model="tiny", scale="full", trial=trial)])
    store.put_replies([Reply(trial_id=trial.id, text=TEXT, token_ids=(1,), n_prompt_tokens=1, finish_reason="stop", applied=0)])
    return JudgeQuestion(trial_id=trial.id, prompt=trial.prompt, reply=TEXT, latent=trial.latent)


def test_an_invented_attempt_counts_for_nothing_and_can_be_counted_all_the_same(provider: Provider, tmp_path: Path) -> None:
    store = Store(tmp_path)
    question = planned(store, "castles")
    provider.schedule.plan = ["lies", "lies"]
    judge = opened(params_at(provider.url), "haiku-4.5", tmp_path)
    rejudge(store, judge, [question], size=5)
    judge.close()
    (kept,) = store.sql("select attempts from grades").to_pylist()
    assert [attempt["start"] is None for attempt in kept["attempts"]] == [True, False]
    (found,) = store.sql("select * from outcomes").to_pylist()
    second = kept["attempts"][1]["score"]
    assert (found["n_attempts"], found["multi"], found["corrected"], found["gain"]) == (1, False, False, 0.0)
    assert (found["first_score"], found["last_score"]) == (second, second)
    assert (found["n_attempts_as_told"], found["multi_as_told"]) == (2, True)
    assert grade.final(store, judge, [question]) == {(question.trial_id, 3): second / 100}
    assert store.sql("select located from attempts order by n").to_pylist() == [{"located": False}, {"located": True}]


def test_a_grade_of_inventions_only_is_missing_and_final(provider: Provider, tmp_path: Path) -> None:
    store = Store(tmp_path)
    question = planned(store, "castles")
    judge = opened(params_at(provider.url), "haiku-4.5", tmp_path)
    made = Grade(trial_id=question.trial_id, latent=3, judge=judge.name, judge_prompt=judge.prompt_hash, shown=judge.shown(question),
                 attempts=(Attempt(70.0, "the moon"), Attempt(90.0, "is cheese")))  # fmt: skip
    assert made.counted == ()
    assert grade.first_score(made) is None
    store.put_grades([made])
    assert store.sql("select n_graded, n_missing from summary").to_pylist() == [{"n_graded": 0, "n_missing": 1}]
    assert grade.final(store, judge, [question]) == {(question.trial_id, 3): None}
    judge.close()


@pytest.mark.parametrize(("name", "blind", "again"), [("haiku-4.5", False, 1), ("haiku-4.5", True, 0), ("lexical", False, 0)])
def test_a_renamed_latent_is_asked_about_again_where_the_judge_is_told(
    name: str, blind: bool, again: int, provider: Provider, tmp_path: Path
) -> None:
    from esr.judge.open import open_judge

    store = Store(tmp_path)
    judge = open_judge(params_at(provider.url, judging={"blind": blind}), name, store=tmp_path)
    first = planned(store, "castles")
    rejudge(store, judge, [first], size=5)
    assert rejudge(store, judge, [first], size=5).stored == 1
    renamed = planned(store, "fortresses")
    assert renamed.trial_id == first.trial_id
    assert rejudge(store, judge, [renamed], size=5).stored == 1 - again
    assert rejudge(store, judge, [renamed], size=5).stored == 1
    judge.close()
