"""How long the stream and a boost are: measured once, told as doses, and what the engine's own numbers say."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flow_runs import place

from esr.engine.fake import NORM
from esr.experiment import Selection
from esr.params import load
from esr.prompts import evaluation
from esr.record.run import put_run
from esr.sae import open_sae
from esr.show import dosed
from esr.show.closing_table import Line, header, known, markdown, note
from esr.store import Store
from esr.store.clock import _machine
from esr.store.parcel import pack
from esr.study import norms
from esr.study.calibrate import Threshold
from esr.study.plan import confined, plan, replay, unsteered
from esr.study.study import Study
from esr.types import Arm, Latent, Member

LATENTS = (Latent(12, "one"), Latent(75, "other"))
FOUND = [
    Threshold(latent, boost, 0.0, 1.0, "converged", 0.3, None, ()) for latent, boost in zip(LATENTS, (50.0, 120.0), strict=True)
]


@contextmanager
def environment(**values: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    where = place(tmp_path / "place")
    with environment(**where.env):
        yield Study.of("tiny", "smoke")


def planned(study: Study) -> list[Member]:
    steered = plan(
        study.params, arm=Arm("exp90", "steered", against=""), model="tiny", weights=study.weights, meaning=study.meaning,
        latents=LATENTS, thresholds={one.latent.index: one.boost for one in FOUND}, questions=evaluation(), trials_per_latent=2,
    )  # fmt: skip
    return [
        *steered,
        *replay(steered, Arm("exp90", "late"), confined("generated")),
        *replay(steered, Arm("exp90", "quiet"), unsteered),
    ]


def doses(study: Study) -> dict[str, list[float | None]]:
    rows = study.store.sql("select arm, dose from doses order by arm, dose").to_pylist()
    return {arm: [row["dose"] for row in rows if row["arm"] == arm] for arm in ("steered", "late", "quiet")}


def test_a_dose_is_a_boosts_length_in_lengths_of_the_stream(study: Study) -> None:
    study.store.put_members(planned(study))
    assert doses(study)["steered"] == [None] * 4, "nothing has been measured"
    told = norms.measure(study, FOUND)
    assert (told.layer, told.scope, told.replies) == (3, "all", len(evaluation()))
    assert told.norm == pytest.approx(NORM, rel=0.05)
    found = doses(study)
    for arm in ("steered", "late"):
        assert found[arm] == pytest.approx([50 / told.norm] * 2 + [120 / told.norm] * 2, rel=1e-4)
    assert found["quiet"] == [0, 0, 0, 0]


def test_it_is_measured_once_also_of_further_latents(study: Study) -> None:
    where, told = Path(os.environ["ESR_FAKE_LOG"]), norms.measure(study, FOUND)
    generated = len(where.read_text().splitlines())
    study.close()
    again = replace(study)
    assert norms.measure(again, FOUND) == told
    assert again.opened is None, "nothing was to be measured"
    norms.measure(again, [*FOUND, replace(FOUND[0], latent=Latent(9, "third"))])
    assert len(where.read_text().splitlines()) == generated == len(evaluation())
    assert [row["latent"] for row in study.store.sql("select latent from lengths order by latent").to_pylist()] == [9, 12, 75]


def test_tables_pages_and_manifests_tell_it_where_it_was_measured(study: Study, tmp_path: Path) -> None:
    study.store.put_members(planned(study))
    chosen, keys = Selection("exp90", "tiny", "smoke", "lexical"), ["exp90/steered", "exp90/quiet"]
    bare = [Line(key, 0, None, dose=dosed.doses(study.store, chosen, keys).get(key)) for key in keys[:1]]
    assert not known(bare)
    assert "dose" not in markdown(bare).partition("\n")[0]
    assert "stream" not in note(study.store, chosen, bare)
    told = norms.measure(study, FOUND)
    lines = [Line(key, 0, None, dose=dosed.doses(study.store, chosen, keys).get(key)) for key in keys]
    [stream] = dosed.streams(study.store, chosen, keys)
    assert stream == {"layer": 3, "norm": told.norm, "tokens": told.tokens, "replies": told.replies}
    text = markdown(lines, note(study.store, chosen, lines))
    assert f"{85 / told.norm:.2f} ({50 / told.norm:.2f} to {120 / told.norm:.2f})" in text
    assert f"{told.norm:.4g} long after block 3 (median over {told.tokens:,} tokens of {told.replies} unsteered replies)" in text
    assert len(header(lines[0].shown, dose=True)) == len(lines[0].cells(dose=True)) == len(lines[0].cells()) + 1
    put_run(
        study.store, study.params, experiment="exp90", model="tiny", judges=[], engine=None, judge="lexical", started=_machine(), status="completed"
    )  # fmt: skip
    [row] = study.store.sql("select manifest from runs").to_pylist()
    assert [one["norm"] for one in json.loads(row["manifest"])["streams"]] == [told.norm]
    pack(study.store, "exp90", "tiny", tmp_path / "parcel")
    handed = Store(tmp_path / "parcel").sql("select count(*) filter (dose > 0) as n from doses").to_pylist()
    assert handed == [{"n": 8}]


def test_the_numbers_are_the_models_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tiny, by the reference engine: rows of the decoder as they are in the file, the stream as the model computes it."""
    monkeypatch.setattr(norms, "evaluation", lambda: evaluation()[:1])
    with environment(ESR_ENGINE="hf"):
        real = Study(load("tiny"), "tiny", Store(tmp_path))
        told = norms.measure(real, FOUND)
        rows = open_sae(real.params, "tiny-l3").W_dec[[12, 75]].norm(dim=1).tolist()
        measured = real.store.sql("select length from lengths order by latent")["length"].to_pylist()
        assert measured == pytest.approx(rows, rel=1e-4)
        replies = real.store.sql("select token_ids, n_prompt_tokens from replies").to_pylist()
        assert told.tokens == sum(len(row["token_ids"]) - 1 + row["n_prompt_tokens"] for row in replies)
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(real.spec.hub, dtype=torch.float32)
        lengths = []
        for trial in norms._unsteered(real):
            (ids,) = real.store.sql("select token_ids from replies where trial_id = ?", [trial.id])["token_ids"].to_pylist()
            whole = [*real.engine.render(trial.prompt), *ids[:-1]]
            with torch.no_grad():
                states = model.model(torch.tensor([whole]), output_hidden_states=True).hidden_states[4]
            lengths.append(states[0].norm(dim=-1).numpy())
        assert told.norm == pytest.approx(float(np.median(np.concatenate(lengths))), rel=1e-3)
        real.close()
