"""Choosing latents: by seed, by rating, by what the questions wake."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esr import params
from esr.errors import DataError, ParamsError
from esr.study.choose import candidates, concrete, irrelevant
from esr.types import Latent

P = params.load("70b")
LABELS = [Latent(i, f"label {i}") for i in range(0, 400, 3)]  # with gaps: indices are not rows


def test_candidates_are_drawn_without_replacement_and_by_seed():
    drawn = candidates(P, LABELS, 20)
    assert len(drawn) == len(set(drawn)) == 60
    assert set(drawn) <= set(LABELS)
    assert drawn == candidates(P, LABELS[::-1], 20)
    assert drawn != candidates(P.model_copy(update={"seed": 1}), LABELS, 20)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60))
def test_a_larger_draw_begins_with_the_smaller(a, b):
    small, large = sorted((a, b))
    assert candidates(P, LABELS, large)[: len(candidates(P, LABELS, small))] == candidates(P, LABELS, small)


def test_no_labels_is_an_error():
    with pytest.raises(DataError):
        candidates(P, [], 5)


FOUR = [Latent(1, "rain"), Latent(2, "ships"), Latent(3, "abstract nouns"), Latent(4, "feature_4"), Latent(5, "unrated"), Latent(6)]
RATINGS = {1: 90.0, 2: 65.0, 3: 10.0, 4: 99.0, 6: 99.0}


def test_concreteness_by_threshold_keeps_the_rated_at_or_above_it():
    assert [latent.index for latent in concrete(FOUR, RATINGS, "threshold(65)")] == [1, 2]
    assert [latent.index for latent in concrete(FOUR, RATINGS, "threshold(65.5)")] == [1]


def test_concreteness_by_median_drops_those_below_it():
    assert [latent.index for latent in concrete(FOUR, RATINGS, "median")] == [1, 2]


def test_concreteness_off_keeps_all():
    assert concrete(FOUR, {}, "off") == FOUR


def test_an_unrated_latent_is_said_and_left_out(caplog):
    assert concrete(FOUR, {}, "threshold(65)") == []
    assert "no concreteness rating" in caplog.text


ACTIVATIONS = np.array([[0.0, 0.0, 3.0, 2.0, 1.0], [0.0, 1e-9, 0.0, 2.0, 9.0]])  # 2 questions × 5 latents
FIVE = [Latent(i) for i in range(5)]


def test_relevance_by_zero_activation_keeps_what_no_question_wakes_at_all():
    assert [latent.index for latent in irrelevant(FIVE, ACTIVATIONS, "zero_activation")] == [0]


def test_relevance_by_topk_leaves_out_each_questions_most_active():
    assert [latent.index for latent in irrelevant(FIVE, ACTIVATIONS, "topk(1)")] == [0, 1, 3]
    assert [latent.index for latent in irrelevant(FIVE, ACTIVATIONS, "topk(2)")] == [0, 1]


def test_topk_larger_than_what_is_awake_leaves_the_silent_in():
    assert [latent.index for latent in irrelevant(FIVE, ACTIVATIONS, "topk(5)")] == [0]


def test_relevance_off_keeps_all():
    assert irrelevant(FIVE, ACTIVATIONS, "off") == FIVE


def test_a_latent_the_activations_do_not_cover_is_named():
    with pytest.raises(DataError, match=r"\[7\]"):
        irrelevant([Latent(7)], ACTIVATIONS, "zero_activation")


@pytest.mark.parametrize("policy", ["top(3)", "topk", "zero_activation(3)", "topk(-1)", ""])
def test_a_policy_that_is_none_is_refused(policy):
    with pytest.raises(ParamsError):
        irrelevant(FIVE, ACTIVATIONS, policy)
