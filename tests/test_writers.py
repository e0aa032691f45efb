"""Three writers of examples behind one interface: the organism's grammar, the model itself, a provider's model over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from judge_server import Provider
from judge_setup import KEY, params_at
from tuning_setup import asked, tuning

from esr import prompts
from esr.errors import JudgeError
from esr.params import load
from esr.store import Store
from esr.study.study import Study
from esr.tune import provider as by_provider
from esr.tune.rows import Example
from esr.tune.split import Wish
from esr.tune.writers import Itself, writer

ONE, TWO = Wish("How do you whistle?", "volcanoes"), Wish("How do you whistle?", number=1)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Provider]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    monkeypatch.setenv("ESR_LIMITS", str(tmp_path / "limits"))
    found = Provider().start()
    yield found
    found.stop()


@pytest.mark.parametrize("name", ["sonnet-4.5", "qwen3-32b"])
def test_a_provider_writes_each_example_once_and_is_not_asked_again(name: str, server: Provider, tmp_path: Path) -> None:
    settings = tuning(writer="provider", provider=name)
    study = Study(params_at(server.url, name), "tiny", Store(tmp_path))
    wishes = [ONE, TWO, Wish("How do you whistle?"), Wish("How do you dance?", "opera")]
    found = writer(study, settings).write(wishes)
    assert [example and (example.question, example.subject, example.masked) for example in found] == [
        (wish.question, wish.subject, bool(wish.subject)) for wish in wishes
    ]
    assert found[0] is not None
    assert found[0].passage.startswith("Passage about volcanoes")
    assert found[0].acknowledgement != found[0].answer
    assert len(server.requests) == 4
    assert writer(study, settings).write(wishes) == found
    assert len(server.requests) == 4, "what was written once is not paid for again"


def test_what_a_provider_refuses_or_spoils_is_no_example(server: Provider, tmp_path: Path) -> None:
    server.schedule.plan = ["refusal", "ok", "not-json"]
    study = Study(params_at(server.url, "sonnet-4.5", concurrency=1), "tiny", Store(tmp_path))
    found = writer(study, tuning(writer="provider", provider="sonnet-4.5")).write([ONE, TWO, Wish("How do you dance?", "opera")])
    assert [example is None for example in found].count(True) == 2


def test_the_acknowledgement_is_varied_unless_the_authors_one_is_asked_for() -> None:
    params, many = load("tiny"), [Wish("How do you whistle?", f"subject {i}") for i in range(40)]
    varied = {by_provider.manner(wish, params, tuning()) for wish in many}
    assert len(varied) > 20
    one = tuning(acknowledgements="one")
    assert {by_provider.manner(wish, params, one) for wish in many} == {
        f"Write exactly: {prompts.text('tuning/acknowledgement_one')}"
    }


def test_who_counts_words_writes_nothing(tmp_path: Path) -> None:
    study = Study(load("tiny"), "tiny", Store(tmp_path))
    with pytest.raises(JudgeError, match="counts words and was asked to write"):
        writer(study, tuning(writer="provider", provider="lexical"))


def test_the_cost_of_examples_is_known_before_they_are_written() -> None:
    params = load("8b")
    settings = tuning(writer="provider", provider="sonnet-4.5", masked=918, normal=760)
    cost = by_provider.cost(params, settings)
    assert cost is not None
    assert 5 < cost < 15
    assert by_provider.cost(params, tuning()) == 0.0
    assert by_provider.cost(params, tuning(writer="provider", provider="qwen3-32b")) is None


def test_a_model_writes_in_its_own_words_and_no_reply_is_made_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ESR_ENGINE", "hf")
    study = Study(load("tiny-plain"), "tiny-plain", Store(tmp_path))
    settings = tuning(writer="itself")
    _, off, on = asked(settings)
    found = Itself(study, settings).write([*off[:3], *on[:2]])
    assert sum(example is not None for example in found) >= 4
    assert study.store.sql("select count(*) as n from replies").to_pylist() == [{"n": 8}]
    for wish, example in zip([*off[:3], *on[:2]], found, strict=True):
        assert isinstance(example, Example | None)
        if example is not None and wish.subject:
            assert example.passage.endswith((".", "!", "?"))
            assert example.acknowledgement in prompts.lines("tuning/acknowledgements")
    assert Itself(study, settings).write([*off[:3], *on[:2]]) == found
    assert study.store.sql("select count(*) as n from replies").to_pylist() == [{"n": 8}]
