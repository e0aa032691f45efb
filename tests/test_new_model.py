"""A new model: its block from a folder, what it may leave out, what is said when something is missing, and a run of it."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from flow_runs import Place, place, summary

from esr import params
from esr.errors import JudgeError, ParamsError
from esr.params.__main__ import main
from esr.params.new_model import Draft
from esr.store import Store
from esr.study.study import Study

TREE: dict[str, Any] = yaml.safe_load(params.path().read_text())
TINY = {"hub": "esr/organism/data/tiny", "family": "tiny", "layers": 6, "width": 192, "sae": "tiny-l3", "search": {"upper": 240}}


def with_model(**block: Any) -> dict[str, Any]:
    tree = copy.deepcopy(TREE)
    tree["models"]["mine"] = block
    return tree


def refused(tree: dict[str, Any], model: str = "mine") -> str:
    with pytest.raises(ParamsError) as caught:
        params.parse(tree, model, "smoke")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_six_keys_make_a_model_and_the_rest_follows() -> None:
    m = params.parse(with_model(**TINY), "mine", "smoke").model("mine")
    assert (m.steer_layer, m.read_layer, m.ablate_layer, m.revision) == (3, 3, 3, "local")
    assert (m.search.lower, m.search.prior_mean, m.search.prior_std) == (0, 120, 120)
    assert (m.dtype, m.max_model_len, m.repetition_penalty, m.judge) == ("bfloat16", 4096, 1.1, "haiku-4.5")


def test_what_follows_follows_the_overlays() -> None:
    tree = with_model(**TINY)
    tree["presets"]["v1"] = {"models": {"mine": {"repetition_penalty": 1.3, "search": {"prior_mean": 9.0}, "steer_layer": 2,
                                                  "allow_layer_mismatch": True}}}  # fmt: skip
    m = params.parse(tree, "mine", "full").model("mine")
    assert (m.repetition_penalty, m.search.prior_mean, m.search.prior_std, m.steer_layer, m.read_layer) == (1.3, 9, 120, 2, 3)


def test_all_missing_keys_are_named_in_one_sentence() -> None:
    said = refused(with_model(hub="x/y"))
    assert all(f"'models.mine.{key}'" in said for key in ("family", "layers", "width", "sae", "search"))
    assert "python -m esr.params new-model" in said
    assert "judges.mine" not in said


@pytest.mark.parametrize(
    ("spot", "wrong", "right"),
    [("protocol", "temprature", "temperature"), ("protocol", "serch_steps", "search_steps"), ("judging", "blynd", "blind"),
     ("work", "shrd", "shard")],
)  # fmt: skip
def test_a_mistyped_key_is_named_and_not_the_one_that_it_left_out(spot: str, wrong: str, right: str) -> None:
    tree = copy.deepcopy(TREE)
    tree[spot][wrong] = tree[spot].pop(right)
    said = refused(tree, "tiny")
    assert f"no key '{spot}.{wrong}'" in said
    assert f"nearest: {spot}.{right}" in said
    assert "lacks" not in said


def test_an_sae_that_is_not_there_is_said_before_the_layers_that_follow_from_it() -> None:
    assert "nearest: tiny-l3" in refused(with_model(**{**TINY, "sae": "tiny-l4"}))


def test_the_judge_that_lacks_a_key_is_said_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESR_ENGINE", "fake")
    study = Study(params.parse(with_model(**TINY, judge="lexical"), "mine", "smoke"), "mine", Store(tmp_path))
    with pytest.raises(JudgeError) as caught:
        study.check(["lexical"])
    said = str(caught.value)
    assert "by_model: {mine: {judging: {concreteness_judge: lexical}}}" in said
    assert "ANTHROPIC_API_KEY" in said
    assert "choose `judge: lexical`" not in said


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["new-model", *words]) == 0
    return capsys.readouterr().out


def pasted(where: Place, text: str) -> None:
    """As a person would: each block under its group."""
    file = where.root / "params.yaml"
    groups = dict(part.split(":\n", 1) for part in text[text.index("models:") :].split("\n\n"))
    file.write_text(Draft(groups, ()).added(file.read_text()))


@pytest.mark.slow
def test_a_pasted_block_loads_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = place(tmp_path)
    text = printed(capsys, str(params.HOME / "esr/organism/data/tiny-plain"), "--name", "mine")
    assert "family tiny: guessed from model_type llama (LlamaForCausalLM)" in text
    pasted(where, text)
    code, said = where.run("exp01", "mine", "--scale", "smoke")
    assert code == 0, said
    assert {(row["model"], row["arm"]) for row in summary(where)} == {("mine", "baseline")}


@pytest.mark.slow
def test_a_model_whose_sae_has_no_labels_runs_to_its_end(tmp_path: Path) -> None:
    where = place(tmp_path)
    tree = yaml.safe_load((tmp_path / "params.yaml").read_text())
    tree["saes"]["tiny-l3"]["labels"] = None
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    code, said = where.run("exp05", "tiny", "--scale", "smoke")
    assert code == 0, said
    assert 'SAE tiny-l3 has no labels: latents are drawn without the concreteness filter, and the judge is told "latent N"' in said
    labels = Store(where.store).sql("select distinct latent, latent_label as label from members where latent >= 0").to_pylist()
    assert labels
    assert all(row["label"] == f"latent {row['latent']}" for row in labels)


CONFIG = {"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "vocab_size": 256000, "num_hidden_layers": 42,
          "hidden_size": 3584, "max_position_embeddings": 8192, "torch_dtype": "bfloat16"}  # fmt: skip


def folder(at: Path, **change: Any) -> str:
    at.mkdir(exist_ok=True)
    (at / "config.json").write_text(json.dumps({**CONFIG, **change}))
    return str(at)


def test_a_block_may_be_added_and_keeps_the_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(params.path().read_text())
    monkeypatch.setenv("ESR_PARAMS", str(file))
    printed(capsys, folder(tmp_path / "My_Gemma"), "--sae", "gemma-9b-l26", "--add")
    m = params.load("my-gemma").model("my-gemma")
    assert (m.family, m.layers, m.width, m.steer_layer, m.max_model_len, m.search.upper) == ("gemma2", 42, 3584, 26, 4096, 560)
    assert "# every number and name" in file.read_text().lower()
    assert main(["new-model", str(tmp_path / "My_Gemma"), "--sae", "gemma-9b-l26"]) == 2
    assert "has a model 'my-gemma' already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words", "says"),
    [({}, [], "choose with --sae"), ({"hidden_size": 896}, [], "add one under saes:"), ({"model_type": "qwen2"}, [], "no chat family"),
     ({"model_type": "llama", "vocab_size": 32000}, [], "no chat family"), ({"hidden_size": None}, [], "lacks hidden_size"),
     ({}, ["--sae", "gemma-9b"], "nearest: gemma-9b-l26"), ({}, ["--sae", "tiny-l3"], "reads 192 dimensions")],
)  # fmt: skip
def test_what_cannot_be_guessed_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], words: list[str], says: str
) -> None:
    assert main(["new-model", folder(tmp_path / "m", **change), *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_place_without_a_model_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for hub in (str(tmp_path), "nobody/nothing"):
        assert main(["new-model", hub]) == 2
        assert capsys.readouterr().err.count("\n") == 1
