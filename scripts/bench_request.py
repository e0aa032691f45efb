"""What a steered request costs besides the device: microseconds of this code on its way in and out, part by part, on one core.

python scripts/bench_request.py           to docs/benchmarks/request_cost.json
python scripts/bench_request.py --show    prints only

256 requests at once of the kinds that gpu_throughput.py asks of the 8B shape, through the plugin's own functions around stand-ins of vLLM's; no
model is loaded. Medians of rounds, in loops: between vLLM's own work the same takes longer. One process is the engine's and the worker's.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import gpu_throughput
import numpy as np
import torch
from vllm import SamplingParams
from vllm.v1.engine import EngineCoreRequest

from esr.engine import plugin
from esr.engine.directions import Shape
from esr.engine.plugin import admission, mark
from esr.engine.plugin.bank import Bank
from esr.engine.plugin.runners import SteerModelState
from esr.engine.plugin.spec import KEY
from esr.engine.plugin.state import SteerState
from esr.params import HOME

OUT = HOME / "docs" / "benchmarks" / "request_cost.json"
SHAPE = gpu_throughput.SHAPES["8b"]
N, PROMPT, ROWS, DIRECTIONS = 256, 64, 2048, 256
KINDS = ("zero", "add", "directions", "clamp")
Parts = dict[str, list[float]]


def config() -> Any:
    model = SimpleNamespace(
        get_total_num_hidden_layers=lambda: SHAPE.layers, get_hidden_size=lambda: SHAPE.hidden, get_vocab_size=lambda: 128256,
        max_model_len=ROWS, dtype=torch.bfloat16,
    )  # fmt: skip
    return SimpleNamespace(
        additional_config={KEY: {"saes": {"s": SHAPE.sae()}, "layers": list(SHAPE.hooked)}},
        model_config=model,
        scheduler_config=SimpleNamespace(max_num_seqs=N, max_num_batched_tokens=8192),
    )


def worker(of: Any) -> Any:
    """vLLM's model state of a worker with the plugin's in it, with rows of no width."""
    sites = admission.sites_of(of)
    sites.know(Shape("moods", SHAPE.hidden, dict.fromkeys(SHAPE.hooked, DIRECTIONS), "ab" * 32))
    none = torch.zeros(1)
    at = {("moods", layer): (SHAPE.d_sae + DIRECTIONS * i, DIRECTIONS) for i, layer in enumerate(SHAPE.hooked)}
    bank = Bank(
        W_enc=torch.zeros(SHAPE.d_sae, 8), b_enc=torch.zeros(SHAPE.d_sae), threshold=none, W_dec=torch.zeros(1, 8), inverse=none, half=None,
        start={"s": 0}, size={"s": SHAPE.d_sae}, sha256={}, relu={"s": True}, directions=at, loaded={},
    )  # fmt: skip
    state = SteerModelState.__new__(SteerModelState)
    state.steering, state._prepared = SteerState(sites, bank, of, torch.device("cpu")), None
    state.rope_state = state.prompt_embeds_state = None
    return state


def each(parts: Parts, name: str, do: Callable[[Any], object], to: Sequence[Any]) -> None:
    start = time.perf_counter()
    for one in to:
        do(one)
    parts.setdefault(name, []).append((time.perf_counter() - start) / N * 1e6)


def once(kind: str, seed: int, of: Any, model: Any, parts: Parts) -> None:
    requests = [
        EngineCoreRequest(
            request_id=f"{seed}-{i}", prompt_token_ids=list(range(1000 + i, 1000 + i + PROMPT)), mm_features=None,
            sampling_params=SamplingParams(temperature=0, max_tokens=128, ignore_eos=True, extra_args={"sae": text}),
            pooling_params=None, arrival_time=0.0, lora_request=None, cache_salt=None, data_parallel_rank=None,
        )
        for i, text in enumerate(gpu_throughput.specs(kind, N, SHAPE, seed))
    ]  # fmt: skip
    process = SimpleNamespace(vllm_config=of, scheduler=SimpleNamespace())
    admitting, receiving = plugin._admitting(lambda _, request: request), plugin._receiving(lambda _, request: request)
    each(parts, "front end: admission", lambda request: admitting(process, request), requests)
    mark._kept.cache_clear()  # what this process remembers the engine's does not
    each(parts, "engine's process: receiving", lambda request: receiving(process, request), requests)
    new = [
        SimpleNamespace(
            req_id=request.request_id, sampling_params=request.sampling_params, prompt_token_ids=request.prompt_token_ids,
            prefill_token_ids=request.prompt_token_ids,
        )
        for request in requests
    ]  # fmt: skip
    each(parts, "worker: adding", lambda one: model.add_request(*one), list(enumerate(new)))
    step = SimpleNamespace(
        num_reqs=N, idx_mapping_np=np.arange(N, dtype=np.int32), num_computed_tokens_np=np.zeros(N, np.int32),
        num_scheduled_tokens=np.full(N, PROMPT // 2, np.int32), num_tokens_after_padding=N * PROMPT // 2, query_start_loc=None,
        idx_mapping=None, input_ids=None,
    )  # fmt: skip
    each(parts, "worker: tables of the first step", lambda batch: model.preprocess_state(batch, (), None, None), [step])
    state = model.steering
    for sequence in list(state.windows):  # nothing was due: no block has run
        state.begin[sequence], state.end[sequence] = 0, 0
    each(parts, "worker: leaving", lambda one: model.remove_request(one.req_id), new)
    each(parts, "worker: counts", lambda _: state.synchronize(), [None])
    state.refresh(*(np.arange(0) for _ in range(3)))
    for one in new:
        if name := json.loads(one.sampling_params.extra_args["sae"]).get("id"):
            state.forget(name)


def main(rounds: int, show: bool) -> None:
    torch.set_num_threads(1)
    of = config()
    model = worker(of)
    found: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        parts: Parts = {}
        for seed in range(rounds + 2):
            once(kind, seed, of, model, parts)
        found[kind] = {name: round(statistics.median(some[2:]), 1) for name, some in parts.items()}
        found[kind]["in all"] = round(sum(found[kind].values()), 1)
    for name in found[KINDS[0]]:
        print(f"{name:34}" + "".join(f"{kind:>12} {found[kind][name]:6.1f}" for kind in KINDS))
    if not show:
        told = {"what": f"microseconds a request, medians of {rounds} rounds of {N} requests, one core", "kinds": found}
        OUT.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--show", action="store_true")
    asked = parser.parse_args()
    main(asked.rounds, asked.show)
