"""What a judge copied is found whatever it did to spaces, quotes, case and length; what it made up is not; and it takes no time."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esr.judge.locate import locate

REPLY = (
    "Sure! First, *grind* the “fresh” beans — don’t rush.\n\n1. Boil   water\n2. Pour it\n\nWait, that’s not right… "
    "Let me try again: naïve cafés use a_long_name and 3.5 cups. The end."
)


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("first, GRIND the fresh beans", "First, *grind* the “fresh” beans"),
        ("\"First, grind the 'fresh' beans - don't rush.\"", "First, *grind* the “fresh” beans — don’t rush"),
        ("1. Boil water 2. Pour it", "1. Boil   water\n2. Pour it"),
        ("1. Boil water\\n2. Pour it", "1. Boil   water\n2. Pour it"),
        ("Wait, that's not right...", "Wait, that’s not right"),
        (
            "Sure! First … rush. [...] 2. Pour it",
            "Sure! First, *grind* the “fresh” beans — don’t rush.\n\n1. Boil   water\n2. Pour it",
        ),
        ("nai\u0308ve cafe\u0301s use a_long_name", "naïve cafés use a_long_name"),
        ("nai\u00adve", None),
        ("na\u00adïve ca\u200bfés", "naïve cafés"),
        ("a long name", "a_long_name"),
        ("3.5 cups", "3.5 cups"),
        ("rind the", None),
        ("n", None),
        ("The moon is made of cheese", None),
        ("First, pour the fresh milk over a castle wall", None),
    ],
)
def test_a_quotation_is_found_whatever_was_done_to_its_looks(quote: str, found: str | None) -> None:
    span = locate(quote, REPLY)
    assert (REPLY[span.start : span.end] if span else None) == found


words = st.lists(st.sampled_from(["tea", "hot", "water", "cup", "pour", "the", "and", "stir"]), min_size=8, max_size=60)


@settings(max_examples=200, deadline=None)
@given(words, st.data())
def test_a_stretch_of_words_is_found_at_its_first_place(text: list[str], data: st.DataObject) -> None:
    low = data.draw(st.integers(0, len(text) - 3))
    high = data.draw(st.integers(low + 3, len(text)))
    reply, quote = " ".join(text), " , ".join(text[low:high]).upper()
    span = locate(quote, reply)
    assert span is not None
    assert reply[span.start : span.end].split() == text[low:high]
    assert not any(text[i : i + high - low] == text[low:high] for i in range(len(reply[: span.start].split())))


@settings(max_examples=100, deadline=None)
@given(words, st.integers(0, 1000))
def test_one_changed_word_in_eight_does_no_harm_and_half_of_them_do(text: list[str], seed: int) -> None:
    import random

    rng = random.Random(seed)
    one = list(text)
    one[rng.randrange(len(one))] = "quite"
    if len(text) >= 10:
        assert locate(" ".join(one), " ".join(text)) is not None
    half = ["moon" if i % 2 else word for i, word in enumerate(text)]
    assert locate(" ".join(half), " ".join(text)) is None


@pytest.mark.parametrize("unit", ["the cat sat ", "ha ", "word%d and then the next one "])
def test_a_reply_of_200_kb_that_repeats_itself_is_searched_at_once(unit: str) -> None:
    reply = "".join(unit % i if "%" in unit else unit for i in range(200_000 // len(unit)))
    began = time.process_time()
    for quote in (
        reply[:4000] + "x",
        reply[-3000:],
        "a dog stood under the tree " * 100,
        (unit * 200).replace("%d", "7") + "on a mat " * 20,
    ):
        locate(quote, reply)
    assert time.process_time() - began < 2.0
