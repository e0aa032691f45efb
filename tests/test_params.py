"""params.yaml against PROTOCOL §2, and everything it refuses."""

import copy
import re
from itertools import product
from typing import Any

import pytest
import yaml

from esr import experiment, params, prompts
from esr.errors import ParamsError
from esr.study.choose import Baseline
from esr.study.detect import Detection

TREE: dict[str, Any] = yaml.safe_load(params.path().read_text())
MODELS = ("70b", "8b", "gemma-27b", "gemma-9b", "gemma-2b")


def changed() -> dict[str, Any]:
    """A tree of one's own to spoil."""
    return copy.deepcopy(TREE)


def refused(tree: dict[str, Any], model: str = "70b", scale: str = "full") -> str:
    with pytest.raises(ParamsError) as caught:
        params.parse(tree, model, scale)
    text = str(caught.value)
    assert "\n" not in text
    assert not text.startswith("1 validation")
    return text


def load(model: str, preset: str = "v1", scale: str = "full") -> params.Params:
    tree = changed()
    tree["preset"] = preset
    return params.parse(tree, model, scale)


# hub id, layers, width, steer, read, quantization, bounds, prior
FACTS = {
    "70b": ("meta-llama/Meta-Llama-3.3-70B-Instruct", 80, 8192, 33, 50, "fp8", (0, 100), (7, 5)),
    "8b": ("meta-llama/Meta-Llama-3.1-8B-Instruct", 32, 4096, 19, 19, None, (0, 50), (10, 10)),
    "gemma-27b": ("google/gemma-2-27b-it", 46, 4608, 22, 22, None, (0, 5000), (1500, 1500)),
    "gemma-9b": ("google/gemma-2-9b-it", 42, 3584, 26, 26, None, (0, 560), (280, 280)),
    "gemma-2b": ("google/gemma-2-2b-it", 26, 2304, 16, 16, None, (0, 300), (150, 75)),
}
SAES = {
    "70b": ("Goodfire/Llama-3.3-70B-Instruct-SAE-l50", ".pt", 50, 65_536),
    "8b": ("Goodfire/Llama-3.1-8B-Instruct-SAE-l19", ".pth", 19, 65_536),
    "gemma-27b": ("gemma-scope-27b-pt-res-canonical", "layer_22/width_131k/canonical", 22, 131_072),
    "gemma-9b": ("gemma-scope-9b-pt-res-canonical", "layer_26/width_16k/canonical", 26, 16_384),
    "gemma-2b": ("gemma-scope-2b-pt-res-canonical", "layer_16/width_16k/canonical", 16, 16_384),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_published_models_are_as_the_protocol_says(name):
    m = load(name).model(name)
    found = (m.hub, m.layers, m.width, m.steer_layer, m.read_layer, m.quantization)
    assert (*found, (m.search.lower, m.search.upper), (m.search.prior_mean, m.search.prior_std)) == FACTS[name]
    assert (m.dtype, m.max_model_len, m.repetition_penalty, m.judge) == ("bfloat16", 4096, 1.1, "haiku-4.5")
    assert m.family == ("llama3" if name in ("70b", "8b") else "gemma2")


@pytest.mark.parametrize("name", MODELS)
def test_their_saes_are_as_the_protocol_says(name):
    p = load(name)
    sae = p.sae(p.model(name).sae)
    where, part, layer, width = SAES[name]
    assert (sae.layer, sae.d_sae, sae.d_in) == (layer, width, FACTS[name][2])
    assert where == (sae.repo if sae.loader == "goodfire" else sae.release)
    assert (sae.file or "").endswith(part) if sae.loader == "goodfire" else sae.id == part


def test_a_layer_off_the_saes_own_is_meant_only_for_70b():
    p = load("70b")
    assert [m.name for m in p.models.values() if m.allow_layer_mismatch] == ["70b"]


@pytest.mark.parametrize("name", MODELS)
def test_the_generation_settings_are_published_v1(name):
    p = load(name)
    s, q = p.sampling(name), p.protocol
    assert (s.temperature, s.top_p, s.repetition_penalty, s.max_tokens) == (0.6, 1.0, 1.1, 512)
    assert p.sampling(name, search=True).max_tokens == 256
    assert (q.target, q.search_steps, q.samples_per_step, q.early_stop, q.prompt_format, q.scope) == (
        0.30,
        30,
        1,
        0.5,
        "clean",
        "all",
    )
    assert (q.concreteness, q.relevance, q.candidates_per_latent) == ("threshold(65)", "zero_activation", 3)
    assert (q.exclude_degraded, q.degraded_run, q.n_seeds) == (False, 5, 1_000_001)


def test_the_experiments_are_sized_as_published():
    p = load("70b")
    base, sweep, found = p.of(Baseline), p.experiments["exp02"], p.of(Detection)
    assert (base.latents, base.trials_per_latent) == (500, 5)
    assert [sweep[name] for name in ("latents", "trials_per_latent", "levels", "range_std")] == [25, 10, 10, 3.0]
    assert (found.mismatched_share, found.matched_share, found.active, found.max_detectors) == (0.8, 0.0, 1e-8, 26)
    assert [p.experiments["exp10"][name] for name in ("sets", "first_seed")] == [3, 42]


def test_all_seven_meta_prompts_are_there_and_all_questions():
    assert sorted(f"suffixes/{v}" for v in load("70b").experiments["exp05"]["variants"]) == prompts.suffixes()
    assert (len(prompts.evaluation()), len(set(prompts.evaluation()))) == (38, 38)
    assert (len(prompts.discovery()), len(set(prompts.discovery()))) == (20, 20)
    assert not set(prompts.evaluation()) & set(prompts.discovery())
    assert all(q.startswith("Explain how to ") and q.endswith(".") for q in prompts.evaluation()[:19])
    assert all(q.startswith("How do you ") and q.endswith("?") for q in prompts.evaluation()[19:])


def test_judges_are_pinned():
    judges = {name: judge.model for name, judge in load("70b").judges.items()}
    assert judges["haiku-4.5"] == "claude-haiku-4-5-20251001"
    assert judges["sonnet-4.5"] == "claude-sonnet-4-5-20250929"
    assert set(judges) == {
        *("haiku-4.5", "sonnet-4.5", "gpt-5-mini", "qwen3-32b", "gemini-2.5-flash", "served", "lexical", "topical"),
    }


def test_the_presets_are_the_eras():
    era = load("70b", "era_j")
    assert (era.protocol.target, era.protocol.exclude_degraded, era.protocol.search_steps) == (0.5, True, 30)
    m = era.model("70b")
    assert (m.repetition_penalty, m.judge, m.steer_layer, m.search.upper) == (1.0, "sonnet-4.5", 50, 50)
    authors = load("70b", "authors")
    assert (authors.protocol.prompt_format, authors.protocol.search_mode) == ("double_header", "reference")
    assert (authors.model("70b").repetition_penalty, authors.protocol.samples_per_step) == (1.2, 5)
    eight = load("8b", "authors")
    assert (eight.model("8b").repetition_penalty, eight.model("8b").steer_layer, eight.protocol.samples_per_step) == (1.15, 12, 1)
    assert load("8b", "fork_layers").model("8b").steer_layer == 12
    assert load("gemma-27b", "authors_exp02").model("gemma-27b").search.upper == 80
    three = load("70b", "authors_exp03")
    assert (three.protocol.search_steps, three.model("70b").search.prior_mean, three.protocol.target) == (20, 20, 0.3)
    assert load("8b", "authors_exp03").protocol.target == 0.5


@pytest.mark.parametrize(("preset", "scale"), [*product(TREE["presets"], TREE["scales"])])
def test_every_model_loads_under_every_preset_and_scale(preset, scale):
    for name in TREE["models"]:
        p = load(name, preset, scale)
        assert (p.preset, p.scale) == (preset, scale)


def test_scales_overlay_last_so_a_smoke_run_is_small_for_every_model():
    for name in TREE["models"]:
        assert load(name, scale="smoke").of(Baseline).latents == TREE["scales"]["smoke"]["exp01"]["latents"]
    assert load("tiny").of(Baseline).latents == TREE["by_model"]["tiny"]["exp01"]["latents"]
    assert load("70b").of(Baseline).latents == 500


def test_what_is_loaded_is_frozen():
    p = params.load("70b")
    for thing, name in ((p, "seed"), (p.protocol, "target"), (p.model("70b"), "steer_layer")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(thing, name, 1)


def test_the_digest_follows_every_number():
    tree = changed()
    tree["protocol"]["temperature"] = 0.7
    assert params.parse(tree, "70b", "full").digest != load("70b").digest == params.load("70b").digest


def test_weights_tell_what_determines_the_replies_apart():
    m = load("70b").model("70b")
    for change in ({"revision": "x"}, {"quantization": None}, {"adapter": "lora"}, {"dtype": "float16"}, {"hub": "y"}):
        assert m.model_copy(update=change).weights != m.weights


def test_an_unknown_name_comes_with_the_nearest():
    assert "no model '70' in params.yaml; nearest: 70b" in refused(changed(), model="70")
    assert "no scale 'smok' in params.yaml; nearest: smoke" in refused(changed(), scale="smok")
    with pytest.raises(ParamsError, match=r"no judge 'haiku'.*nearest: haiku-4.5"):
        load("70b").judge("haiku")
    with pytest.raises(ParamsError, match="nearest: goodfire-70b-l50"):
        load("70b").sae("goodfire-70b")


# a place in the tree, what is put there, what the message must hold
WRONG = [
    ("protocol.targit", 0.3, "nearest: protocol.target"),
    ("models.8b.steer_layr", 3, "nearest: models.8b.steer_layer"),
    ("models.8b.search.uper", 3, "nearest: models.8b.search.upper"),
    ("judges.lexical.modell", "x", "nearest: judges.lexical.model"),
    ("exp98", {}, "no key 'exp98'"),
    ("scale", "smoke", "no key 'scale'"),
    ("presets.v1", {"protocl": {}}, "'protocl' in params.yaml (asked by presets.v1); nearest: protocol"),
    ("presets.era_j.models.70b.steer_layr", 3, "nearest: models.70b.steer_layer"),
    ("presets.era_j.models.71b", {"judge": "lexical"}, "nearest: models.70b"),
    ("scales.smoke.exp01.latent", 3, "nearest: exp01.latents"),
    ("by_model.tiny.exp01.latent", 3, "nearest: exp01.latents"),
    ("by_model.tinny", {}, "nearest: tiny"),
    ("models.gemma-9b.protocol", {"targt": 1}, "nearest: protocol.target"),
    ("protocol.target", "0.3", "protocol.target is '0.3'"),
    ("protocol.target", 30, "protocol.target is 30"),
    ("protocol.target", float("nan"), "protocol.target is nan"),
    ("protocol.search_steps", 2.5, "protocol.search_steps"),
    ("protocol.search_steps", True, "protocol.search_steps"),
    ("protocol.scope", "everywhere", "protocol.scope"),
    ("protocol.scope", "[5,)", "protocol.scope"),
    ("protocol.concreteness", False, "protocol.concreteness is False"),
    ("protocol.relevance", "topk", "protocol.relevance"),
    ("models.70b.revision", 5, "models.70b.revision is 5"),
    ("models.70b.family", "llama", "models.70b.family"),
    ("models.70b.search", {"lower": 5, "upper": 5, "prior_mean": 5, "prior_std": 1}, "not in order"),
    ("models.70b.search.prior_mean", 900, "outside the bounds"),
    ("models.70b.steer_layer", 80, "steer_layer is 80"),
    ("models.8b.steer_layer", 12, "allow_layer_mismatch"),
    ("models.8b.width", 4097, "4097"),
    ("models.8b.sae", "goodfire-8b", "nearest: goodfire-8b-l19"),
    ("models.8b.judge", "haiku", "nearest: haiku-4.5"),
    ("preset", "era-j", "nearest: era_j"),
    ("models.8b", None, "models.8b is None"),
    ("exp01", None, "exp01 is None"),
    ("protocol", [], "protocol is []"),
    ("models", ["8b"], "models is ['8b']"),
    ("presets", {"v1": 5}, "presets.v1 is 5"),
    ("scales.smoke.exp01", 7, "scales.smoke.exp01 is 7"),
    ("by_model.tiny", "x", "by_model.tiny is 'x'"),
    ("presets.v1", {"protocol": None}, "presets.v1.protocol is None"),
]


@pytest.mark.parametrize(("spot", "value", "said"), WRONG, ids=[f"{w[0]}={w[1]!r:.20}" for w in WRONG])
def test_what_is_wrong_is_refused_by_its_name(spot, value, said):
    tree = block = changed()
    *parents, last = spot.split(".")
    for part in parents:
        block = block[part]
    block[last] = value
    assert said in refused(tree)


@pytest.mark.parametrize(
    "spot",
    [
        "seed",
        "protocol",
        "protocol.target",
        "models.8b.hub",
        "models.8b.search.upper",
        "saes.tiny-l3.layer",
        "preset",
        "judges",
    ],
)
def test_what_is_missing_is_refused_by_its_name(spot):
    tree = block = changed()
    *parents, last = spot.split(".")
    for part in parents:
        block = block[part]
    del block[last]
    assert last in refused(tree)


BLOCKS = [
    ("exp01.latent", 3, "nearest: exp01.latents"),
    ("exp01.latents", "3", "exp01.latents is '3'"),
    ("exp02.levels", 1, "exp02.levels is 1"),
    ("exp03.pooling", "all of it", "exp03.pooling"),
    ("exp10.matchings", ["near"], "exp10.matchings"),
    ("exp08", {"arms": 3}, "exp08 has no settings"),
]


@pytest.mark.parametrize(("spot", "value", "said"), BLOCKS, ids=[f"{w[0]}={w[1]!r:.20}" for w in BLOCKS])
def test_an_experiments_block_is_held_against_what_its_file_says(spot, value, said):
    tree = changed()
    name, _, key = spot.partition(".")
    tree[name] = {**tree[name], key: value} if key else value
    with pytest.raises(ParamsError, match=re.escape(said)):
        experiment.check(params.parse(tree, "70b", "full"))


def test_a_block_that_is_missing_is_said_by_its_name():
    tree = changed()
    del tree["exp05"], tree["scales"]["smoke"]["exp05"]
    with pytest.raises(ParamsError, match="lacks the key 'exp05'"):
        experiment.check(params.parse(tree, "70b", "full"))


def test_a_key_written_twice_is_refused(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(params.path().read_text() + "\nseed: 5\n")
    with pytest.raises(ParamsError, match="'seed' stands twice"):
        params.load("70b", file=file)


@pytest.mark.parametrize("text", ["a: [", "- 1", "5: x\nseed: 1", "", "\x00"])
def test_a_file_that_is_no_tree_of_names_is_refused_in_one_line(tmp_path, text):
    file = tmp_path / "params.yaml"
    file.write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        params.load("70b", file=file)


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 30))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a: " + "{b: " * 200 + "1" + "}" * 200, "nested"),
        ("a: &x {b: *x}", "nested more than"),
        (LAUGHS, "aliases may repeat themselves"),
        ("a: 2001-99-99", "is not YAML"),
        ("a: !!int abc", "is not YAML"),
        ("a: !!bool maybe", "is not YAML"),
        ("a: " + "9" * 5000, "is not YAML"),
        ("? [1, 2]\n: 3", "is not YAML"),
        ("a: \x00", "is not YAML"),
        (b"a: \xff", "is not YAML"),
    ],
)
def test_yaml_that_breaks_its_reader_is_refused_in_one_sentence(tmp_path, text, says):
    file = tmp_path / "params.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ParamsError, match=says) as caught:
        params.load(file=file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_no_file_says_where_one_was_looked_for(tmp_path):
    with pytest.raises(ParamsError, match="ESR_PARAMS"):
        params.load("70b", file=tmp_path / "none.yaml")


def test_another_file_may_be_named_by_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "mine.yaml"
    file.write_text(params.path().read_text().replace("seed: 20260206", "seed: 7"))
    monkeypatch.setenv("ESR_PARAMS", str(file))
    assert params.load("70b").seed == 7
