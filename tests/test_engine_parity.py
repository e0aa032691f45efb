"""The vLLM engine against the readable reference, token by token, under everything a scheduler does to a request.

Small chunks, a cache of few blocks (so that requests are preempted), repeated prompts, staggered callers; a random Llama and a
random Gemma-2, eager and compiled, in float32 on the CPU.
"""

import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from prometheus_client import REGISTRY
from tiny_models import D_SAE, Architecture, Toy, make_toy

from esr.engine import Capture, Output, Request
from esr.engine.hf import HfEngine
from esr.engine.vllm import VllmEngine
from esr.errors import EngineError, SpecError
from esr.study import steer
from esr.study.plan import confined, ramped, until
from esr.types import Op, Sampling, Trial

pytestmark = pytest.mark.slow

SAMPLING = Sampling(temperature=0, top_p=1, repetition_penalty=1, max_tokens=24)
STRESS = {
    "max_model_len": 256, "max_num_seqs": 8, "max_num_batched_tokens": 40, "block_size": 32, "num_gpu_blocks_override": 14,
    "enable_prefix_caching": True, "enable_chunked_prefill": True, "disable_log_stats": False,
}  # fmt: skip
KINDS = [("llama", "eager"), ("llama", "compiled"), ("gemma2", "eager"), ("gemma2", "compiled")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Architecture, Toy]:
    return {a: make_toy(tmp_path_factory.mktemp(a), a) for a in ("llama", "gemma2")}


class Pair:
    """An engine, and what the reference answers; the reference's answers are kept between engines of one architecture."""

    def __init__(self, engine: VllmEngine, reference: HfEngine, known: dict[tuple[str, Request], Output], name: str) -> None:
        self.engine, self.reference, self.known, self.name = engine, reference, known, name

    def wanted(self, request: Request) -> Output:
        key = (self.name, request)
        if key not in self.known:
            self.known[key] = self.reference.generate([request])[0]
        return self.known[key]

    def same(self, requests: list[Request], outputs: list[Output]) -> None:
        for request, got in zip(requests, outputs, strict=True):
            want = self.wanted(request)
            assert got.token_ids == want.token_ids, request
            assert (got.text, got.finish_reason, got.applied) == (want.text, want.finish_reason, want.applied), request
            if request.capture is not None:
                agree(got, want, request)


def agree(got: Output, want: Output, request: Request) -> None:
    assert got.reading is not None
    assert want.reading is not None
    assert got.reading.expected == want.reading.expected == len(got.reading.positions)
    assert np.array_equal(got.reading.positions, want.reading.positions)
    assert np.abs(got.reading.values - want.reading.values).max() < 1e-4, request
    if got.reading.indices is not None and want.reading.indices is not None:
        clear = want.reading.values > 1e-3  # among equal zeros any latent may be named
        assert np.array_equal(got.reading.indices[clear], want.reading.indices[clear])


@cache
def known() -> dict[tuple[str, Request], Output]:
    return {}


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(kind))
def pair(request: pytest.FixtureRequest, folders: dict[Architecture, Toy]) -> Iterator[Pair]:
    architecture, mode = request.param
    toy = folders[architecture]
    engine = VllmEngine(toy.params, toy.name, enforce_eager=mode == "eager", **STRESS)
    try:
        yield Pair(engine, HfEngine.open(toy.params, toy.name), known(), toy.name)
    finally:
        engine.close()


def op(rng: random.Random) -> Op:
    layer, sae = rng.choice([(1, "early"), (2, "late")])
    kind = rng.choice(["add", "clamp"])
    return Op("add" if kind == "add" else "clamp", rng.randrange(D_SAE), round(rng.uniform(-6, 10), 3), layer, sae)


def mixed(n: int, seed: int = 7) -> list[Request]:
    """Plain, boosts, clamps, several latents, both blocks, scopes, captures."""
    rng, out = random.Random(seed), []
    for i in range(n):
        ops: dict[tuple[int, str], Op] = {}
        for _ in range(i % 4):
            one = op(rng)
            ops[one.latent, one.sae] = one
        chosen = tuple(ops.values())
        if i % 8 == 3:  # both on one latent
            first = chosen[0]
            chosen = (*chosen, Op("add" if first.kind == "clamp" else "clamp", first.latent, 2.5, first.layer, first.sae))
        out.append(
            Request(
                prompt=f"Question {i}: " + "how does it work? " * rng.randrange(1, 6),
                ops=chosen,
                scope=rng.choice(["all", "all", "prompt", "generated", "[3,30)"]),
                sampling=SAMPLING,
                capture=capture(i),
            )
        )
    return out


