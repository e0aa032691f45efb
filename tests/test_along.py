"""Directions that are no latents: made, calibrated along, told of, refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flow_runs import place
from safetensors.numpy import save_file

from esr import params
from esr.errors import DataError, ParamsError
from esr.organism import contrast
from esr.organism.recipe import Build
from esr.params import DirectionsParams, Search
from esr.study import along
from esr.study.along import Made
from esr.study.plan import confined, firsts, held, plan, ramped, until
from esr.study.study import Study
from esr.types import Arm, Member, Op

MADE = Made("moods", (2, 3), np.array([[[3.0, 4.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]]], np.float32), ("joy", "gloom"), 10.0)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    where = place(tmp_path / "place")
    for name, value in where.env.items():
        monkeypatch.setenv(name, value)
    return Study.of("tiny", "smoke")


def with_set(study: Study, **block: object) -> Study:
    told = {"name": "moods", "layers": (3,), "search": Search(lower=0, upper=2, prior_mean=1, prior_std=0.5), **block}
    sets = {"moods": DirectionsParams.model_validate(told)}
    return replace(study, params=study.params.model_copy(update={"directions": sets}))


def planned(study: Study) -> list[Member]:
    return plan(
        study.params, arm=Arm("exp13", "steered"), model="tiny", weights="w", meaning=study.meaning, latents=study.labels[:2],
        thresholds={0: 6.0, 1: 8.0}, questions=["Why is that?"], trials_per_latent=1,
    )  # fmt: skip


def test_the_shipped_texts_are_those_of_the_rule() -> None:
    shipped = params.HOME / "esr/organism/data/contrast.tsv"
    assert shipped.read_text(encoding="utf-8") == contrast.table(Build().seed)
    assert len(contrast.themes()) == 200


def test_a_direction_is_its_subjects_mean_less_that_of_the_others(study: Study, tmp_path: Path) -> None:
    table = tmp_path / "texts.tsv"
    table.write_text("subject\tprompt\ttext\na\tTell me.\twait right\na\tTell me.\ttopic\nb\tTell me.\twait\nc\tTell me of c.\t\n")
    made = along.directions(with_set(study, texts=str(table)), "moods")
    token = {word: study.engine.render("Tell me.", prefill=word)[-1] for word in ("wait", " right", "topic")}

    def stream(*ids: int) -> np.ndarray:
        rows = [np.random.default_rng(i).standard_normal(192) * 100 / np.sqrt(192) for i in ids]
        return np.asarray(rows, np.float32).mean(0, dtype=np.float64)

    a = (stream(token["wait"], token[" right"]) + stream(token["topic"])) / 2
    b, c = stream(token["wait"]), stream(*study.engine.render("Tell me of c."))
    want = a - (b + c) / 2
    assert made.names == ("a", "b", "c")
    assert np.allclose(made.vectors[0, 0], want / np.linalg.norm(want), atol=1e-6)
    assert np.allclose(made.lengths, 1)
    assert made.norm == pytest.approx(100, rel=0.1)


def test_a_study_along_a_set_steers_names_and_means_the_set(study: Study, tmp_path: Path) -> None:
    save_file(
        {f"layer.{n}": rows for n, rows in zip((2, 3), np.repeat(MADE.vectors, 96, axis=2), strict=True)},
        tmp_path / "moods.safetensors",
    )
    (tmp_path / "moods.csv").write_text("index_in_sae,label\n0,joy\n")
    base = with_set(study, file=str(tmp_path / "moods.safetensors"), labels=str(tmp_path / "moods.csv"), layers=(2, 3))
    made = along.directions(base, "moods")
    there = along.along(base, made)
    assert [latent.label for latent in there.labels] == ["joy", "direction 1"]
    assert there.params.model("tiny").search.upper == pytest.approx(2 * made.norm / np.median(made.lengths))
    assert (there.concreteness, there.params.protocol.relevance) == ("off", "off")
    told = json.loads(there.meaning)["saes"]
    assert told == json.loads(base.meaning)["saes"] | {"moods": made.sha256[:16]}
    trial = planned(there)[0].trial
    assert trial.ops == (Op("add", 0, 6.0, 2, "moods"), Op("add", 0, 6.0, 3, "moods"))
    assert json.loads(trial.meant)["saes"] == {"moods": made.sha256[:16]}
    assert json.loads((there.store.root / "directions" / f"moods-{made.sha256[:16]}.json").read_text())["norm"] == made.norm
    assert there.engine.load_directions("moods", along.keep(there.store.root, made)) == made.sha256
    other = replace(made, vectors=made.vectors * 2)
    assert replace(trial, meaning=along.along(base, other).meaning).id != trial.id
    quiet = replace(trial, ops=())
    assert replace(quiet, meaning=base.meaning).id == quiet.id


def test_what_is_wrong_with_a_set_is_said(study: Study, tmp_path: Path) -> None:
    save_file({"layer.3": np.ones((2, 192), np.float32)}, tmp_path / "one.safetensors")
    with pytest.raises(DataError, match="has blocks 3, not 2"):
        along.directions(with_set(study, file=str(tmp_path / "one.safetensors"), layers=(2, 3)), "moods")
    with pytest.raises(DataError, match="in the store or the checkout"):
        along.directions(with_set(study, file="nowhere.safetensors"), "moods")
    with pytest.raises(ValueError, match="either texts or a file"):
        with_set(study, file="a", texts="b")
    with pytest.raises(ParamsError, match="no set of directions 'mods'"):
        along.directions(with_set(study, texts="b"), "mods")
    (tmp_path / "bare.tsv").write_text("subject\ttext\n")
    with pytest.raises(DataError, match="it needs subject, prompt, text"):
        along.directions(with_set(study, texts=str(tmp_path / "bare.tsv")), "moods")


def test_a_dose_is_told_in_lengths_of_the_stream_and_refused_above_a_bound(study: Study) -> None:
    assert MADE.dose(0, 6.0) == 3.0
    assert MADE.dose(1, 6.0) == pytest.approx(1.2)
    there = along.along(with_set(study, file="x", layers=(2, 3), max_dose=2.0), MADE)
    members = planned(there)
    with pytest.raises(DataError, match=r"'joy' would be added at 3 lengths .*max_dose is 2"):
        along.check_doses(there.params, MADE, members)
    along.check_doses(there.params, MADE, members[1:])


def test_modes_hold_or_take_out_what_is_added(study: Study) -> None:
    trial = planned(along.along(with_set(study, file="x", layers=(2, 3)), MADE))[0].trial
    clamped, out = along.in_mode(MADE, "clamp_projection")(trial), along.in_mode(MADE, "project_out")(trial)
    assert clamped.ops == (Op("clamp_projection", 0, 30.0, 2, "moods"), Op("clamp_projection", 0, 30.0, 3, "moods"))
    assert out.ops == (Op("project_out", 0, 1.0, 2, "moods"), Op("project_out", 0, 1.0, 3, "moods"))
    assert (clamped.boost, out.boost) == (6.0, 0.0)


def test_where_steering_acts_is_a_change_of_a_trial(study: Study) -> None:
    members = planned(along.along(with_set(study, file="x", layers=(3,)), replace(MADE, layers=(3,), vectors=MADE.vectors[:1])))
    trial = members[0].trial
    assert confined("generated")(trial).scope == "generated"
    [ramp] = ramped(((0, 0.0), (8, 1.0)))(trial).ops
    assert [ramp.value * ramp.factor(at) for at in (-3, 0, 4, 99)] == [0, 0, 3, 6]
    on, off = until(17)(trial).ops
    assert (on, off.value, off.scope) == (trial.ops[0], -6.0, "generated after 17")
    assert (
        len({change(trial).id for change in (confined("all"), confined("generated"), ramped(((0, 0.5),)), until(17), until(18))})
        == 5
    )
    assert firsts([*members, *members], 1) == members
    assert {one.arm.against for one in held(members, "exp13/steered")} == {"exp13/steered"}
