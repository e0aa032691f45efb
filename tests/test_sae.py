"""Every layout of SAE file comes to one form that encodes and decodes as its makers' own code does."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_models import D_SAE, WIDTH, write_sae

from esr.errors import ParamsError, SaeError
from esr.params import Params, load
from esr.sae import Sae, folder, goodfire, open_sae, read_labels, release, site_layer
from esr.types import Latent

X = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(7)) * 2


def sae_lens(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sae_lens import SAE

        return SAE.load_from_disk(path)


def same(ours: Sae, theirs: Any) -> None:
    with torch.inference_mode():
        f = theirs.encode(X)
        assert 0.02 < float((f > 0).float().mean()) < 0.9
        assert torch.allclose(ours.encode(X), f, atol=1e-5)
        assert torch.allclose(ours.decode(f), theirs.decode(f), atol=1e-4)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu"])
@pytest.mark.parametrize("apply_b_dec_to_input", [False, True])
def test_a_saelens_folder_encodes_and_decodes_as_sae_lens_does(
    tmp_path: Path, architecture: Any, apply_b_dec_to_input: bool
) -> None:
    path = write_sae(tmp_path, 3, architecture=architecture, apply_b_dec_to_input=apply_b_dec_to_input)
    ours = folder.load(path, name="x")
    theirs = sae_lens(path)
    same(ours, theirs)
    same(release.from_loaded(theirs, name="x"), theirs)
    assert release.from_loaded(theirs, name="x").sha256 == ours.sha256
    assert (ours.layer, ours.d_in, ours.d_sae) == (3, WIDTH, D_SAE)


def test_an_old_configuration_is_read_as_sae_lens_reads_it(tmp_path: Path) -> None:
    """Before SAELens 6 the fields were flat, and leaving apply_b_dec_to_input out meant true."""
    path = write_sae(tmp_path, 2)
    old = {
        "d_in": WIDTH, "d_sae": D_SAE, "dtype": "float32", "device": "cpu", "hook_point": "blocks.2.hook_resid_pre",
        "activation_fn_str": "relu", "normalize_activations": False, "model_name": "toy", "finetuning_scaling_factor": False,
    }  # fmt: skip
    (path / "cfg.json").write_text(json.dumps(old))
    weights = load_file(path / "sae_weights.safetensors") | {"scaling_factor": torch.ones(D_SAE)}
    save_file(weights, path / "sae_weights.safetensors")
    ours = folder.load(path, name="x")
    assert ours.layer == 1
    weights.pop("scaling_factor")
    save_file(weights, path / "sae_weights.safetensors")
    same(ours, sae_lens(path))


def test_a_folded_normalisation_is_read_as_it_stands(tmp_path: Path) -> None:
    path = write_sae(tmp_path / "before", 1)
    theirs = sae_lens(path)
    theirs.fold_activation_norm_scaling_factor(0.37)
    theirs.save_model(str(tmp_path / "after"))
    same(folder.load(tmp_path / "after", name="x"), theirs)


def goodfire_state(prefix: str = "") -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(5)
    return {
        f"{prefix}encoder_linear.weight": torch.randn(D_SAE, WIDTH, generator=g) / 8,
        f"{prefix}encoder_linear.bias": torch.randn(D_SAE, generator=g) / 8,
        f"{prefix}decoder_linear.weight": torch.randn(WIDTH, D_SAE, generator=g) / 8,
        f"{prefix}decoder_linear.bias": torch.randn(WIDTH, generator=g) / 8,
    }


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "module._orig_mod."])
@pytest.mark.parametrize("ending", [".pt", ".pth"])
def test_goodfires_file_is_two_linear_layers_with_relu_between(tmp_path: Path, prefix: str, ending: str) -> None:
    path = tmp_path / f"sae{ending}"
    torch.save(goodfire_state(prefix), path)
    sae = goodfire.load(path, name="g", layer=19)
    state = goodfire_state()
    f = torch.relu(torch.nn.functional.linear(X, state["encoder_linear.weight"], state["encoder_linear.bias"]))
    assert torch.allclose(sae.encode(X), f, atol=1e-5)
    x = torch.nn.functional.linear(f, state["decoder_linear.weight"], state["decoder_linear.bias"])
    assert torch.allclose(sae.decode(f), x, atol=1e-4)
    assert sae.layer == 19
    assert all(t.is_contiguous() and t.dtype == torch.float32 for t in (sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec))


def test_goodfires_file_agrees_with_sae_lens_own_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAELens' loader for Goodfire's repository, on a small file in its place."""
    from sae_lens.loading import pretrained_sae_loaders as theirs

    path = tmp_path / "Llama-3.1-8B-Instruct-SAE-l19.pth"
    torch.save(goodfire_state(), path)
    monkeypatch.setattr(theirs, "hf_hub_download", lambda **_: str(path))
    config, weights, _ = theirs.get_goodfire_huggingface_loader("Goodfire/Llama-3.1-8B-Instruct-SAE-l19", path.name)
    config |= {"d_in": WIDTH, "d_sae": D_SAE}
    other = folder.from_saelens(config, weights, name="g")
    assert other.sha256 == goodfire.load(path, name="g", layer=19).sha256
    assert other.layer == 19


