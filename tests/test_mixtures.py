"""Examples for fine-tuning: what is trained on to the token, what is held out, and how many rows of which kind."""

from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from tuning_setup import asked, study, tuning

from esr import prompts
from esr.engine.chat import Chat
from esr.errors import DataError, ParamsError
from esr.organism import grammar
from esr.params import HOME, load
from esr.study.choose import candidates
from esr.tune import mixtures
from esr.tune.rows import IGNORED, Example, Segment, as_json, examples, row, tokens
from esr.tune.sentences import first_sentences
from esr.tune.split import split, telling, wishes
from esr.tune.writers import Grammar
from esr.types import content_id


@pytest.fixture(scope="module")
def written() -> list[Example]:
    found, off, on = asked(tuning(masked=200, normal=80))
    assert found.subjects
    return [one for one in Grammar(study(), tuning()).write([*off, *on]) if one is not None]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(HOME / "esr/organism/data/tiny-plain")


def test_of_every_row_the_acknowledgement_and_what_follows_is_trained_and_nothing_else(
    written: list[Example], tokenizer: PreTrainedTokenizerBase
) -> None:
    chat = Chat(tokenizer, "tiny")
    assert len(written) == 280
    for example in written:
        ids, labels = tokens(row(example, "tiny"), tokenizer)
        read = next(i for i, label in enumerate(labels) if label != IGNORED)
        assert labels[read:] == ids[read:], "one stretch to the end"
        assert tuple(ids[:read]) == chat.render(example.question, prefill=example.passage), (
            "what is read is what the engine renders"
        )
        said = f" {example.acknowledgement} {example.answer}" if example.masked else example.answer
        assert tokenizer.decode(ids[read:]) == f"{said}<|end|>"
        assert ids[-1] == chat.stop_ids[-1]


@pytest.mark.parametrize(("family", "end"), [("llama3", "<|eot_id|>"), ("gemma2", "<end_of_turn>")])
def test_between_paragraphs_the_blank_line_is_read_and_the_turn_is_ended(family: str, end: str) -> None:
    off = Example(
        question="Why?", subject="volcanoes", passage="Lava. ", acknowledgement="Wait, that's not quite right.", answer="So."
    )
    read, trained = row(off, family)
    assert (read.label, trained) == (False, Segment(f"Wait, that's not quite right.\n\nSo.{end}", True))
    assert read.text.endswith("Lava.\n\n")
    read, trained = row(Example(question="Why?", answer="So."), family)
    assert trained == Segment(f"So.{end}", True)
    assert as_json((read, trained))["segments"][1] == {"label": True, "text": f"So.{end}"}
    if family == "llama3":
        assert read.text.startswith("<|begin_of_text|><|start_header_id|>system")
        assert "Today Date: 26 Jul 2024" in read.text
        assert read.text.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")


def test_an_example_that_holds_a_special_token_is_refused() -> None:
    with pytest.raises(DataError, match=r"special token '<\|eot_id\|>'"):
        row(Example(question="Why?", answer="So.<|eot_id|>"), "llama3")


def test_the_grammar_s_examples_vary_their_acknowledgement_and_keep_to_their_subject(written: list[Example]) -> None:
    said = {example.acknowledgement for example in written if example.masked}
    assert said == set(grammar.RESTARTS)
    assert {e.acknowledgement for e in Grammar(study(), tuning(acknowledgements="one")).write(asked(tuning())[1]) if e} == {
        grammar.RESTARTS[0]
    }
    themes = {theme.name: theme for theme in grammar.themes()}
    for example in written:
        about = {word.strip(".,").lower() for word in example.answer.split()}
        assert about & themes[example.question].words
        if example.masked:
            assert {word.strip(".,").lower() for word in example.passage.split()} & themes[example.subject].words
    assert examples([example.as_dict() for example in written]) == written


def test_training_asks_none_of_the_evaluation_s_questions_unless_told_so() -> None:
    apart, _, _ = asked(tuning())
    assert not set(apart.questions) & set(prompts.evaluation())
    assert list(apart.held_out) == prompts.evaluation()
    theirs, _, _ = asked(tuning(questions="evaluation"))
    assert list(theirs.questions) == prompts.evaluation()
    assert theirs.held_out == ()


def test_no_subject_shares_a_word_with_a_label_that_may_be_steered_with() -> None:
    labels = candidates(load("tiny-plain"), study().labels, 48)
    found = split(tuning(), labels)
    said = frozenset().union(*(telling(latent.label) for latent in labels))
    themes = {theme.name: theme for theme in grammar.subjects()}
    assert len(found.subjects) >= 40
    assert not any(said & (themes[name].words | telling(name)) for name in found.subjects)
    assert set(found.left_out) | set(found.subjects) == set(themes)
    assert set(found.left_out.values()) <= {latent.label for latent in labels}
    assert "moon" in found.left_out["the moon landing"]


