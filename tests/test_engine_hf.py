"""The reference engine does what the formulas say."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import Toy, make_toy

from esr.engine import Capture, Request
from esr.engine.hf import HfEngine, Part, _Site
from esr.engine.scope import Span
from esr.errors import SpecError
from esr.sae import open_sae
from esr.types import Op, Sampling

GREEDY = Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=12)
SAMPLED = Sampling(temperature=0.9, top_p=0.9, repetition_penalty=1.1, max_tokens=12)
PROMPT = "How do I whittle a spoon?"
TOP = Capture(layer=1, sae="early", mode="all")


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def toy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def engine(toy: Toy) -> Iterator[HfEngine]:
    engine = HfEngine.open(toy.params, toy.name)
    yield engine
    engine.close()


def ask(**changes: object) -> Request:
    return replace(Request(prompt=PROMPT, sampling=GREEDY), **changes)


def logits(engine: HfEngine, request: Request, ids: tuple[int, ...], n_prompt: int | None = None) -> torch.Tensor:
    """After the last of `ids`, all of them computed at once under the request's ops."""
    sites = engine._sites(replace(request, capture=None), n_prompt or len(ids), len(ids) + 99)
    with torch.inference_mode():
        return engine._forward(ids, 0, None, sites)[0]


def test_a_plain_request_is_what_transformers_generates(engine: HfEngine) -> None:
    request = ask()
    ids = engine.render(request.prompt)
    plain = engine.model.generate(
        torch.tensor([ids]), max_new_tokens=12, do_sample=False, eos_token_id=list(engine.chat.stop_ids), pad_token_id=0
    )
    output = engine.generate([request])[0]
    assert output.prompt_token_ids == ids
    assert list(output.token_ids) == plain[0, len(ids) :].tolist()
    assert output.applied == 0


def test_a_penalty_falls_on_tokens_of_prompt_and_reply(engine: HfEngine) -> None:
    ids = engine.render(PROMPT)
    for penalty in (1.3, 0.8):
        plain = engine.model.generate(
            torch.tensor([ids]), max_new_tokens=12, do_sample=False, repetition_penalty=penalty, eos_token_id=2, pad_token_id=0
        )
        output = engine.generate([ask(sampling=replace(GREEDY, repetition_penalty=penalty))])[0]
        assert list(output.token_ids) == plain[0, len(ids) :].tolist()


@pytest.mark.parametrize("scope", ["all", "generated", "[30,32)", "[33,)"])
def test_the_cache_of_keys_and_values_changes_no_token(engine: HfEngine, scope: str) -> None:
    request = ask(ops=(Op("add", 5, 4.0, 1, "early"), Op("clamp", 9, 3.0, 2, "late")), scope=scope)
    output = engine.generate([request])[0]
    assert len(output.prompt_token_ids) == 28
    ids = output.prompt_token_ids
    for token in output.token_ids:
        assert int(logits(engine, request, ids, 28).argmax()) == token
        ids = (*ids, token)


def test_a_boost_moves_the_stream_by_boost_times_the_decoder_row(engine: HfEngine, toy: Toy) -> None:
    sae = open_sae(toy.params, "early")
    boost = (Op("add", 7, 3.5, 1, "early"),)
    ids = engine.render(PROMPT)
    x = residual(engine, ids, 1)
    assert torch.allclose(residual(engine, ids, 1, boost) - x, 3.5 * sae.W_dec[7].expand_as(x), atol=1e-5)
    before, after = (engine.read([ask(capture=replace(TOP, stage=stage), ops=boost)])[0] for stage in ("before", "after"))
    assert np.allclose(before.values, sae.encode(x).numpy(), atol=1e-5)
    assert np.allclose(after.values, sae.encode(x + 3.5 * sae.W_dec[7]).numpy(), atol=1e-4)
    assert before.positions.tolist() == list(range(len(ids)))


