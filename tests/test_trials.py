"""Plans, ladders and replays: paired, without doubles, from one seed."""

import json
from collections import Counter, defaultdict
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esr import params, prompts
from esr.engine.intervention import Condition, Intervention
from esr.errors import DataError
from esr.store import rows
from esr.study.plan import (
    ablated,
    absolute_levels,
    boosted,
    clamp_ops,
    ladder,
    plan,
    relative_levels,
    replay,
    search_step,
    steer_op,
    suffixed,
    unsteered,
)
from esr.types import BASELINE, Arm, Latent, Op, Trial

P = params.load("70b")
LATENTS = [Latent(7580, "body positions"), Latent(3, "rain"), Latent(50, "ships")]
THRESHOLDS = {7580: 9.4, 3: 5.0, 50: 12.0}
QUESTIONS = prompts.evaluation()


def meaning(chat: str = "c", room: int = 4000, **saes: str) -> str:
    return json.dumps({"chat": chat, "room": room, "saes": {"goodfire-70b-l50": "s", **saes}})


M = meaning()


def base(n: int = 5, p: params.Params = P, latents: list[Latent] = LATENTS, **over: object):
    known = {"arm": BASELINE, "model": "70b", "weights": "w", "meaning": M, "latents": latents, "thresholds": THRESHOLDS}
    return plan(p, **{**known, "questions": QUESTIONS, "trials_per_latent": n, **over})


def test_each_latent_is_steered_at_its_own_threshold():
    for member in base():
        trial = member.trial
        assert trial.boost == trial.threshold == THRESHOLDS[trial.latent.index]
        assert trial.ops == (Op("add", trial.latent.index, trial.boost, 33, "goodfire-70b-l50"),)
        assert trial.sampling == P.sampling("70b")
        assert (member.arm.key, member.model, member.scale) == ("exp01/baseline", "70b", "full")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 100))
def test_questions_do_not_repeat_before_all_were_asked(n):
    asked = defaultdict(list)
    for member in base(n):
        asked[member.trial.latent].append(member.trial.question)
    for questions in asked.values():
        assert len(questions) == n
        for start in range(0, n, len(QUESTIONS)):
            once = questions[start : start + len(QUESTIONS)]
            assert len(set(once)) == len(once)
        assert max(Counter(questions).values()) - min(Counter(questions).get(q, 0) for q in QUESTIONS) <= 1


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50))
def test_a_longer_plan_begins_with_the_shorter_one(a, b):
    short, long = sorted((a, b))
    only = [LATENTS[0]]
    assert [m.trial.id for m in base(short, latents=only)] == [m.trial.id for m in base(long, latents=only)][:short]


def test_the_plan_of_a_latent_does_not_depend_on_its_neighbours():
    alone = {m.trial.id for m in base(latents=[LATENTS[1]])}
    assert alone < {m.trial.id for m in base()}


def test_the_same_seed_gives_the_same_plan_and_another_seed_another():
    assert base() == base()
    other = base(p=P.model_copy(update={"seed": 1}))
    assert not {m.trial.id for m in base()} & {m.trial.id for m in other}


def test_a_latent_without_a_threshold_is_named():
    with pytest.raises(DataError, match=r"\[99\]"):
        base(latents=[Latent(99)])


def pairing(trial: Trial) -> tuple[int, str, int]:
    return trial.latent.index, trial.question, trial.seed


CHANGES = {
    "no-steering": unsteered,
    "detectors": ablated(P, "70b", [9, 4]),
    "self_monitor": suffixed("self_monitor"),
    "half": boosted(P, "70b", lambda trial: trial.boost / 2),
}


@pytest.mark.parametrize("arm", CHANGES)
def test_a_replay_keeps_latent_question_and_seed_and_is_another_trial(arm):
    replayed = replay(base(), Arm("expXX", arm), CHANGES[arm])
    for before, after in zip(base(), replayed, strict=True):
        assert pairing(before.trial) == pairing(after.trial)
        assert before.trial.id != after.trial.id
        assert after.arm.key == f"expXX/{arm}"
        changed = {f.name for f in fields(Trial) if getattr(before.trial, f.name) != getattr(after.trial, f.name)}
        assert changed <= {"ops", "boost", "prompt"}