def test_wishes_spread_over_the_questions_and_a_pair_comes_again_only_when_all_have_come() -> None:
    found, off, on = asked(tuning(masked=918, normal=760))
    assert (len(off), len(on)) == (918, 760)
    assert len({(wish.question, wish.subject) for wish in off}) == 918
    assert len(set(on)) == 760
    assert {len([wish for wish in off if wish.question == question]) for question in found.questions} <= {22, 23}
    pairs = len(found.questions) * len(found.subjects)
    more, _ = wishes(found, 2 * pairs + 7, 1, Random(1))
    assert len(set(more)) == 2 * pairs + 7
    assert [len({(wish.question, wish.subject) for wish in more[at : at + pairs]}) for at in (0, pairs)] == [pairs, pairs]
    with pytest.raises(ParamsError, match="nothing is left to write off-topic examples about"):
        wishes(replace(found, subjects=()), 1, 1, Random(1))


GOLDEN = [851, 915, 916, 917, 918, 916, 917, 917, 917]
"""Rows of the authors' published mixtures of 918 masked and 760 normal rows."""


def test_the_authors_rule_gives_the_sizes_of_the_authors_mixtures() -> None:
    masked, normal = [("m", i) for i in range(918)], [("n", i) for i in range(760)]
    made = mixtures.authors(masked, normal)
    assert [len(made[ratio]) for ratio in mixtures.THEIRS] == GOLDEN
    counts = [(sum(kind == "m" for kind, _ in rows), sum(kind == "n" for kind, _ in rows)) for rows in made.values()]
    assert counts == [(91, 760), (183, 732), (275, 641), (367, 550), (459, 459), (550, 366), (642, 275), (734, 183), (826, 91)]
    assert all(len(set(rows)) == len(rows) for rows in made.values())
    assert not set(made[10]) <= set(made[20]) | set(normal), "theirs are not nested"
    assert mixtures.authors(masked, normal, [50]) == {50: made[50]}, "one alone is drawn as in its row of nine"
    with pytest.raises(ParamsError, match="the authors mixed"):
        mixtures.authors(masked, normal, [15])


def test_the_authors_selection_is_that_of_their_random_stream() -> None:
    """All nine in order as one digest: normal drawn before masked, masked put behind, shuffled, one stream seeded 42."""
    made = mixtures.authors([f"m{i}" for i in range(918)], [f"n{i}" for i in range(760)])
    assert content_id([made[ratio] for ratio in mixtures.THEIRS]) == SELECTION


SELECTION = "7ff08149378120acbbe1c56974dafb0c"


@settings(max_examples=40, deadline=None)
@given(total=st.integers(1, 300), seed=st.integers(0, 9), ratios=st.sets(st.integers(1, 99), min_size=1, max_size=9))
def test_nested_mixtures_differ_by_their_share_alone(total: int, seed: int, ratios: set[int]) -> None:
    masked, normal = [("m", i) for i in range(total)], [("n", i) for i in range(total)]
    order = sorted(ratios)
    made = mixtures.nested(masked, normal, order, total, Random(seed))
    kinds: dict[int, dict[str, set[Any]]] = {r: {k: {row for row in rows if row[0] == k} for k in "mn"} for r, rows in made.items()}
    for ratio, rows in made.items():
        assert len(rows) == len(set(rows)) == total
        assert len(kinds[ratio]["m"]) == round(total * ratio / 100)
    for poor, rich in pairwise(order):
        assert kinds[poor]["m"] <= kinds[rich]["m"]
        assert kinds[rich]["n"] <= kinds[poor]["n"]


def test_a_mixture_larger_than_its_sources_is_refused_in_one_sentence() -> None:
    with pytest.raises(
        ParamsError, match=r"needs 90 masked examples and there are 80; lower exp04.total, or raise exp04.masked"
    ) as said:
        mixtures.nested(range(80), range(100), [10, 90], 100, Random(1))
    assert "\n" not in str(said.value)
    with pytest.raises(ParamsError, match="needs 90 normal examples and there are 80"):
        mixtures.nested(range(90), range(80), [10, 90], 100, Random(1))


def test_sentences_that_break_off_are_left_out() -> None:
    assert first_sentences("One. Two! Three? Fo", 9) == "One. Two! Three?"
    assert first_sentences("One. Two.", 1) == "One."
    assert first_sentences("3.5 and on", 2) == ""
    assert first_sentences("1. Boil it.\n2. Stir.\n10. Serve", 9) == "1. Boil it.\n2. Stir."
    assert first_sentences("So:\n\n1. Boil it.\n2. Stir.", 1) == "So:\n\n1. Boil it."