@pytest.mark.parametrize("spelling", ["w_enc", "W_enc"])
def test_gemma_scopes_file_encodes_as_sae_lens_own_loader_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    """params.npz, JumpReLU with a threshold a latent, nothing subtracted from the input."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.loading import pretrained_sae_loaders as theirs

    g = torch.Generator().manual_seed(11)
    tensors = {
        spelling: torch.randn(WIDTH, D_SAE, generator=g) / 8,
        spelling.replace("enc", "dec"): torch.randn(D_SAE, WIDTH, generator=g) / 8,
        "b_enc": torch.randn(D_SAE, generator=g) / 4,
        "b_dec": torch.randn(WIDTH, generator=g),
        "threshold": torch.rand(D_SAE, generator=g),
    }
    np.savez(tmp_path / "params.npz", **{key: value.numpy() for key, value in tensors.items()})
    monkeypatch.setattr(theirs, "hf_hub_download", lambda **_: str(tmp_path / "params.npz"))
    config, weights, _ = theirs.gemma_2_sae_huggingface_loader(
        "google/gemma-scope-2b-pt-res", "layer_16/width_16k/average_l0_78", cfg_overrides={"d_in": WIDTH, "d_sae": D_SAE}
    )
    sae = JumpReLUSAE(JumpReLUSAEConfig.from_dict(theirs.handle_config_defaulting(config)))
    sae.load_state_dict(weights)
    ours = release.from_loaded(sae, name="g")
    same(ours, sae)
    assert (ours.layer, ours.activation) == (16, "jumprelu")


def test_a_bfloat16_file_is_widened_before_anything_is_folded(tmp_path: Path) -> None:
    path = tmp_path / "sae.pt"
    state = {key: value.bfloat16() for key, value in goodfire_state().items()}
    torch.save(state, path)
    sae = goodfire.load(path, name="g", layer=0)
    assert torch.equal(sae.W_enc, state["encoder_linear.weight"].float())


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"encoder_linear.weight": Evil()}, tmp_path / "sae.pt")
    with pytest.raises(SaeError, match="not a state dict of tensors alone"):
        goodfire.load(tmp_path / "sae.pt", name="g", layer=0)
    assert not (tmp_path / "ran").exists()


def change(state: dict[str, torch.Tensor], key: str, value: torch.Tensor | None) -> dict[str, torch.Tensor]:
    return {k: v for k, v in state.items() if k != key} | ({} if value is None else {key: value})


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("decoder_linear.bias", None, "lacks decoder_linear.bias"),
        ("decoder_linear.weight", torch.zeros(D_SAE, WIDTH), "W_dec has shape"),
        ("encoder_linear.bias", torch.zeros(WIDTH), "b_enc has shape"),
        ("encoder_linear.weight", torch.full((D_SAE, WIDTH), float("nan")), "W_enc holds NaN"),
        ("extra.weight", torch.zeros(1), "holds extra.weight"),
    ],
)
def test_a_damaged_goodfire_file_is_refused_by_name(tmp_path: Path, key: str, value: torch.Tensor | None, says: str) -> None:
    torch.save(change(goodfire_state(), key, value), tmp_path / "sae.pt")
    with pytest.raises(SaeError, match=says):
        goodfire.load(tmp_path / "sae.pt", name="g", layer=0)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"architecture": "topk"}, "architecture 'topk'"),
        ({"architecture": "gated"}, "architecture 'gated'"),
        ({"normalize_activations": "layer_norm"}, "layer_norm, which depends on the input"),
        ({"normalize_activations": "constant_norm_rescale"}, "depends on the input"),
        ({"normalize_activations": "expected_average_only_in"}, "not yet folded"),
        ({"reshape_activations": "hook_z"}, "reshapes its input"),
        ({"finetuning_scaling_factor": True}, "finetuning scaling factor"),
        ({"activation_fn": "tanh-relu"}, "activation function 'tanh-relu'"),
        ({"metadata": {"hook_name": "blocks.3.hook_mlp_out"}}, "hook_mlp_out"),
        ({"metadata": {"hook_name": "blocks.3.attn.hook_z"}}, "hook_z"),
        ({"metadata": {"hook_name": "blocks.0.hook_resid_pre"}}, "before any block"),
        ({"metadata": {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.1.hook_mlp_out"}}, "a transcoder's"),
        ({"metadata": {}}, "no named place"),
        ({"d_in": 65}, "says d_in 65 and its weights have 64"),
    ],
)
def test_a_configuration_that_cannot_be_folded_is_refused_by_name(tmp_path: Path, config: dict[str, Any], says: str) -> None:
    path = write_sae(tmp_path, 1, **config)
    with pytest.raises(SaeError, match=says):
        folder.load(path, name="x")


def test_a_latent_at_its_threshold_is_silent_and_just_above_it_fires(tmp_path: Path) -> None:
    sae = folder.load(write_sae(tmp_path, 1, architecture="jumprelu"), name="x")
    assert sae.threshold is not None
    assert not sae.act(sae.threshold).any()
    above = sae.threshold.nextafter(torch.tensor(torch.inf))
    assert torch.equal(sae.act(above), above)


def test_an_unfolded_scaling_factor_is_refused(tmp_path: Path) -> None:
    path = write_sae(tmp_path, 1)
    weights = load_file(path / "sae_weights.safetensors") | {"scaling_factor": torch.full((D_SAE,), 1.5)}
    save_file(weights, path / "sae_weights.safetensors")
    with pytest.raises(SaeError, match="scaling factor"):
        folder.load(path, name="x")


@given(layer=st.integers(0, 200))
def test_the_stream_before_a_block_is_the_stream_after_the_one_before(layer: int) -> None:
    assert (
        site_layer(f"blocks.{layer + 1}.hook_resid_pre", name="x")
        == site_layer(f"blocks.{layer}.hook_resid_post", name="x")
        == layer
    )


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, D_SAE - 1), min_size=1, max_size=8))
def test_encoding_some_latents_is_a_part_of_encoding_all(tmp_path_factory: pytest.TempPathFactory, latents: list[int]) -> None:
    sae = folder.load(write_sae(tmp_path_factory.mktemp("s"), 1, architecture="jumprelu"), name="x")
    assert torch.allclose(sae.encode(X, torch.tensor(latents)), sae.encode(X)[:, latents], atol=1e-6)


def params_with(path: Path, **changes: Any) -> Params:
    params = load("tiny")
    block = params.saes["tiny-l3"].model_copy(update={"repo": str(path), "d_in": WIDTH, "d_sae": D_SAE} | changes)
    return params.model_copy(update={"saes": {"tiny-l3": block}})


def test_what_params_yaml_says_of_an_sae_is_checked_against_the_file(tmp_path: Path) -> None:
    path = write_sae(tmp_path, 3)
    assert open_sae(params_with(path), "tiny-l3").layer == 3
    assert open_sae(params_with(path), "tiny-l3") is open_sae(params_with(path), "tiny-l3")
    for what, value in (("d_in", 65), ("d_sae", 97), ("layer", 2)):
        with pytest.raises(SaeError, match=f"has {what} .* and params.yaml says {value}"):
            open_sae(params_with(path, **{what: value}), "tiny-l3")
    with pytest.raises(SaeError, match=r"has no cfg.json"):
        open_sae(params_with(tmp_path / "nowhere"), "tiny-l3")
    with pytest.raises(ParamsError, match="needs the key 'file'"):
        open_sae(params_with(path, loader="goodfire"), "tiny-l3")


def test_every_released_sae_of_params_yaml_is_in_sae_lens_registry() -> None:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    released = [block for block in load().saes.values() if block.loader == "saelens"]
    assert len(released) == 4
    for block in released:
        assert block.release is not None
        assert block.id is not None
        release.known(block.release, block.id, name=block.name)
        assert f"layer_{block.layer}/" in block.id
        assert {"16k": 16384, "131k": 131072}[block.id.split("width_")[1].split("/")[0]] == block.d_sae
    repositories = {entry.repo_id: entry for entry in get_pretrained_saes_directory().values()}
    for block in load().saes.values():
        if block.loader == "goodfire":
            assert block.repo is not None
            assert list(repositories[block.repo].saes_map.values()) == [block.file]


def test_a_release_or_id_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(SaeError, match="nearest: gemma-scope-2b-pt-res-canonical"):
        release.known("gemma-scope-2b-pt-res-cannonical", "x", name="x")
    with pytest.raises(SaeError, match="no id 'layer_26/width_65k/canonical' in release gemma-scope-9b-it-res-canonical"):
        release.known("gemma-scope-9b-it-res-canonical", "layer_26/width_65k/canonical", name="x")


def test_labels_are_latents_in_order_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text('label,index_in_sae\n"oxen, ploughs",7\n,9\ncastles,2\n', encoding="utf-8")
    assert read_labels(path) == [Latent(2, "castles"), Latent(7, "oxen, ploughs")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("latent,label\n1,a\n", "needs index_in_sae and label"),
        ("index_in_sae,label\none,a\n", "line 2: index_in_sae is 'one'"),
        ("index_in_sae,label\n96,a\n", "latent 96 is not among the SAE's 96"),
        ("index_in_sae,label\n1,a\n1,b\n", "labels latent 1 twice"),
    ],
)
def test_a_label_file_that_says_two_things_or_none_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    with pytest.raises(SaeError, match=says):
        read_labels(tmp_path / "labels.csv", d_sae=D_SAE)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"index_in_sae,label\n1,caf\xe9\n", "not UTF-8"),
        (b'index_in_sae,label\n1,"' + b"x" * 140_000 + b'"\n', "cannot be read as CSV"),
        (b"\xff\xfei\0n\0", "not UTF-8"),
    ],
)
def test_a_label_file_that_is_no_text_is_refused_in_one_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(SaeError, match=says) as caught:
        read_labels(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "holds list"),
        (b"\xff{}", "cannot be read"),
        ({"metadata": ["hook_name", "blocks.2.hook_resid_post"]}, "metadata is .*, not fields"),
        ({"metadata": "blocks.2.hook_resid_post"}, "metadata is .*, not fields"),
    ],
)
def test_a_configuration_that_is_none_is_refused_in_one_sentence(tmp_path: Path, config: Any, says: str) -> None:
    path = write_sae(tmp_path, 2)
    file = path / "cfg.json"
    given = json.dumps(json.loads(file.read_text()) | config) if isinstance(config, dict) else config
    file.write_bytes(given if isinstance(given, bytes) else given.encode())
    with pytest.raises(SaeError, match=says) as caught:
        folder.load(path, name="x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("unusual", "says"),
    [
        (lambda t: t.to_sparse(), "sparse coo"),
        (lambda t: t.to_sparse_csr(), "sparse csr"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "quantized"),
        (lambda t: t.to(torch.complex64), "complex"),
        (lambda t: t.to("meta"), "without values"),
    ],
)
def test_a_goodfire_file_of_unusual_tensors_is_refused_by_name(
    tmp_path: Path, unusual: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("transformers")]:
        monkeypatch.delitem(sys.modules, name)  # pickle looks through every module for a quantization scheme, and these would open
    shapes = {
        "encoder_linear.weight": (D_SAE, WIDTH),
        "encoder_linear.bias": (D_SAE,),
        "decoder_linear.weight": (WIDTH, D_SAE),
        "decoder_linear.bias": (WIDTH,),
    }
    state = {key: torch.randn(shape) for key, shape in shapes.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state["encoder_linear.weight"] = unusual(state["encoder_linear.weight"])
        torch.save(state, tmp_path / "x.pt")
        with pytest.raises(SaeError, match=rf"encoder_linear.weight is .*{says}|not a state dict of tensors alone") as caught:
            goodfire.load(tmp_path / "x.pt", name="x", layer=2)
    assert "\n" not in str(caught.value)
