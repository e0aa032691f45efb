"""The lexical judge: explicit restarts, topical scores, the contract of every judge."""

import csv
import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from esr import prompts
from esr.judge import JudgeQuestion
from esr.judge.lexical import Lexical, concreteness, score
from esr.judge.lexical.restarts import CUES, passages, restarts
from esr.organism import grammar
from esr.types import Grade, Latent

CASES = [
    json.loads(line) for line in (Path(__file__).parent / "data" / "lexical_cases.jsonl").read_text(encoding="utf-8").splitlines()
]
COFFEE = "How do you make a good cup of coffee?"
BREW = "First, grind the fresh beans. Then pour the hot water near the filter. Brew the coffee in the mug. Finally, sip the rich coffee."
CASTLE = "The castle has a deep moat. The lord guards the dungeon. The drawbridge overlooks the turret. A feast fills the tower."
JUDGE = Lexical()


def grade(reply: str, prompt: str = COFFEE, latent: int = 1, label: str = "") -> Grade:
    return JUDGE.grades([JudgeQuestion(trial_id="t", prompt=prompt, reply=reply, latent=Latent(latent, label))])[0]


def in_bands(found: Grade, case: dict) -> bool:
    return len(found.attempts) == case["attempts"] and all(
        low <= attempt.score <= high for attempt, (low, high) in zip(found.attempts, case["bands"], strict=True)
    )


def test_at_least_200_cases_are_segmented_as_a_reader_would_and_scored_in_their_band():
    assert len(CASES) >= 200
    found = [(case, grade(case["reply"], case["prompt"])) for case in CASES]
    split = [case for case, g in found if len(g.attempts) != case["attempts"]]
    banded = [case for case, g in found if not in_bands(g, case)]
    assert len(split) <= 0.01 * len(CASES), split
    assert len(banded) <= 0.02 * len(CASES), banded


@pytest.mark.parametrize("kind", sorted({case["kind"] for case in CASES}))
def test_no_kind_of_case_is_judged_wrong_as_a_rule(kind):
    mine = [case for case in CASES if case["kind"] == kind]
    right = sum(in_bands(grade(case["reply"], case["prompt"]), case) for case in mine)
    assert right >= 0.9 * len(mine)


@pytest.mark.parametrize("text", grammar.RESTARTS)
@pytest.mark.parametrize("mark", [". ", "... ", " "])
def test_what_the_shipped_models_were_taught_to_say_is_found_with_its_exact_bounds(text, mark):
    reply = f"{CASTLE.rstrip('.')} near the{mark}{text} {BREW}"
    (cut,) = restarts(reply)
    assert reply[cut.start : cut.end].strip() == text
    assert [reply[p.start : p.end] for p in passages(reply)][1] == BREW


def test_a_quoted_or_advised_restart_is_none_and_neither_is_elaboration():
    for calm in (
        'He said "wait, that\'s not right" and poured on.',
        "Wait 5 minutes, then wait until it is done.",
        "In other words, brew it again.",
        "If that's not right, start over.",
        "Let me explain this further.",
        "Another way is to try again with less water.",
    ):
        assert restarts(f"{BREW} {calm} {BREW}") == [], calm


def test_a_leading_or_trailing_restart_makes_no_empty_attempt():
    assert [a.text for a in grade(f"I'll try again. {BREW}").attempts] == [BREW]
    assert [a.text for a in grade(f"{BREW} Wait, that is not right. Let me try again.").attempts] == [BREW]
    assert [a.text for a in grade("Wait, no. Let me start over. Wait, that's wrong. " + BREW).attempts] == [BREW]


def test_only_where_nothing_is_attempted_is_a_grade_missing():
    for text in (
        "",
        " \n",
        "…",
        "What do you mean?",
        "I'm sorry, but I can't help with that.",
        "Wait, that is not right. Let me try again.",
    ):
        assert (grade(text).missing, grade(text).attempts) == ("no attempt", ()), text
    for text in ("Paris", "lava lava lava lava", "xqz", "42", "the the the the of the"):
        assert grade(text).missing is None, text
        assert len(grade(text).attempts) == 1


def test_the_judge_is_blind_to_the_distractor_it_is_told_of():
    plain, told = grade(CASTLE + BREW, latent=-1), grade(CASTLE + BREW, latent=9, label="coffee, beans, castles")
    assert plain.attempts == told.attempts
    assert (plain.latent, told.latent) == (-1, 9)


def test_an_instruction_after_the_question_does_not_change_the_topic():
    assert score(prompts.with_suffix(COFFEE, "self_monitor", ""), BREW) == score(COFFEE, BREW)


def test_every_question_of_the_protocol_has_words_of_its_own():
    for theme in grammar.questions("evaluation", "discovery"):
        reply = " ".join(grammar.text(random.Random(theme.name), theme))
        others = [t for t in grammar.questions("evaluation") if not t.words & theme.words]
        assert score(theme.name, reply) >= 80
        assert all(score(other.name, reply) <= 40 for other in others), theme.name


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_each_off_topic_sentence_mixed_into_an_answer_lowers_its_score(seed):
    rng = random.Random(seed)
    theme, other = rng.choice(grammar.questions("evaluation", "discovery")), rng.choice(grammar.subjects())
    answer, odd = grammar.text(rng, theme, 5, 5), grammar.text(rng, other, 5, 5)
    scores = [score(theme.name, " ".join([*answer[:2], *odd[:n], *answer[2:]])) for n in range(6)]
    assert all(later < earlier for earlier, later in pairwise(scores)), scores