def test_a_clamp_sets_the_latents_share_and_keeps_the_error(engine: HfEngine, toy: Toy) -> None:
    """x' = decode(f with f_i ← v) + (x − decode(f)), for several latents at once, from one x."""
    sae = open_sae(toy.params, "late")
    ids = engine.render(PROMPT)
    x = residual(engine, ids, 2)
    ops = (
        Op("clamp", 3, 2.0, 2, "late"),
        Op("clamp", 4, 0.0, 2, "late"),
        Op("add", 3, 1.5, 2, "late"),
        Op("add", 90, -2.0, 2, "late"),
    )
    f = sae.encode(x)
    target = f.clone()
    target[:, 3], target[:, 4] = 2.0 + 1.5, 0.0
    target[:, 90] -= 2.0
    expected = sae.decode(target) + (x - sae.decode(f))
    assert torch.allclose(residual(engine, ids, 2, ops), expected, atol=1e-4)


def residual(engine: HfEngine, ids: tuple[int, ...], layer: int, ops: tuple[Op, ...] = ()) -> torch.Tensor:
    """The stream after a block as the next one receives it."""
    caught: list[torch.Tensor] = []
    handle = engine.model.model.layers[layer + 1].register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0][0].clone()))
    logits(engine, ask(ops=ops), ids)
    handle.remove()
    return caught[0]


def test_ops_of_one_request_see_one_stream_whatever_their_order(engine: HfEngine) -> None:
    ops = (Op("add", 3, 4.0, 1, "early"), Op("clamp", 3, 1.0, 1, "early"), Op("clamp", 2, 0.0, 1, "early"))
    ids = engine.render("Why?")
    one = residual(engine, ids, 1, ops)
    assert torch.allclose(one, residual(engine, ids, 1, ops[::-1]), atol=1e-5)


def test_clamping_an_inactive_latent_to_zero_changes_no_bit(engine: HfEngine, toy: Toy) -> None:
    for name, layer in (("early", 1), ("late", 2)):
        x = residual(engine, engine.render("Why?"), layer)
        sae = open_sae(toy.params, name)
        for row in x:
            quiet = (sae.encode(row) == 0).nonzero()[:, 0].tolist()
            assert len(quiet) > 10
            site = _Site([Part(Op("clamp", i, 0.0, layer, name), sae, Span(0, None)) for i in quiet])
            assert torch.equal(site(row[None], 0), row[None])
            assert site.applied == 1


@pytest.mark.parametrize(("scope", "touched"), [("all", "all"), ("prompt", "prompt"), ("generated", "reply"), ("[2,5)", "few")])
def test_a_scope_holds_for_its_positions_and_no_other(engine: HfEngine, scope: str, touched: str) -> None:
    output = engine.generate([ask(ops=(Op("add", 5, 3.0, 1, "early"),), scope=scope)])[0]
    n, m = len(output.prompt_token_ids), len(output.token_ids)
    assert output.applied == {"all": n + m - 1, "prompt": n, "reply": m - 1, "few": 3}[touched]
    ids = output.prompt_token_ids
    moved = (residual(engine, ids, 1, (Op("add", 5, 3.0, 1, "early"),)) - residual(engine, ids, 1)).norm(dim=-1)
    assert bool((moved > 0.1).all())
    sites = engine._sites(ask(ops=(Op("add", 5, 3.0, 1, "early"),), scope=scope), n, n + m)
    stream = torch.zeros(n, engine.model.config.hidden_size)
    rows = sites[1](stream, 0).norm(dim=-1) > 0
    expected = {"all": n, "prompt": n, "reply": 0, "few": 3}[touched]
    assert int(rows.sum()) == expected


def test_applied_counts_every_hooked_block(engine: HfEngine) -> None:
    output = engine.generate(
        [ask(ops=(Op("add", 5, 1.0, 1, "early"), Op("add", 6, 1.0, 1, "early"), Op("add", 7, 1.0, 2, "late")))]
    )[0]
    assert output.applied == 2 * (len(output.prompt_token_ids) + len(output.token_ids) - 1)


def test_the_capture_modes_agree_with_one_another(engine: HfEngine) -> None:
    def read(**changes: object) -> object:
        return engine.read([ask(prefill="One takes", capture=replace(TOP, **changes))])[0]

    full = read()
    n = len(engine.render(PROMPT, "clean", "One takes"))
    assert full.values.shape == (n, 96)
    some = read(mode="latents", latents=(8, 3))
    assert np.allclose(some.values, full.values[:, [8, 3]], atol=1e-6)
    top = read(mode="topk", k=4)
    assert np.allclose(top.values, -np.sort(-full.values)[:, :4], atol=1e-6)
    assert np.allclose(np.take_along_axis(full.values, top.indices.astype(int), 1), top.values, atol=1e-6)
    largest = read(mode="max", positions="[1,6)")
    assert np.allclose(largest.values, full.values[1:6].max(0), atol=1e-6)
    assert largest.indices.tolist() == (1 + full.values[1:6].argmax(0)).tolist()
    assert largest.positions.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("positions", ["all", "[26,33)"])