def test_an_unsteered_replay_has_no_ops_and_keeps_the_distractor_for_the_judge():
    trial = unsteered(base()[0].trial)
    assert (trial.ops, trial.boost, trial.threshold, trial.latent.label) == ((), 0.0, 9.4, "body positions")


def test_unsteered_trials_of_two_latents_that_meet_are_one_generation():
    a, b = (unsteered(replace(m.trial, question="q", prompt="q", seed=1)) for m in (base(1)[0], base(1)[1]))
    assert a.id == b.id
    assert a.latent != b.latent


def test_ablation_clamps_beside_the_steering_at_the_ablation_layer():
    p = P.model_copy(update={"models": {**P.models, "70b": P.models["70b"].model_copy(update={"ablate_layer": 50})}})
    ops = ablated(p, "70b", [9, 4, 9])(base()[0].trial).ops
    assert ops == (*base()[0].trial.ops, *(Op("clamp", i, 0.0, 50, "goodfire-70b-l50") for i in (4, 9)))
    assert clamp_ops(p, "70b", []) == ()


def test_a_suffix_follows_the_question_after_one_space_and_names_the_latent():
    trial = suffixed("ignore_latent_label")(base()[0].trial)
    assert trial.prompt == f"{trial.question} You are being distracted with body positions. Ignore it."


def test_absolute_levels_are_the_authors_clipped_and_without_doubles():
    levels = absolute_levels([4.0, 6.0, 20.0], 10, 3.0)
    mean, std = 10.0, np.std([4.0, 6.0, 20.0])
    raw = np.clip(np.linspace(mean - 3 * std, mean + 3 * std, 10), 0, None)
    assert (levels.mean, levels.std, levels.n) == (mean, pytest.approx(std), 3)
    assert levels.values == pytest.approx(sorted(set(raw)))
    assert levels.values[0] == 0
    assert len(levels.values) == 8  # the three lowest meet at zero


def test_a_ladder_replays_every_trial_at_every_level():
    levels = absolute_levels(THRESHOLDS.values(), 5, 2.0)
    members = ladder(P, base(), "exp02", levels)
    assert len(members) == len(levels.values) * len(base())
    for member in members:
        assert member.trial.boost == member.arm.level
        assert member.trial.threshold == THRESHOLDS[member.trial.latent.index]
    assert {pairing(m.trial) for m in members} == {pairing(m.trial) for m in base()}


def test_relative_levels_are_multiples_of_each_latents_own_threshold():
    members = ladder(P, base(), "exp02", relative_levels(THRESHOLDS.values(), [1.0, 0.0, 2.0, 1.0]))
    assert [(a.name, a.kind, a.level, a.order) for a in dict.fromkeys(m.arm for m in members)] == [
        (f"relative-{i}", "relative", float(i), i) for i in range(3)
    ]
    for member in members:
        multiple = member.arm.level
        assert member.trial.boost == pytest.approx(multiple * THRESHOLDS[member.trial.latent.index])
        assert bool(member.trial.ops) == (multiple > 0)
    at_one = {m.trial.id for m in members if m.arm.name == "relative-1"}
    assert at_one == {m.trial.id for m in base()}


def test_levels_that_differ_by_the_last_bit_are_one():
    assert absolute_levels([3.0, 3.0 + 1e-12], 10, 3.0).values == (3.0,)


def test_a_search_step_draws_afresh_each_step_with_the_short_budget():
    asks = [(LATENTS[0], 7.5), (LATENTS[1], 3.0)]
    step = [search_step(P, model="70b", weights="w", meaning=M, asks=asks, step=i, questions=QUESTIONS) for i in range(2)]
    assert len(step[0]) == 2 * P.protocol.samples_per_step
    assert {m.trial.sampling.max_tokens for m in step[0]} == {P.protocol.search_max_tokens}
    assert not {m.trial.id for m in step[0]} & {m.trial.id for m in step[1]}
    verify = search_step(P, model="70b", weights="w", meaning=M, asks=asks, step="verify", questions=QUESTIONS, samples=3)
    assert len(verify) == 6