def capture(i: int) -> Capture | None:
    stage = "after" if i % 5 == 1 else "before"
    if i % 6 == 1:
        return Capture(layer=2, sae="late", mode="latents", latents=(1, 5, 9), stage=stage)
    if i % 6 == 2:
        return Capture(layer=1, sae="early", mode="topk", k=4, positions="generated", stage=stage)
    if i % 6 == 3:
        return Capture(layer=2, sae="late", mode="max", stage=stage)
    return Capture(layer=1, sae="early", mode="all", positions="[2,40)") if i % 12 == 4 else None


def test_a_seed_draws_the_same_tokens_however_the_prompt_is_cut(pair: Pair) -> None:
    drawn = Sampling(temperature=0.8, top_p=1, repetition_penalty=1.1, max_tokens=16)
    requests = [replace(request, sampling=drawn, seed=i, capture=None) for i, request in enumerate(mixed(12, seed=11))]
    together = [output.token_ids for output in pair.engine.generate(requests)]
    alone = [pair.engine.generate([request])[0].token_ids for request in reversed(requests)]
    assert together == alone[::-1]
    assert len(set(together)) == len(requests)


def counter(name: str) -> float:
    return sum(s.value for m in REGISTRY.collect() for s in m.samples if s.name == name)


def test_a_mixed_batch_of_staggered_callers_is_the_reference_token_by_token(pair: Pair) -> None:
    requests = mixed(36)
    before = counter("vllm:num_preemptions_total")
    outputs: list[Output | None] = [None] * len(requests)

    def caller(start: int) -> None:
        time.sleep(0.05 * start)
        part = range(start, len(requests), 4)
        for i, output in zip(part, pair.engine.generate([requests[i] for i in part]), strict=True):
            outputs[i] = output

    threads = [threading.Thread(target=caller, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pair.same(requests, [output for output in outputs if output is not None])
    assert counter("vllm:num_preemptions_total") > before, "the cache was meant to be too small"


def test_a_shared_prompt_never_carries_one_request_s_steering_to_another(pair: Pair) -> None:
    prompt = "The same long question, asked again and again, so that its blocks are in the prefix cache. " * 2
    a = Request(prompt=prompt, sampling=SAMPLING, ops=(Op("add", 7, 9.0, 1, "early"),))
    b = Request(prompt=prompt, sampling=SAMPLING, ops=(Op("add", 8, 9.0, 1, "early"), Op("clamp", 3, 2.0, 2, "late")))
    plain = Request(prompt=prompt, sampling=SAMPLING)
    read = Request(prompt=prompt, sampling=SAMPLING, capture=Capture(layer=2, sae="late", mode="latents", latents=(3,)))
    before = counter("vllm:prefix_cache_hits_total")
    assert len({pair.wanted(r).token_ids for r in (plain, a, b)}) == 3, "the three must differ for this to show anything"
    for order in ([plain, a, plain, b, a, read, plain], [b, b, plain, a], [a, plain]):
        for request in order:
            pair.same([request], pair.engine.generate([request]))
    together = [a, plain, b, plain, a, read]
    pair.same(together, pair.engine.generate(together))
    assert counter("vllm:prefix_cache_hits_total") > before, "equal requests are meant to share the cache"


def test_a_reading_is_the_reference_s(pair: Pair) -> None:
    requests = [
        Request(prompt="Why?", prefill=" Because it is so.", sampling=SAMPLING, ops=ops, scope=scope,
                capture=Capture(layer=2, sae="late", mode=mode, k=3 if mode == "topk" else 0, latents=(4, 2) if mode == "latents" else (), positions=positions))
        for ops, scope, mode, positions in (
            ((), "all", "latents", "all"), ((Op("add", 5, 6.0, 1, "early"),), "generated", "topk", "generated"),
            ((Op("clamp", 5, 6.0, 1, "early"),), "prompt", "max", "prompt"), ((Op("add", 5, 6.0, 1, "early"),), "all", "all", "[1,9)"),
        )
    ]  # fmt: skip
    for got, want in zip(pair.engine.read(requests), pair.reference.read(requests), strict=True):
        assert np.array_equal(got.positions, want.positions)
        assert np.abs(got.values - want.values).max() < 1e-4
        assert got.expected == want.expected


@pytest.mark.parametrize("scope", ["all", "generated", "prompt", "generated[2,)", "[0,9)"])
def test_a_trial_begun_with_tokens_gets_the_same_reply(pair: Pair, scope: str) -> None:
    """Tokens that no text would be tokenised into, under each scope: the prefix counts as prompt."""
    ids = pair.engine.render("", prefill="It is so. Wait, no. Try again.")[3:]
    op = (Op("add", 3, 6.0, 1, "early"),)
    trials = [
        Trial(
            model="tiny", weights="w", meaning="", prompt="Why is that?", prompt_format="clean", prefill=begun, seed=1, sampling=SAMPLING,
            ops=op, scope=scope,
        )
        for begun in (ids[1:6], ids[5:1:-1], (*ids[:3], *ids[:3]))
    ]  # fmt: skip
    asked = [steer.request(trial) for trial in trials]
    got = pair.engine.generate(asked)
    pair.same(asked, got)
    bare = len(pair.engine.render("Why is that?"))
    for trial, output in zip(trials, got, strict=True):
        assert output.prompt_token_ids[bare:] == trial.prefill
        assert steer.reply(trial, output).token_ids == output.token_ids


def test_steering_that_grows_fades_or_ends_at_a_restart_is_the_same(pair: Pair) -> None:
    """Behind its marker a trial that is steered until then goes on as if what was added were 0."""
    base = Trial(
        model="tiny", weights="w", meaning="", prompt="Why is that?", prompt_format="clean", seed=1, sampling=SAMPLING,
        ops=(Op("add", 3, 6.0, 1, "early"), Op("add", 5, 4.0, 2, "late")),
    )  # fmt: skip
    [whole] = pair.engine.generate([steer.request(base)])
    marker = whole.token_ids[4]
    changes = (ramped(((0, 0.0), (9, 1.0))), ramped(((2, 1.0), (9, 0.0))), until(marker), confined("generated[3,)"))
    asked = [steer.request(change(base)) for change in changes]
    got = pair.engine.generate(asked)
    pair.same(asked, got)
    met = whole.token_ids.index(marker) + 1
    assert got[2].token_ids[:met] == whole.token_ids[:met]
    bare = replace(asked[0], ops=(), prompt="", token_ids=(*whole.prompt_token_ids, *whole.token_ids[:met]))
    assert len({got[2].token_ids, whole.token_ids, pair.engine.generate([bare])[0].token_ids}) >= 2


def test_nothing_is_left_behind(pair: Pair) -> None:
    pair.engine.generate(mixed(8, seed=11))
    for _ in range(50):
        stats = pair.engine.stats()
        if stats["live"] == 0:
            break
        time.sleep(0.1)
    assert {key: stats[key] for key in ("live", "records", "held_bytes", "nonzero", "pending", "unchecked")} == dict.fromkeys(
        ("live", "records", "held_bytes", "nonzero", "pending", "unchecked"), 0
    )


def test_a_clamp_to_zero_of_a_latent_that_is_silent_changes_no_bit(pair: Pair) -> None:
    prompt = Request(prompt="Which of these latents is silent here? " * 2, sampling=SAMPLING)
    everything = Capture(layer=1, sae="early", mode="all")
    [plain] = pair.engine.generate([replace(prompt, capture=everything)])
    assert plain.reading is not None
    here = plain.reading.values[9]
    late = Capture(layer=2, sae="late", mode="all", stage="after")

    def after(latents: np.ndarray) -> Output:
        ops = tuple(Op("clamp", int(latent), 0.0, 1, "early") for latent in latents[:4])
        return pair.engine.generate([replace(prompt, ops=ops, scope="[9,10)", capture=late)])[0]

    unclamped, silent, loud = after(np.array([])), after(np.flatnonzero(here == 0)), after(np.flatnonzero(here > 0))
    assert unclamped.reading is not None
    assert silent.reading is not None
    assert loud.reading is not None
    assert (unclamped.applied, silent.applied, loud.applied) == (0, 1, 1)
    assert silent.token_ids == unclamped.token_ids
    assert np.array_equal(silent.reading.values, unclamped.reading.values)
    assert not np.array_equal(loud.reading.values, unclamped.reading.values)


def test_a_request_that_cannot_be_steered_as_asked_is_refused_and_the_others_go_on(pair: Pair) -> None:
    good = Request(prompt="Yes?", sampling=SAMPLING)
    for bad in (
        Request(prompt="No", sampling=SAMPLING, ops=(Op("add", D_SAE, 1.0, 1, "early"),)),
        Request(prompt="No", sampling=SAMPLING, ops=(Op("add", 1, float("nan"), 1, "early"),)),
        Request(prompt="No", sampling=SAMPLING, ops=(Op("add", 1, 1.0, 3, "early"),)),
        Request(prompt="No", sampling=SAMPLING, ops=(Op("clamp", 1, 1.0, 1, "early"), Op("clamp", 1, 2.0, 1, "early"))),
    ):
        with pytest.raises(SpecError):
            pair.engine.generate([good, bad])
    pair.same([good], pair.engine.generate([good]))


@pytest.mark.parametrize(
    "pair", [("llama", "compiled"), ("gemma2", "compiled")], indirect=True, ids=["llama-compiled", "gemma2-compiled"]
)
def test_unsteered_rows_are_those_of_vllm_without_the_plugin(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import LLM, SamplingParams, TokensPrompt

    steered = [
        Request(prompt=f"Prompt {i}", sampling=SAMPLING, ops=(Op("add", i, 9.0, 1, "early"),) if i % 2 else ()) for i in range(8)
    ]
    found = pair.engine.generate(steered)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    plain = LLM(model=pair.engine.block.hub, dtype="float32", enforce_eager=True, max_model_len=256, max_num_seqs=8)
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, stop_token_ids=list(pair.engine.chat.stop_ids))
    prompts = [TokensPrompt(prompt_token_ids=list(output.prompt_token_ids)) for output in found]
    wanted = [tuple(output.outputs[0].token_ids) for output in plain.generate(prompts, params, use_tqdm=False)]
    plain.llm_engine.engine_core.shutdown()
    assert [output.token_ids for output in found[::2]] == wanted[::2]
    assert [output.token_ids for output in found[1::2]] != wanted[1::2]


@pytest.mark.parametrize("architecture", ["mistral", "qwen2", "qwen3", "gemma3", "glm4", "phi3", "olmo", "olmo2", "smollm3"])
def test_the_other_families_are_steered_and_read_like_the_reference(architecture: Architecture, tmp_path: Path) -> None:
    toy = make_toy(tmp_path, architecture)
    engine = VllmEngine(toy.params, toy.name, enforce_eager=True, **STRESS)
    try:
        pair = Pair(engine, HfEngine.open(toy.params, toy.name), known(), toy.name)
        requests = mixed(16)
        pair.same(requests, engine.generate(requests))
    finally:
        engine.close()
    assert len({pair.wanted(request).token_ids for request in requests}) == len(requests)


def test_an_adapter_and_steering_go_together(folders: dict[Architecture, Toy], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    toy = folders["llama"]
    torch.manual_seed(5)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(toy.folder, dtype=torch.float32),
        LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "v_proj", "up_proj", "down_proj"], init_lora_weights=False),
    )
    model.save_pretrained(tmp_path / "adapter")
    block = toy.params.model(toy.name).model_copy(update={"adapter": str(tmp_path / "adapter")})
    params = toy.params.model_copy(update={"models": {**toy.params.models, toy.name: block}})
    reading = Capture(layer=2, sae="late", mode="latents", latents=(3, 5))
    kinds: tuple[tuple[Op, ...], ...] = ((), (Op("add", 7, 9.0, 1, "early"),), (Op("clamp", 7, 9.0, 2, "late"),))
    requests = [
        Request(prompt=f"Prompt {i}", sampling=SAMPLING, ops=kinds[i % 3], capture=reading if i > 2 else None) for i in range(6)
    ]
    without = HfEngine.open(toy.params, toy.name).generate(requests)
    wanted = HfEngine.open(params, toy.name).generate(requests)
    engine = VllmEngine(params, toy.name, enforce_eager=True, max_model_len=256, max_num_seqs=8)
    try:
        found = engine.generate(requests)
    finally:
        engine.close()
    assert [f.token_ids for f in found] == [w.token_ids for w in wanted]
    assert [f.token_ids for f in found] != [w.token_ids for w in without]
    for f, w in zip(found[3:], wanted[3:], strict=True):
        assert f.reading is not None
        assert w.reading is not None
        assert np.abs(f.reading.values - w.reading.values).max() < 1e-4
    with pytest.raises(EngineError, match="closed"):
        engine.generate(requests)


def test_two_ranks_of_tensor_parallel_steer_and_read_alike(
    folders: dict[Architecture, Toy], monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = sorted(os.sched_getaffinity(0))
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", f"{cores[0]}|{cores[-1]}")
    toy = folders["llama"]
    engine = VllmEngine(toy.params, toy.name, enforce_eager=True, tensor_parallel_size=2, **STRESS)
    try:
        pair = Pair(engine, HfEngine.open(toy.params, toy.name), known(), toy.name)
        requests = mixed(16)
        pair.same(requests, engine.generate(requests))
        ranks = engine._call(engine._engine.collective_rpc("esr_stats"))
    finally:
        engine.close()
    assert [(rank["records"], rank["held_bytes"]) for rank in ranks] == [(0, 0), (0, 0)]
