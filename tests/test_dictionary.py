"""An SAE of one's own: the model's text, SAELens' training, its measures; on the shipped model, with the real engine."""

import json
import os
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from esr import dictionary
from esr.command.sae import part
from esr.dictionary import corpus, recipe_of, training
from esr.dictionary.corpus import Written
from esr.dictionary.rows import Rows
from esr.engine import Engine
from esr.engine.fake import FakeEngine
from esr.errors import DataError, ParamsError
from esr.params import HOME, RecipeParams, load
from esr.prompts import evaluation
from esr.sae import folder
from esr.types import Sampling

MAKE = """
import sys
from pathlib import Path
from esr import dictionary
from esr.params import RecipeParams, load

def main():
    params = load()
    recipe = RecipeParams(replies=1, every=60, max_tokens=24, held_out=0.2, k=12, steps=100, batch=128, lr=1e-3, pool=1024, seed=1)
    sae = params.sae("tiny-l3").model_copy(update={"recipe": recipe, "d_sae": 256, "repo": sys.argv[1]})
    params = params.model_copy(update={"saes": {**params.saes, "tiny-l3": sae}})
    say, root = lambda said: print(said, flush=True), Path(sys.argv[2])
    if "rows" in sys.argv:
        dictionary.write(params, "tiny", root, "vllm", say, (0, 1), rows=True)
    dictionary.make(params, "tiny", root, say=say)

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_an_sae_is_made_measured_and_put_in_its_place_and_the_text_is_kept(tmp_path: Path) -> None:
    (tmp_path / "make.py").write_text(MAKE)
    place, root = tmp_path / "sae", tmp_path / "store"
    words = [sys.executable, str(tmp_path / "make.py"), str(place), str(root)]
    env = os.environ | {"PYTHONPATH": str(HOME)}
    done = subprocess.run(words, cwd=HOME, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    sae = folder.load(place, name="made")
    assert (sae.d_in, sae.d_sae, sae.layer, sae.activation) == (192, 256, 3, "jumprelu")
    card = json.loads((place / "card.json").read_text())
    found = card["quality"]
    assert 0.5 < found["explained_variance"] < 1
    assert found["loss_zeroed"] > 2 * found["loss_spliced"]
    assert 0.5 < found["loss_recovered"] < 1.1
    assert found["l0"] < 64
    assert card["text"]["replies"] == card["text"]["prompts"] > 50
    assert "training: step 95 of 100" in done.stdout
    (kept,) = root.glob("dictionaries/tiny-*/*.npz")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".sae")] == []
    before = kept.stat().st_mtime_ns
    again = subprocess.run([*words, "rows"], cwd=HOME, env=env, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr[-3000:]
    assert kept.stat().st_mtime_ns == before, "text that is there is not generated again"
    (rows,) = kept.parent.glob("*.npy")
    assert rows.name == "00000.layer3.npy"
    assert np.load(rows, mmap_mode="r").shape[0] > card["text"]["tokens"]
    assert json.loads((place / "card.json").read_text())["quality"] == pytest.approx(found, rel=1e-3), "the same rows, kept or read"


def test_replies_come_back_as_they_were_kept(tmp_path: Path) -> None:
    replies = [Written((1, 2), (3, 4, 5)), Written((1,), ()), Written((1, 9, 9), (70000,))]
    corpus._write(tmp_path / "00000.npz", replies)
    assert corpus._read(tmp_path / "00000.npz") == replies


def test_processes_that_share_the_text_write_each_batch_once_and_the_whole_finds_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "BATCH", 16)
    params, said = load(), list[str]()
    recipe = RecipeParams(replies=2, every=60, max_tokens=24, held_out=0.2, k=12, steps=1, batch=128, lr=1e-3, pool=1024, seed=1)
    engine = FakeEngine.open(params, "tiny")
    for third in ((1, 3), (0, 3), (2, 3)):
        corpus.made(engine, params, "tiny", recipe, tmp_path, said.append, third)
        written = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("dictionaries/*/*.npz")}
        assert len(written) == len(said), "a batch is written once"
    engine.close()
    whole = corpus.made(engine, params, "tiny", recipe, tmp_path, said.append)
    assert len(written) == whole.batches > 3
    assert {path.name: path.stat().st_mtime_ns for path in whole.folder.glob("*.npz")} == written
    assert whole.tokens == sum(len(one.ids) for number in range(whole.batches) for one in whole.batch(number))


def test_nothing_is_trained_where_nothing_is_held_out_to_measure_by(tmp_path: Path) -> None:
    params = load()
    recipe = RecipeParams(replies=1, every=400, max_tokens=24, held_out=0.02, k=12, steps=1, batch=128, lr=1e-3, pool=1024, seed=1)
    sae = params.sae("tiny-l3").model_copy(update={"recipe": recipe, "repo": str(tmp_path / "sae")})
    params = params.model_copy(update={"saes": {**params.saes, "tiny-l3": sae}})
    with pytest.raises(DataError, match="of 10 prompts none is held out"):
        dictionary.make(params, "tiny", tmp_path, "fake")
    assert not (tmp_path / "sae").exists()


def test_rows_that_were_kept_are_taken_without_the_engine(tmp_path: Path) -> None:
    replies = [Written((1, 2), (3, 4)), Written((1, 5), (6,)), Written((1, 7), ()), Written((1, 8, 9), (3,))]
    corpus._write(tmp_path / "00000.npz", replies)
    kept = torch.arange(9).repeat(2, 1).T.half()  # of 3, 2, 1 and 3 tokens after the one that all prompts begin with
    kept[0] = 60000.0
    np.save(tmp_path / "00000.layer3.npy", kept.numpy())
    text = corpus.Corpus(tmp_path, batches=1, replies=4, tokens=4, prompts=4, held=frozenset({1}))
    rows = Rows(cast(Engine, None), text, 3, Sampling(temperature=1.0, top_p=1.0, repetition_penalty=1.0, max_tokens=1))
    vars(rows)["scale"] = (torch.zeros(2), 100.0)
    part = next(rows.training(0))
    assert sorted(part[:, 0].tolist()) == [1, 2, 6, 7, 8], "neither the outsized one, nor what is held out, nor an empty reply"


def test_a_part_is_counted_from_one() -> None:
    assert part("1/1") == (0, 1)
    assert part("2/4") == (1, 4)
    for wrong in ("0/4", "5/4", "2", "a/b", "1/0"):
        with pytest.raises(ArgumentTypeError, match="the second of four is 2/4"):
            part(wrong)


def test_batches_hold_every_row_of_the_pool_mixed() -> None:
    parts = (torch.full((10, 1), float(n)) for n in range(10_000))
    batches = training.shuffled(parts, batch=16, pool=400, seed=0)
    first = [next(batches).flatten().tolist() for _ in range(12)]
    assert all(len(batch) == 16 for batch in first)
    assert np.mean([len(set(batch)) for batch in first]) > 10, "rows of one reply fall apart"
    seen = [value for batch in first for value in batch]
    assert max(seen.count(value) for value in set(seen)) <= 10, "no row is taken twice"


def test_no_evaluation_question_is_asked() -> None:
    from esr import prompts

    asked = corpus.asked([*prompts.lines("label_requests"), *prompts.lines("sae_requests")], prompts.lines("label_subjects"))
    assert len(asked) == len(set(asked)) > 3000
    assert not set(asked) & set(evaluation())


def test_a_model_whose_sae_is_another_makers_is_one_sentence() -> None:
    with pytest.raises(ParamsError, match="has no recipe"):
        recipe_of(load(), "70b")
