"""Replies read again: on the real engine, on the tokens that were generated, and only what the store lacks."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from esr.engine import Capture
from esr.engine.hf import HfEngine
from esr.errors import DataError
from esr.params import load
from esr.store import Store
from esr.study import readings, regions, steer
from esr.study.regions import Marked
from esr.study.study import Study
from esr.types import Arm, Latent, Member, Op, Sampling, Trial

LATENTS = (12, 75, 300)
QUESTIONS = ("How do you make a good cup of coffee?", "Explain how to tie a necktie.", "How do you write a business plan?")


def member(i: int, scope: str = "all", ops: tuple[Op, ...] | None = None) -> Member:
    steered = (Op("add", 300, 60.0, 3, "tiny-l3"),) if ops is None else ops
    trial = Trial(
        model="tiny", weights="w", meaning="", prompt=QUESTIONS[i], prompt_format="clean", seed=i, question=QUESTIONS[i], ops=steered, scope=scope,
        sampling=Sampling(temperature=0.6, top_p=1.0, repetition_penalty=1.0, max_tokens=40), latent=Latent(300, "x"), boost=60.0,
    )  # fmt: skip
    return Member(arm=Arm("exp01", "baseline"), model="tiny", scale="full", trial=trial)


MEMBERS = [member(0), member(1, "generated"), member(2, ops=())]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("ESR_ENGINE", "fake")
    study = Study(load("tiny"), "tiny", Store(tmp_path))
    study.store.put_members(MEMBERS)
    steer.replies(study, [m.trial for m in MEMBERS])
    return study


def values(study: Study, m: Member, steering: str, selection: str) -> np.ndarray:
    """[latents, positions] from the store."""
    query = 'select latent, "position", "value" from token_activations where trial_id = ? and steering = ? and selection = ?'
    n = study.store.sql("select any_value(n_positions) as n from activations where trial_id = ?", [m.trial.id])["n"][0].as_py()
    out = np.zeros((len(LATENTS), n))
    for one in study.store.sql(query, [m.trial.id, steering, selection]).to_pylist():
        out[LATENTS.index(one["latent"]), one["position"]] = one["value"]
    return out


def test_what_was_read_is_not_read_again(fake: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    assert readings.listed(fake, MEMBERS[:2], LATENTS, steering="on", stage="before") == 2
    fake.close()
    opened = Study(fake.params, "tiny", fake.store)
    assert readings.listed(opened, MEMBERS[:2], [300, 75, 12, 12], steering="on", stage="before") == 0
    assert opened.opened is None, "nothing was to be read, so no engine was opened"
    assert readings.listed(opened, MEMBERS, LATENTS, steering="on", stage="before") == 1
    assert readings.listed(opened, MEMBERS, LATENTS, steering="off", stage="before") == 3
    assert readings.listed(opened, MEMBERS, LATENTS[:2], steering="on", stage="before") == 3, "another list is another reading"
    assert readings.listed(opened, MEMBERS, [], steering="on", stage="before") == 0
    told = [stage for stage in opened.progress.stages() if stage.name == readings.STAGE]
    assert told[0].done == told[0].total


def test_the_largest_of_each_token_are_of_the_reply_alone(fake: Study) -> None:
    readings.largest(fake, MEMBERS, 4, steering="on", stage="before")
    readings.distractors(fake, MEMBERS, steering="on", stage="after")
    rows = fake.store.sql(
        'select t.trial_id, "position", count(*) as n, min("value") as least, any_value(n_prompt_tokens) as first from token_activations t '
        "join replies using (trial_id) where selection = 'top-4' group by 1, 2"
    ).to_pylist()
    assert {row["n"] for row in rows} <= {1, 2, 3, 4}
    assert min(row["least"] for row in rows) > 0
    assert all(row["position"] >= row["first"] for row in rows)
    listed = fake.store.sql("select distinct listed from activations where selection = 'distractor'")["listed"].to_pylist()
    assert listed == [[300]]


def test_a_reply_that_cannot_be_read_as_it_was_generated_is_refused(fake: Study) -> None:
    with pytest.raises(DataError, match="has no reply with its tokens"):
        readings.listed(fake, [member(0, "prompt")], LATENTS, steering="on", stage="before")
    reply = {"token_ids": [1, 2], "n_prompt_tokens": 3}
    with pytest.raises(DataError, match="another tokenizer or chat rendering"):
        readings.request(fake.engine, MEMBERS[0].trial, reply, lambda trial, n: Capture(layer=3, mode="latents"), "on")


def test_marks_are_put_once_with_where_tokens_stand(fake: Study) -> None:
    trial = MEMBERS[0].trial.id
    marked = [Marked(trial, "rule/x", (("off-topic", 0, 10), ("on-topic", 10, -1)))]
    assert regions.mark(fake, marked) == 1
    assert regions.mark(fake, marked) == 0
    rows = fake.store.sql("select kind, char_start, char_end, token_start, token_end from regions order by place").to_pylist()
    assert [row["kind"] for row in rows] == ["prompt", "off-topic", "on-topic"]
    assert rows[0]["token_end"] == rows[1]["token_start"]
    assert rows[1]["token_end"] == rows[2]["token_start"]
    (told,) = fake.store.sql(
        "select text, char_starts, char_ends, len(token_ids) as n from tokens join replies using (trial_id)"
    ).to_pylist()
    assert len(told["char_starts"]) == told["n"]
    assert rows[2]["char_end"] == told["char_ends"][-1] == len(told["text"])


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ESR_ENGINE", raising=False)
        study = Study(load("tiny"), "tiny", Store(tmp_path_factory.mktemp("real")))
        yield study
        study.close()


@pytest.mark.slow
def test_a_reading_is_what_the_model_computed_when_it_generated_and_what_hf_computes(real: Study) -> None:
    """Values reach 100 here, so 1e-4 of the largest."""
    engine, reference = real.engine, HfEngine.open(real.params, "tiny")
    capture = Capture(layer=3, sae="tiny-l3", mode="latents", latents=LATENTS, stage="after")
    outputs = engine.generate([replace(steer.request(m.trial), capture=capture) for m in MEMBERS])
    real.store.put_members(MEMBERS)
    real.store.put_replies([steer.reply(m.trial, output) for m, output in zip(MEMBERS, outputs, strict=True)])
    for steering in ("on", "off"):
        assert readings.listed(real, MEMBERS, LATENTS, steering=steering, stage="after") == 3
    rows = real.store.sql("select trial_id, token_ids, n_prompt_tokens from replies").to_pylist()
    replies = {row["trial_id"]: row for row in rows}
    name = readings.list_name(LATENTS)
    for m, output in zip(MEMBERS, outputs, strict=True):
        assert output.reading is not None
        again = values(real, m, "on", name)
        assert again.shape[1] == len(output.reading.values)
        close = 1e-4 * max(1.0, float(np.abs(again).max()))
        assert np.abs(again - output.reading.values.T).max() < close, "the prefix read at once is the prefix generated"
        for steering in ("on", "off"):
            asked = readings.request(reference, m.trial, replies[m.trial.id], lambda trial, n: capture, steering)  # type: ignore[arg-type]  # a name of a protocol
            (wanted,) = reference.read([asked])
            assert np.abs(values(real, m, steering, name) - wanted.values.T).max() < close
    steered = MEMBERS[0]
    assert np.abs(values(real, steered, "on", name) - values(real, steered, "off", name)).max() > 1, "the protocols differ"
    assert (values(real, MEMBERS[2], "on", name) == values(real, MEMBERS[2], "off", name)).all()
