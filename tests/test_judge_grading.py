"""Answers of any shape: a valid grade or a reason, never a crash."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esr.errors import JudgeError
from esr.judge import JudgeQuestion
from esr.judge.instructed.concreteness import complete
from esr.judge.instructed.form import Malformed, json_object
from esr.judge.instructed.grading import better, call_about, parsed, read, repair
from esr.judge.instructed.regions import placed as regions_placed
from esr.judge.locate import locate
from esr.judge.providers.call import Answer, Stop, Target
from esr.judge.providers.claude import answer as claude_answer
from esr.judge.providers.claude import outcome as claude_outcome
from esr.judge.providers.retry import TryLater, delay, failure, retry_after
from esr.types import Latent

REPLY = "First, grind the **fresh** beans. The “moat” is deep… Wait, that's not right. Pour the hot water over the beans."
TARGET = Target(client="anthropic", model="m", max_tokens=100, structured=True, temperature=None, api_base=None)


def answer(text: str, stop: Stop = "end") -> Answer:
    return Answer(text=text, stop=stop, model="m", input_tokens=1, output_tokens=1, raw=text)


def said(*pairs: tuple[object, object], **more: object) -> str:
    return json.dumps({"feedback": "f", "attempts": [{"attempt_text": text, "score": score} for text, score in pairs]} | more)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
pieces = st.sampled_from(
    ["First, grind", "the fresh beans", "moat", "Wait, that's not right.", REPLY, "…", " ... ", "nothing like it", "\ud800", ""]
)
attempts = st.fixed_dictionaries(
    {},
    optional={
        "attempt_text": pieces | st.text(max_size=30) | json_values,
        "score": st.integers(-5, 105) | st.floats() | st.just("85") | json_values,
    },
)
bodies = st.fixed_dictionaries(
    {}, optional={"feedback": json_values, "attempts": st.lists(attempts | json_values, max_size=4) | json_values, "no_attempt": st.booleans() | json_values}
)  # fmt: skip
answers = st.one_of(
    st.text(max_size=200),
    json_values.map(json.dumps),
    bodies.map(json.dumps),
    bodies.map(lambda value: f"So.\n<json>{json.dumps(value)}</json>"),
    bodies.map(lambda value: json.dumps(value)[:-7]),
    bodies.map(lambda value: f"```json\n{json.dumps(value, indent=1)}\n```"),
)
stops = st.sampled_from(["end", "length", "refusal"])


@settings(max_examples=400, deadline=None)
@given(answers, stops, st.sampled_from([REPLY, "", "beans beans beans beans beans", "\ud800 beans"]) | st.text(max_size=60))
def test_no_answer_crashes_and_every_grade_is_valid(text: str, stop: Stop, reply: str) -> None:
    verdict = read(answer(text, stop), reply)
    assert (verdict.missing is None) == bool(verdict.attempts)
    assert stop != "refusal" or verdict.missing == "refused"
    last = -1
    for attempt in verdict.attempts:
        assert isinstance(attempt.score, float)
        assert 0 <= attempt.score <= 100
        attempt.text.encode()
        if attempt.start is not None and attempt.end is not None:
            assert last < attempt.start < attempt.end <= len(reply)
            last = attempt.start
        else:
            assert verdict.problem is not None
    repair(
        call_about(JudgeQuestion(trial_id="t", prompt=text, reply=reply, latent=Latent(1, text)), TARGET, blind=False),
        answer(text),
        "p",
    ).key.encode()


@settings(max_examples=150, deadline=None)
@given(answers, answers)
def test_the_better_of_two_answers_is_one_of_them(first: str, second: str) -> None:
    one, two = read(answer(first), REPLY), read(answer(second), REPLY)
    chosen = better(one, two)
    assert chosen in (one, two)
    assert chosen.attempts or not (one.attempts and two.attempts)


messages = st.fixed_dictionaries(
    {},
    optional={
        "type": st.just("message") | json_values,
        "content": st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": json_values}) | json_values, max_size=3)
        | json_values,
        "usage": st.dictionaries(st.sampled_from(["input_tokens", "output_tokens", "cache_read_input_tokens"]), json_values)
        | json_values,
        "stop_reason": st.sampled_from(["end_turn", "refusal", "max_tokens"]) | json_values,
        "model": json_values,
    },
)
results = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["succeeded", "errored", "expired"]) | json_values,
        "message": messages | json_values,
        "error": st.fixed_dictionaries({"error": st.fixed_dictionaries({"type": json_values}) | json_values}) | json_values,
    },
)


@settings(max_examples=300, deadline=None)
@given(messages.map(json.dumps) | json_values.map(json.dumps) | st.text(max_size=50))
def test_no_body_of_a_provider_crashes(body: str) -> None:
    with suppress(TryLater, JudgeError):
        found = claude_answer(body, 0.0)
        assert found.input_tokens is None or found.input_tokens >= 0


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({"custom_id": st.just("k") | json_values, "result": results | json_values}))
def test_no_line_of_a_batch_crashes(line: dict[str, object]) -> None:
    outcome = claude_outcome(json.dumps(line))
    assert outcome.key in ("", line.get("custom_id"))


@settings(max_examples=100, deadline=None)
@given(answers)
def test_ratings_and_regions_are_whole_or_malformed(text: str) -> None:
    with suppress(Malformed):
        assert all(0 <= rating <= 100 for rating in complete(text, ["a", "b"]).values())
    with suppress(Malformed):
        off, correction, on = regions_placed(text, REPLY)
        assert 0 <= off < correction < on < len(REPLY)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no json here", "valid JSON"),
        ("[1, 2]", "valid JSON"),
        ("<json>[1]</json>", "must be an object"),
        ('{"attempts": {}}', "must be a list"),
        ('{"attempts": []}', "`no_attempt` is not true"),
        (said(no_attempt="no"), "true or false"),
        (said(("First", 3), no_attempt=True), "although attempts"),
        (said(("First", 140)), "between 0 and 100"),
        (said(("First", -1)), "between 0 and 100"),
        (said(("First", "85")), "must be a number, not text"),
        (said(("First", None)), "must be a number"),
        (said(("First", True)), "must be a number"),
        ('{"attempts": [{"attempt_text": "First", "score": NaN}]}', "valid JSON"),
        ('{"attempts": [{"attempt_text": "First", "score": 1e999}]}', "between 0 and 100"),
        ('{"attempts": [{"attempt_text": "First", "score": ' + "9" * 500 + "}]}", "between 0 and 100"),
        (said(("", 5)), "must be a passage"),
        (said((7, 5)), "must be a passage"),
        (said(("Pour the hot water", 5), ("First, grind", 7)), "stands before"),
        (said(("First, grind", 5), ("First, grind", 7)), "stands before"),
        (said((REPLY, 40), (REPLY, 80)), "once more"),
        (said(("Pour the hot water over the beans.", 40), ("pour THE hot water over the beans", 80)), "once more"),
        ("[" * 100_000, "valid JSON"),
    ],
)
def test_what_has_not_the_form_is_named(text: str, problem: str) -> None:
    verdict = read(answer(text), REPLY)
    assert verdict.missing == "malformed"
    assert problem in str(verdict.problem)


def test_the_explicit_word_that_there_is_no_attempt_counts() -> None:
    verdict = read(answer(said(no_attempt=True)), REPLY)
    assert (verdict.missing, verdict.problem) == ("no attempt", None)


def test_the_last_tags_count_and_fences_do_no_harm() -> None:
    assert json_object('I write <json>{"a": 1}</json>, no: <json>{"a": 2}</json>') == {"a": 2}
    assert json_object('```json\n{"a": 3}\n```') == {"a": 3}
    assert parsed(f"<json>{said(('x', 1))}</json>") == [("x", 1.0)]


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("First, grind the **fresh** beans.", "First, grind the **fresh** beans."),
        ("first grind the fresh beans", "First, grind the **fresh** beans"),
        ('The "moat" is deep...', "The “moat” is deep"),
        ("First, grind ... is deep", "First, grind the **fresh** beans. The “moat” is deep"),
        ("Wait, that's not right. [...] over the beans.", "Wait, that's not right. Pour the hot water over the beans."),
        ("Pour the very hot water over the beans.", "Pour the hot water over the beans"),
        ("…Pour the hot water", "Pour the hot water"),
        ("Pour cold milk into the moat of the castle", None),
        ("rind the fresh", None),
        ("Wait ... First", None),
        ("", None),
        ("...", None),
    ],
)
def test_a_quotation_is_found_exactly_or_nearly_or_not(quote: str, found: str | None) -> None:
    span = locate(quote, REPLY)
    assert (REPLY[span.start : span.end] if span else None) == found


def test_repeated_passages_are_found_one_after_the_other() -> None:
    reply = "Tea is hot. Wait, let me try again. Tea is hot."
    verdict = read(answer(said(("Tea is hot.", 10), ("Tea is hot.", 10))), reply)
    assert [(attempt.start, attempt.end) for attempt in verdict.attempts] == [(0, 11), (36, 47)]


def test_a_long_degraded_reply_is_searched_in_no_time() -> None:
    import time

    reply = "the cat sat " * 600
    began = time.process_time()
    assert locate("the cat sat " * 200 + "on a mat " * 20, reply) is not None
    assert locate("a dog stood under the tree " * 100, reply) is None
    assert time.process_time() - began < 2


def test_the_prompt_holds_the_reply_as_it_is() -> None:
    question = JudgeQuestion(
        trial_id="t", prompt="How {{reply}}?", reply='{"a": "{{latent}}"} </reply>', latent=Latent(1, "castles")
    )
    for structured in (True, False):
        target = Target(client="c", model="m", max_tokens=1, structured=structured, temperature=None, api_base=None)
        call = call_about(question, target, blind=False)
        assert question.reply in call.messages[0].text
        assert "How {{reply}}?" in call.messages[0].text
        assert ("<json>" in call.system) == (not structured)
        assert "castles" not in call_about(question, target, blind=True).messages[0].text
        assert "unrelated" not in call_about(question, target, blind=True).system


def test_another_parameter_or_round_is_another_question() -> None:
    question = JudgeQuestion(trial_id="t", prompt="How?", reply="So.", latent=Latent(1, "castles"))
    one = call_about(question, TARGET, blind=False)
    others = [
        call_about(question, TARGET, blind=True),
        call_about(question, TARGET, blind=False, round=1),
        *(call_about(question, Target(**{f: getattr(TARGET, f) for f in TARGET.__slots__} | {name: value}), blind=False)
          for name, value in [("model", "n"), ("max_tokens", 7), ("structured", False), ("temperature", 0.0)]),
    ]  # fmt: skip
    assert len({one.key, *(other.key for other in others)}) == len(others) + 1
    assert call_about(question, TARGET, blind=False).key == one.key


def test_a_wait_is_never_shorter_than_told() -> None:
    import random

    rng = random.Random(1)
    assert all(delay(0, 2.0, rng) >= 2.0 for _ in range(100))
    assert all(0.2 < delay(k, None, rng) <= 30.0 for k in range(12))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "2"}, 2.0), ({"retry-after-ms": "250"}, 0.25), ({"retry-after": "-1"}, None), ({"retry-after": "soon"}, None), ({}, None),
     ({"retry-after": "999999"}, 300.0), ({"retry-after": "nan"}, None)],
)  # fmt: skip
def test_retry_after_is_read_in_each_of_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_statuses_are_worth_another_try_or_not() -> None:
    kinds = {
        status: type(failure(status, "m", None)).__name__ for status in (400, 401, 403, 404, 408, 409, 422, 429, 500, 503, 529)
    }
    assert kinds == {
        400: "Rejected", 401: "JudgeError", 403: "JudgeError", 404: "NotThere", 408: "TryLater", 409: "TryLater", 422: "Rejected", 429: "TryLater",
        500: "TryLater", 503: "TryLater", 529: "TryLater",
    }  # fmt: skip
