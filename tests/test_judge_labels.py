"""Concreteness of labels and regions of replies, by the machinery that grades."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from judge_server import Provider
from judge_setup import KEY, opened, params_at

from esr.judge import JudgeQuestion
from esr.judge.cost import bill
from esr.judge.estimate import estimate
from esr.params import load
from esr.types import Grade, Latent

BOTH = pytest.mark.parametrize("name", ["sonnet-4.5", "qwen3-32b"])
REPLY = "Grind the beans. The castle has a moat around it. Wait, that is not right. Pour the water over the ground beans."


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Provider]:
    for name in ("ANTHROPIC_API_KEY", "OPENROUTER_API_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("ESR_LIMITS", str(tmp_path / "limits"))
    server = Provider().start()
    yield server
    server.stop()


def ask(reply: str = REPLY) -> JudgeQuestion:
    return JudgeQuestion(trial_id="t", prompt="How do you make coffee?", reply=reply, latent=Latent(1, "castles"))


@BOTH
def test_labels_are_rated_fifty_at_a_time_and_each_once(name: str, provider: Provider, tmp_path: Path) -> None:
    judge = opened(params_at(provider.url, name), name, store=tmp_path)
    labels = [f"label number {i} " + "x" * (i % 30) for i in range(120)]
    assert judge.ratings(labels) == [len(label.strip()) % 101 for label in labels]
    assert judge.calls == 3
    more = judge.ratings([*labels[50:70], "quite another label"])
    assert judge.calls == 4, "what was rated in any list is not asked again"
    assert more[-1] == len("quite another label")
    judge.close()


def test_a_label_without_a_rating_is_missing_not_zero(provider: Provider, tmp_path: Path) -> None:
    provider.schedule.plan = ["string", "string"]
    judge = opened(params_at(provider.url, "sonnet-4.5"), "sonnet-4.5", store=tmp_path)
    assert judge.ratings(["castles", "feature_12", "", "trains"]) == [None] * 4
    assert judge.ratings(["castles", "bridges"]) == [7.0, 7.0], "and may be asked in another list"
    assert [entry["what"] for entry in provider.requests] == ["string", "string", "ok"]
    judge.close()


@BOTH
def test_regions_are_quoted_by_the_judge_and_located_by_us(name: str, provider: Provider, tmp_path: Path) -> None:
    judge = opened(params_at(provider.url, name), name, store=tmp_path)
    (found,) = judge.regions([ask()])
    assert found.missing is None
    assert (found.off, found.correction, found.on) == (0, REPLY.index("Wait"), REPLY.index("Pour"))
    judge.close()


def test_a_region_that_is_not_in_the_reply_is_missing(provider: Provider, tmp_path: Path) -> None:
    provider.schedule.plan = ["empty", "empty"]
    judge = opened(params_at(provider.url, "sonnet-4.5"), "sonnet-4.5", store=tmp_path)
    (found,) = judge.regions([ask()])
    assert (found.off, found.correction, found.on, found.missing) == (None, None, None, "malformed")
    judge.close()


def test_a_bill_keeps_unknown_prices_apart() -> None:
    made = [Grade(trial_id=str(i), latent=1, judge="j", judge_prompt="p", answer_key=f"k{i}" * (i < 3), input_tokens=10, cost=cost)
            for i, cost in enumerate([0.5, None, 0.25, None])]  # fmt: skip
    found = bill([*made, made[0]])
    assert (found.known, found.unknown, found.input_tokens) == (0.75, 1, 30)
    assert str(found) == "$0.75 and 1 of unknown price"


def test_an_estimate_says_what_it_does_not_know() -> None:
    params = load("70b")
    haiku = estimate(params, "haiku-4.5", 27_500, reply_tokens=512)
    assert 27_500 <= haiku.calls <= 29_000
    assert haiku.cost is not None
    assert 20 < haiku.cost < 120
    assert haiku.hours == pytest.approx(haiku.calls / 1000 / 60)
    assert estimate(params, "qwen3-32b", 100, reply_tokens=512).cost is None
    assert estimate(params, "lexical", 100, reply_tokens=512).cost == 0.0
