"""Beginnings cut from replies as the tokens that they were, and what goes on from them."""

from dataclasses import replace
from pathlib import Path

import pytest

from esr.engine.intervention import Intervention
from esr.errors import DataError
from esr.params import load
from esr.show.continuations import opens
from esr.store import Store
from esr.study.beginnings import Graded, corrective, cuts, episodes, limit, off_topic, opening, shuffled
from esr.study.continuations import Condition, by_cut, detection, matched
from esr.study.plan import unsteered
from esr.types import BASELINE, Attempt, Latent, Member, Op, Sampling, Trial

STRAYED = "Claw the grit. Claw the bag of the grit"
RESTART = " Wait, that is not right. Let me try again."
SECOND = " Fold the sheet. Iron the sheet flat."
QUESTION = "How do you properly fold a fitted sheet?"


def graded(text: str, *scores: float, latent: int = 3, seed: int = 1) -> Graded:
    """A reply of one token a word, ended by a special token; its attempts stand around the restart."""
    trial = Trial(
        model="tiny", weights="w", meaning="", prompt=QUESTION, prompt_format="clean", seed=seed, sampling=Sampling(0.6, 1.0, 1.0, 128),
        ops=(Op("add", latent, 9.0, 3, "tiny-l3"),), question=QUESTION, latent=Latent(latent, "grit"), boost=9.0, threshold=9.0,
    )  # fmt: skip
    first, _, second = text.partition(RESTART)
    spots = [(0, len(first)), (len(first) + len(RESTART), len(text))] if second else [(0, len(first))]
    attempts = tuple(Attempt(score, text[a:b], a, b) for score, (a, b) in zip(scores, spots, strict=True))
    return Graded(Member(arm=BASELINE, model="tiny", scale="full", trial=trial), text, tuple(range(len(words(text)) + 1)), attempts)


def words(text: str) -> list[str]:
    pieces = text.split(" ")
    return [pieces[0], *(f" {piece}" for piece in pieces[1:])]


def spans(text: str) -> list[list[int]]:
    found, at = [], 0
    for word in words(text):
        found.append([at, at + len(word)])
        at += len(word)
    return [*found, [at, at]]


def test_a_beginning_is_the_tokens_that_end_within_the_cut_and_has_no_restart() -> None:
    one = graded(STRAYED + RESTART + SECOND, 5, 90)
    found = cuts(one, spans(one.text), 10, (1, 2, 3, 9), sentences=True)
    assert {name: (begun.tokens, begun.text) for name, begun in found.items()} == {
        "10": ((0, 1), "Claw the"),
        "20": ((0, 1, 2, 3), "Claw the grit. Claw"),
        "30": ((0, 1, 2, 3, 4, 5, 6), "Claw the grit. Claw the bag of"),
        "sentence": ((0, 1, 2), "Claw the grit."),
    }
    assert limit(one) == len(STRAYED)


def test_only_low_first_attempts_are_begun_with_and_few_of_a_latent() -> None:
    low, high, short = graded(STRAYED, 5), graded(STRAYED, 40), graded("Claw." + RESTART + SECOND, 5, 90)
    some = [high, short, low, replace(low, member=replace(low.member, trial=replace(low.member.trial, seed=2)))]
    assert off_topic(some, below=30, at_least=10, per_latent=1) == [low]
    assert episodes([low, high, short, short], 1) == [short]
    with pytest.raises(DataError, match="none of 2 graded replies ended in a correction"):
        episodes([low, high], 1)


def test_every_cut_is_continued_under_every_condition_and_held_against_its_pair() -> None:
    one = graded(STRAYED, 5)
    begun = by_cut([one], [spans(STRAYED)], 10, (1, 2), sentences=True)
    members = detection("exp11", begun, [Condition("on", lambda trial: trial), Condition("off", unsteered, "on")])
    assert [(m.arm.name, m.arm.level, m.arm.against) for m in members] == [
        ("on-10", 10, ""), ("off-10", 10, "exp11/on-10"), ("on-20", 20, ""), ("off-20", 20, "exp11/on-20"),
        ("on-sentence", None, ""), ("off-sentence", None, "exp11/on-sentence"),
    ]  # fmt: skip
    on, off = members[0].trial, members[1].trial
    assert (on.prefill, on.ops != (), off.prefill, off.ops) == ((0, 1), True, (0, 1), ())
    assert {m.trial.seed for m in members} == {one.member.trial.seed}
    assert len({m.trial.id for m in members}) == len(members)


