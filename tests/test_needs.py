"""What a model lacks, each with the line that mends it."""

import json
import socket
from pathlib import Path

import pytest

from esr import params
from esr.__main__ import main
from esr.study import needs as module
from esr.study.needs import Need, gpu_bytes, needs, parameters

H100 = "NVIDIA H100 80GB HBM3, 81559 MiB"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store and a Hugging Face cache of the test's own, no keys, no GPUs."""
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(module, "dotenv", dict)
    monkeypatch.setattr(module, "gpu_memory", list)
    return tmp_path


def of(name: str, gpus: list[str], **change: object) -> dict[str, Need]:
    p = params.load(name)
    model = p.model(name).model_copy(update=change)
    p = p.model_copy(update={"models": {**p.models, name: model}})
    return {need.what: need for need in needs(p, name, params.store(), gpus)}


def put(at: Path, hub: str, *names: str, text: str = "{}") -> None:
    """Files as the cache keeps them."""
    folder = at / "hub" / f"models--{hub.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text("c0ffee")
    for name in names:
        file = folder / "snapshots" / "c0ffee" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_doctor_lists_everything_that_a_published_model_lacks_with_the_line_that_mends_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", "70b"]) == 1
    said = capsys.readouterr().out
    for line in (
        "hf auth login && hf download meta-llama/Meta-Llama-3.3-70B-Instruct",
        "accept its licence at https://huggingface.co/meta-llama/Meta-Llama-3.3-70B-Instruct",
        "hf download Goodfire/Llama-3.3-70B-Instruct-SAE-l50 Llama-3.3-70B-Instruct-SAE-l50.pt",
        "python -m esr labels fetch goodfire-70b-l50   # or python -m esr labels make 70b",
        "about 86 GiB (70 billion parameters by its name, fp8, SAE, a quarter more); none here",
        "echo ANTHROPIC_API_KEY=... >> .env",
        "sonnet-4.5, which rates labels",
    ):
        assert line in said
    assert main(["doctor", "70b", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {need["what"] for need in found} == {"weights", "SAE", "labels", "GPU", "key", "disk"}
    assert all(need["there"] or need["mend"] for need in found)


def test_doctor_says_of_the_shipped_model_that_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "tiny"]) == 0
    assert "tiny: runs here" in capsys.readouterr().out
    assert main(["doctor"]) == 0
    assert "8b: lacks weights, SAE, labels, GPU, key" in capsys.readouterr().out


def test_a_plan_says_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "exp01", "8b"]) == 0
    said = capsys.readouterr().out
    assert "not here    labels: no labels/llama-8b-goodfire-l19.csv" in said
    assert "python -m esr doctor 8b" in said
    assert main(["plan", "exp01", "tiny"]) == 0
    assert "not here" not in capsys.readouterr().out


def test_weights_are_here_when_every_file_of_their_index_is(alone: Path) -> None:
    hub = "google/gemma-2-9b-it"
    put(
        alone,
        hub,
        "model.safetensors.index.json",
        text=json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}),
    )
    put(alone, hub, "config.json", "one.safetensors")
    assert not of("gemma-9b", [])["weights"].there
    put(alone, hub, "two.safetensors")
    assert of("gemma-9b", [])["weights"].there


def test_a_gemma_scope_sae_is_looked_up_where_saelens_puts_it(alone: Path) -> None:
    found = of("gemma-9b", [])["SAE"]
    assert found.mend == 'hf download google/gemma-scope-9b-pt-res --include "layer_26/width_16k/average_l0_116/*"'
    put(alone, "google/gemma-scope-9b-pt-res", "layer_26/width_16k/average_l0_116/params.npz")
    assert of("gemma-9b", [])["SAE"].there


@pytest.mark.parametrize(
    ("name", "gpus", "change", "there", "mend"),
    [("8b", [H100], {}, True, ""), ("70b", [H100], {}, False, "more GPU memory"), ("70b", [H100] * 2, {}, False, "tensor_parallel: 2"),
     ("70b", [H100] * 2, {"tensor_parallel": 2}, True, ""), ("70b", [H100] * 2, {"pipeline_parallel": 2}, True, ""),
     ("70b", [H100] * 2, {"tensor_parallel": 2, "pipeline_parallel": 2}, False, "more GPU memory"),
     ("8b", [], {}, False, "more GPU memory"), ("tiny", [], {}, True, "")],
)  # fmt: skip
def test_gpu_memory_is_held_against_a_stated_estimate(
    name: str, gpus: list[str], change: dict[str, object], there: bool, mend: str
) -> None:
    found = of(name, gpus, **change)["GPU"]
    assert found.there is there
    assert mend in found.mend


def test_parameters_are_counted_from_a_configuration_and_guessed_by_what_is_known(alone: Path) -> None:
    p = params.load()
    count, by = parameters(p.model("tiny"))
    assert (by, 3.0e6 < count < 3.4e6) == ("by its configuration", True)
    assert parameters(p.model("gemma-27b")) == (27e9, "by its name")
    nameless = p.model("8b").model_copy(update={"hub": "some/one"})
    assert parameters(nameless)[0] == pytest.approx(8e9, rel=0.15)
    assert gpu_bytes(p.model("8b"), p.sae("goodfire-8b-l19")) > 2 * 8e9


def test_keys_are_needed_by_the_judges_that_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not of("8b", [])["key"].there
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-very-secret")
    assert all(need.there for need in needs(params.load("8b"), "8b", params.store(), []) if need.what == "key")
    assert "sk-very" not in str(needs(params.load("8b"), "8b", params.store(), []))


def test_without_labels_nobody_rates_them() -> None:
    p = params.load("gemma-2b")
    bare = p.sae("gemma-2b-l16").model_copy(update={"labels": None})
    found = needs(p.model_copy(update={"saes": {**p.saes, "gemma-2b-l16": bare}}), "gemma-2b", params.store(), [])
    assert [need.there for need in found if need.what == "labels"] == [True]
    assert not [need for need in found if "rates labels" in need.said]


def test_a_judge_that_is_served_here_needs_no_key_and_somebody_who_listens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HOSTED_VLLM_API_BASE", f"http://127.0.0.1:{server.getsockname()[1]}/v1")
        assert main(["doctor", "tiny", "--judge", "served"]) == 0
        assert "served, which grades, needs none" in capsys.readouterr().out
    assert main(["doctor", "tiny", "--judge", "served"]) == 1
    said = capsys.readouterr().out
    assert "served, which grades, is not served at http://127.0.0.1:" in said
    assert "do: vllm serve Qwen/" in said
    assert main(["plan", "exp01", "tiny", "--judge", "served"]) == 0
    said = capsys.readouterr().out
    assert "about $0.00" in said
    assert "`python -m esr doctor tiny --judge served` has the lines that mend it" in said
