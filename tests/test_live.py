"""Training under live steering: what is added, where, to which batches, and from which latents never."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from tuning_setup import study

from esr.errors import DataError
from esr.params import HOME, load
from esr.sae import open_sae
from esr.study.choose import candidates
from esr.tune.live import LATENTS, ROWS, Distractor, Subjects, key, write, write_subjects
from esr.tune.rows import IGNORED

LAYER = 3
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 0, 0]])
LABELS = torch.tensor([[-100, -100, -100, 8, 9, 10], [-100, 12, 13, 14, -100, -100]])
STEERED = torch.tensor([[0, 0, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]], dtype=torch.bool)
"""Where the next token is trained on."""


@pytest.fixture
def model() -> Any:
    bare = AutoModelForCausalLM.from_pretrained(HOME / "esr/organism/data/tiny-plain", dtype=torch.float32)
    config = LoraConfig(r=4, lora_dropout=0.0, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    return get_peft_model(bare, config)


def stream(model: Any, labels: Tensor | None = LABELS) -> Tensor:
    """After the steered block."""
    seen: list[Tensor] = []

    def look(_: nn.Module, __: Any, out: Any) -> None:
        seen.append((out[0] if isinstance(out, tuple) else out).detach().clone())

    hook = model.get_base_model().model.layers[LAYER].register_forward_hook(look)
    model(input_ids=IDS, labels=labels)
    hook.remove()
    return seen[0]


def test_a_distractor_is_added_where_the_loss_counts_in_lengths_of_the_stream_and_nowhere_else(model: Any) -> None:
    model.train()
    before = stream(model)
    rows = torch.eye(192)[:4] * 3.0
    Distractor(rows, LAYER, (0.5, 0.5)).put_on(model)
    added = stream(model) - before
    assert torch.equal(added.abs().sum(-1) > 0, STEERED)
    torch.testing.assert_close(added.norm(dim=-1)[STEERED], 0.5 * before.norm(dim=-1)[STEERED])
    for row in added:
        moved = row.abs().sum(0) > 1e-4
        assert int(moved.sum()) == 1, "one direction of the set a row"
        assert int(moved.nonzero()) < 4
    model.eval()
    assert torch.equal(stream(model), before), "what is held back is measured without it"
    model.train()
    assert torch.equal(stream(model, None), before)


def test_the_loss_and_its_gradient_feel_it_and_draws_follow_torch_s_random_stream(model: Any) -> None:
    model.train()
    plain = float(model(input_ids=IDS, labels=LABELS).loss)
    Distractor(torch.randn(16, 192), LAYER, (0.5, 2.0)).put_on(model)

    def steered(seed: int) -> float:
        torch.manual_seed(seed)
        model.zero_grad()
        loss = model(input_ids=IDS, labels=LABELS).loss
        loss.backward()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
        return float(loss.detach())

    assert steered(1) == steered(1)
    assert len({plain, steered(1), steered(2)}) == 3


def test_along_subjects_a_masked_row_is_pushed_towards_what_its_passage_is_about_at_every_position(
    model: Any, tmp_path: Path
) -> None:
    model.train()
    before = stream(model)
    vectors = {"owls": torch.eye(192)[0] * 2, "comets": torch.eye(192)[1]}
    file = tmp_path / "subjects.safetensors"
    write_subjects(file, vectors, [([5, 6, 7], "comets"), ([1, 2], "owls")])
    Distractor.of(file, LAYER, (0.5, 0.5)).put_on(model)
    added = stream(model) - before
    assert not added[1].any(), "a normal row is left alone"
    torch.testing.assert_close(added[0].norm(dim=-1), 0.5 * before[0].norm(dim=-1))
    assert added[0].abs().sum(0).nonzero().flatten().tolist() == [1]


def test_along_subjects_a_share_of_the_masked_rows_is_pushed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ids, trained = torch.arange(10), torch.tensor([4, 5])
    some = Subjects({key([0, 1, 2, 3, 4]): 7}, 0.25)
    found = [some.of(ids, trained) for _ in range(4000)]
    assert set(found) == {None, 7}
    assert 900 < found.count(7) < 1100
    assert some.of(ids, torch.tensor([], dtype=torch.long)) is None


def test_no_latent_that_an_evaluation_may_steer_with_is_trained_against(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    params = load("tiny-plain")
    sae, may = open_sae(params, "tiny-l3"), candidates(params, study().labels, 48)
    drawn = write(tmp_path / "a.safetensors", sae, may, 64, random.Random(1))
    found = load_file(tmp_path / "a.safetensors")
    assert found[LATENTS].tolist() == drawn
    assert len(set(drawn)) == 64
    assert not set(drawn) & {latent.index for latent in may}
    assert torch.equal(found[ROWS], sae.W_dec[drawn])
    assert IGNORED == -100
    every = [type(may[0])(i, "a") for i in range(len(sae.W_dec))]
    with pytest.raises(DataError, match="so none is left to train against"):
        write(tmp_path / "b.safetensors", sae, every, 64, random.Random(1))