def test_matched_prefixes_are_equally_long_and_share_their_new_seeds() -> None:
    params = load("tiny")
    episode, answer = graded(STRAYED + RESTART + SECOND, 5, 90), graded(SECOND[1:] + " Then smooth the sheet out.", 99)
    answered = (replace(answer, member=episode.member), spans(answer.text))
    members = matched(params, "exp12", [(episode, spans(episode.text))], [answered], tokens=7, draws=2)
    by_arm = {name: [m.trial for m in members if m.arm.name == name] for name in ("own", "on-topic", "shuffled", "none")}
    own, on_topic, mixed, none = by_arm.values()
    assert own[0].prefill_text.startswith(" Wait, that is")
    assert on_topic[0].prefill_text.startswith("Fold the sheet. Iron")
    assert {len(trial.prefill) for trial in (*own, *on_topic, *mixed)} == {7}
    assert sorted(mixed[0].prefill) == sorted(on_topic[0].prefill)
    assert mixed[0].prefill != on_topic[0].prefill
    assert {trial.prefill for trial in none} == {()}
    seeds = [[trial.seed for trial in some] for some in by_arm.values()]
    assert all(some == seeds[0] for some in seeds)
    assert len({*seeds[0], episode.member.trial.seed}) == 3
    assert matched(params, "exp12", [(episode, spans(episode.text))], [answered], tokens=16, draws=2) == []
    assert corrective(graded(STRAYED, 5), spans(STRAYED), 2) is None
    assert opening(answer, spans(answer.text), 99) is None
    assert shuffled(params, answer, spans(answer.text), 4) == shuffled(params, answer, spans(answer.text), 4)


def test_tokens_are_the_identity_of_a_beginning_and_none_is_what_it_was() -> None:
    trial = graded(STRAYED, 5).member.trial
    same = replace(trial, prefill=(1, 2), prefill_text="Claw the")
    assert replace(same, prefill_text="").id == same.id
    assert len({trial.id, same.id, replace(trial, prefill=(12,)).id, replace(trial, prefill=(2, 1)).id}) == 4
    assert trial.id == "5d1875a8d36ad05e81f78a6bf1934841"  # as it was while beginnings were text


def test_what_a_trial_is_begun_with_and_what_its_ops_have_beside_is_stored(tmp_path: Path) -> None:
    member = graded(STRAYED, 5).member
    ramp = Intervention("add", 3, 9.0, 3, "tiny-l3", scope="generated", schedule=((0, 0.0), (8, 1.0)))
    trial = replace(member.trial, prefill=(1, 2), prefill_text="Claw the", ops=(ramp,))
    store = Store(tmp_path)
    store.put_members([member, replace(member, trial=trial)])
    rows = {row["trial_id"]: row for row in store.sql("from trials").to_pylist()}
    plain, told = rows[member.trial.id], rows[trial.id]
    assert (plain["prefill"], plain["prefill_ids"], plain["op_details"]) == ("", None, None)
    assert (told["prefill"], told["prefill_ids"]) == ("Claw the", [1, 2])
    assert told["op_details"] == '[{"scope":"generated","schedule":[[0,0.0],[8,1.0]],"shape":"linear","when":null}]'
    assert told["ops"] == plain["ops"]


@pytest.mark.parametrize(
    ("text", "opened"),
    [(RESTART + SECOND, True), (f" bag.{RESTART}{SECOND}", False), (SECOND, False), ("", False), (" the" + RESTART, True)],
)
def test_a_continuation_that_opens_with_a_restart_is_told(text: str, opened: bool) -> None:
    assert opens(text) is opened