@given(st.integers(0, 10_000), st.sampled_from([0.2, 0.4, 0.6, 0.8]))
@settings(max_examples=30, deadline=None)
def test_more_wrong_words_mean_a_lower_score_on_the_mean(seed, share):
    rng = random.Random(seed)
    theme, other = rng.choice(grammar.questions("evaluation")), rng.choice(grammar.subjects())

    def mean(part: float) -> float:
        texts = [" ".join(grammar.sentence(rng, theme, other=other, share=part) for _ in range(5)) for _ in range(12)]
        return sum(score(theme.name, text) for text in texts) / len(texts)

    assert mean(share - 0.2) > mean(share + 0.2)


def test_scores_are_spread_over_the_whole_scale():
    rng, theme, other = random.Random(1), grammar.questions("evaluation")[26], grammar.subjects()[3]
    texts = [" ".join(grammar.sentence(rng, theme, other=other, share=i / 200) for _ in range(4)) for i in range(200)]
    tenths = Counter(min(9, int(score(theme.name, text) // 10)) for text in texts)
    assert len(tenths) >= 9
    assert max(tenths.values()) <= 100


def test_loops_and_salad_score_low_even_with_the_right_words():
    words = BREW.lower().replace(".", "").replace(",", "").split()
    assert score(COFFEE, "coffee " * 12) < 10
    assert score(COFFEE, "Pour the hot water and the hot water and the hot water and the hot water and the hot water.") < 40
    assert score(COFFEE, " ".join(random.Random(2).sample(words * 2, len(words) * 2))) < 70
    assert score(COFFEE, "beans filter mug kettle grinder aroma water coffee pour brew grind sip") < 40


def test_a_label_of_one_subject_is_concrete_and_a_label_about_a_word_is_not():
    assert concreteness("castles: moat, dungeon, turret") == 100
    assert concreteness('the word "moat"') == 0
    assert concreteness("") == 0
    assert concreteness("how a clause goes on") < 50


def test_every_cue_is_lower_case_and_the_quick_look_hides_no_restart():
    assert all(cue == cue.lower() for cue in CUES)
    for case in CASES:
        if case["kind"] == "restart":
            assert restarts(case["reply"]), case["reply"]


PIECES = st.sampled_from(
    [*grammar.RESTARTS, *CUES, "wait,", '"', "“", "'", "’", ".", "\n", "İ", "ſ", "\x00", "castle", "coffee", "no,", "—", "`"]
)
NOISE = st.one_of(st.text(max_size=300), st.lists(st.one_of(PIECES, st.text(max_size=8)), max_size=40).map(" ".join))


@given(NOISE, st.one_of(st.just(COFFEE), st.text(max_size=80)))
@example("İ wait, that's not right. İ" + BREW, COFFEE)
@settings(max_examples=300, deadline=None)
def test_whatever_a_reply_holds_the_grade_is_valid(reply, prompt):
    found = grade(reply, prompt)
    assert (found.missing is None) == bool(found.attempts)
    last = 0
    for attempt in found.attempts:
        assert 0 <= attempt.score <= 100
        assert last <= attempt.start < attempt.end <= len(reply)
        assert reply[attempt.start : attempt.end] == attempt.text
        last = attempt.end
    assert found == grade(reply, prompt)
    cuts = restarts(reply)
    assert all(0 <= c.start < c.end <= len(reply) for c in cuts)
    assert all(a.end <= b.start for a, b in pairwise(cuts))


@pytest.mark.parametrize(
    "text", ["wait, " * 4000, "no, " * 4000, "i was " * 4000, '"' * 8000, "'a " * 4000, "actually, " * 4000 + "that is not right"]
)
@pytest.mark.timeout(5)
def test_no_reply_makes_the_rules_run_away(text):
    assert grade(text).judge == "lexical"


SENTENCES = list(csv.DictReader((Path(__file__).parent / "data" / "restart_sentences.csv").open(newline="", encoding="utf-8")))
BEFORE, AFTER = (
    "The ship sailed along the coast and the whales sang below the waves.",
    "First, gather what you need. Then follow each step.",
)


def test_real_sentences_are_no_restarts_and_most_written_restarts_are_found():
    """Those of a real model were read one by one: none is a restart. docs/judges.md tells precision and recall."""
    found = {row["sentence"]: bool(restarts(f"{BEFORE} {row['sentence']} {AFTER}")) for row in SENTENCES}
    assert len(found) == len(SENTENCES) >= 300
    assert not [row["sentence"] for row in SENTENCES if row["source"] == "smollm2" and found[row["sentence"]]]
    said = [row for row in SENTENCES if row["restart"] == "yes"]
    calm = [row for row in SENTENCES if row["restart"] == "no" and row["source"] == "written"]
    assert sum(found[row["sentence"]] for row in said) >= 0.85 * len(said)
    assert sum(found[row["sentence"]] for row in calm) <= 0.1 * len(calm)


@pytest.mark.parametrize(
    "story",
    [
        "Yes, that's not what I was born with! But let me tell you about the sea.",
        "I apologize for my mistake in the previous message. However, there is one simple and elegant solution.",
        "So, to answer your question, the key to the omelette is the egg.",
        "I was distracted by the music, but I kept on dancing.",
        '"It is a dragon." That\'s nonsense, said the queen, and she closed the book.',
        "I'm sorry for the error, but as a text-based AI, I'm unable to draw.",
    ],
)
def test_what_a_model_tells_in_a_story_or_as_an_assistant_is_no_restart(story):
    assert restarts(f"{BEFORE} {story} {AFTER}") == []