def test_a_boost_of_zero_is_no_intervention():
    assert steer_op(P, "70b", 3, 0.0) == ()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_field_that_determines_the_reply_is_in_the_id(data):
    trial = base()[0].trial
    changes = {
        "model": "8b",
        "weights": "other",
        "meaning": meaning(chat="other"),
        "prompt": trial.prompt + "!",
        "prompt_format": "double_header",
        "prefill": (5, 7),
        "seed": trial.seed + 1,
        "sampling": replace(trial.sampling, temperature=0.7),
        "ops": (replace(trial.ops[0], value=9.5),),
        "scope": "generated",
    }
    silent = {"question": "x", "latent": Latent(1), "boost": 3.0, "threshold": 1.0, "prefill_text": "So"}
    name = data.draw(st.sampled_from(sorted(changes)))
    assert replace(trial, **{name: changes[name]}).id != trial.id
    quiet = data.draw(st.sampled_from(sorted(silent)))
    assert replace(trial, **{quiet: silent[quiet]}).id == trial.id
    assert set(changes) | set(silent) == {f.name for f in fields(Trial)}


def test_the_order_of_ops_does_not_make_another_trial():
    trial = ablated(P, "70b", [9, 4])(base()[0].trial)
    assert replace(trial, ops=trial.ops[::-1]).id == trial.id


SAE = {"goodfire-70b-l50": "shuffled"}


def test_a_steered_trial_rests_on_the_sae_that_its_ops_name_and_an_unsteered_one_on_none():
    for change in (lambda trial: trial, ablated(P, "70b", [9, 4]), lambda trial: ablated(P, "70b", [9])(unsteered(trial))):
        trial = change(base()[0].trial)
        assert replace(trial, meaning=meaning(**SAE)).id != trial.id
        assert json.loads(trial.meant) == {"chat": "c", "saes": {"goodfire-70b-l50": "s"}}
    quiet = unsteered(base()[0].trial)
    assert json.loads(quiet.meant) == {"chat": "c"}
    assert replace(quiet, meaning=meaning(**SAE)).id == quiet.id == replace(quiet, meaning=meaning(other="o")).id
    zero = boosted(P, "70b", lambda _: 0.0)(base()[0].trial)
    assert zero.id == quiet.id


def test_the_models_length_is_meant_only_where_it_could_cut_the_reply():
    trial = base()[0].trial
    fits = len(trial.prompt.encode()) + trial.sampling.max_tokens
    assert replace(trial, meaning=meaning(room=fits)).id == trial.id
    cut = {replace(trial, meaning=meaning(room=fits - n)).id for n in (1, 2)}
    assert len(cut | {trial.id}) == 3
    umlauts = replace(trial, prompt="ü" * 2000)  # one character may be several tokens
    assert replace(umlauts, meaning=meaning(room=4100)).id != replace(umlauts, meaning=meaning(room=4200)).id


def test_what_a_trial_is_said_to_mean_gives_it_the_same_id():
    for trial in (base()[0].trial, unsteered(base()[0].trial), replace(base()[0].trial, prompt="x" * 4000)):
        assert replace(trial, meaning=trial.meant).id == trial.id


def test_an_op_on_an_sae_that_the_meaning_does_not_tell_of_is_refused():
    with pytest.raises(DataError, match="goodfire-70b-l50"):
        _ = replace(base()[0].trial, meaning=json.dumps({"chat": "c", "room": 1, "saes": {}})).id


def test_what_an_op_has_of_its_own_is_part_of_the_identity_and_is_stored():
    trial = base(1)[0].trial
    op = trial.ops[0]
    plain = Intervention(op.kind, op.latent, op.value, op.layer, op.sae)
    ways = [{"scope": "generated"}, {"schedule": ((0, 1.0), (9, 0.0))}, {"when": Condition(op.sae, 3, 0.5)}]
    others = [replace(trial, ops=(replace(plain, **way),)) for way in ways]
    assert len({trial.id, *(other.id for other in others)}) == 4
    details = [json.loads(rows.trial(other)["op_details"])[0] for other in others]
    assert [detail["scope"] for detail in details] == ["generated", "", ""]
    assert details[1]["schedule"] == [[0, 1.0], [9, 0.0]]
    assert details[2]["when"] == {"sae": op.sae, "latent": 3, "above": 0.5}
    assert rows.trial(trial)["op_details"] is None