def test_generating_and_reading_the_same_tokens_give_the_same_rows(engine: HfEngine, positions: str) -> None:
    capture = replace(TOP, positions=positions, stage="after")
    request = ask(ops=(Op("add", 5, 9.0, 1, "early"),), scope="[30,32)", capture=capture)
    output = engine.generate([request])[0]
    assert output.reading is not None
    assert output.reading.expected == (len(output.prompt_token_ids) + len(output.token_ids) - 1 if positions == "all" else 7)
    ids = (*output.prompt_token_ids, *output.token_ids[:-1])
    again = engine.read([replace(request, prompt="", token_ids=ids)])[0]
    assert output.reading.positions.tolist() == again.positions.tolist()
    assert np.allclose(output.reading.values, again.values, atol=1e-4)


def test_a_reading_counts_the_prefill_as_generated(engine: HfEngine) -> None:
    n = len(engine.render("Why?"))
    reading = engine.read(
        [Request(prompt="Why?", prefill="Because.", sampling=GREEDY, capture=replace(TOP, positions="generated"))]
    )[0]
    assert reading.positions.tolist() == list(range(n, n + len("Because.")))


def test_a_seed_gives_one_reply_and_another_seed_another(engine: HfEngine) -> None:
    requests = [ask(sampling=SAMPLED, seed=seed) for seed in (1, 2, 1)]
    first, second, third = (output.token_ids for output in engine.generate(requests))
    assert first == third != second


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ops": (Op("add", 96, 1.0, 1, "early"),)}, "no latent 96 in SAE 'early', which has 96"),
        ({"ops": (Op("add", 1, float("nan"), 1, "early"),)}, "not a finite number"),
        ({"ops": (Op("add", 1, 1.0, 3, "early"),)}, "trained after block 1, not 3"),
        ({"ops": (Op("add", 1, 1.0, 9, "early"),)}, "no block 9"),
        ({"ops": (Op("clamp", 1, 1.0, 1, "early"),) * 2}, "clamped twice"),
        ({"scope": "[4,4)"}, "holds no position"),
        ({"scope": "later"}, "none of 'all'"),
        ({"prompt": ""}, "neither"),
        ({"token_ids": (1, 2)}, "both"),
        ({"prompt_format": "double_header"}, "has 'clean' only"),
        ({"capture": replace(TOP, mode="topk", k=97)}, "top 97"),
        ({"capture": replace(TOP, mode="latents")}, "names none"),
        ({"sampling": replace(GREEDY, top_p=0.0)}, "top_p 0.0 is out of range"),
        ({"prompt": "x" * 600}, "takes fewer than 512"),
    ],
)
def test_what_cannot_be_done_as_asked_is_refused_in_a_sentence(engine: HfEngine, changes: dict[str, object], says: str) -> None:
    with pytest.raises(SpecError, match=says.replace("(", r"\(")):
        engine.generate([ask(**changes)])


def test_an_unknown_sae_is_refused_by_name(engine: HfEngine) -> None:
    with pytest.raises(ValueError, match=r"no SAE 'erly' in params.yaml; nearest: early"):
        engine.generate([ask(ops=(Op("add", 1, 1.0, 1, "erly"),))])


def test_an_adapter_is_served_on_top(toy: Toy, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(toy.folder, dtype=torch.float32, attn_implementation="eager")
    tuned = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    params = toy.params
    block = params.models[toy.name].model_copy(update={"adapter": str(tmp_path / "adapter")})
    engine = HfEngine.open(params.model_copy(update={"models": params.models | {toy.name: block}}), toy.name)
    ids = engine.render("Why?")
    with torch.inference_mode():
        expected = tuned(input_ids=torch.tensor([ids])).logits[0, -1]
    assert torch.allclose(logits(engine, ask(), ids), expected, atol=1e-4)
