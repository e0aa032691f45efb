"""Throughput of other steering plugins for vLLM beside this one, each in an engine of its own on one GPU, asked in turn round by round.

python scripts/gpu_peers.py OUT                  plain, plugin, hotwire-vllm and vllm-lens, as far as each is installed and starts
python scripts/gpu_peers.py OUT plain plugin     these alone

Every request of a round is steered by one vector after one block. hotwire-vllm keeps 16 pairs of vector and scale for good, so all
are asked to steer by one of 16. Replies are not compared; raw numbers go to OUT/engine-peers.json.
"""

import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gpu_engine import ENVIRONMENT, note
from gpu_throughput import GRAPHS, SHAPES, SMALL, WEIGHTS_NOTE, Child, errors, rounds, say

SHAPE = SHAPES["8b-half"]
VECTORS = 16
PLUGINS = {"plain": "", "plugin": "esr", "hotwire": "hotwire", "lens": "activations"}
"""Which of vLLM's plugins are loaded, by their entry points' names."""
PEERS = {"hotwire": "hotwire-vllm", "lens": "vllm-lens"}
"""Their packages."""


def serve(kind: str) -> None:
    import torch
    from transformers import LlamaConfig

    folder = Path(tempfile.mkdtemp())
    torch.manual_seed(0)
    rows = torch.randn(VECTORS, SHAPE.hidden) * SHAPE.hidden**-0.5
    os.environ["VLLM_PLUGINS"] = PLUGINS[kind]
    (folder / "vectors").mkdir()
    for number, row in enumerate(rows):
        torch.save(row.repeat(SHAPE.layers, 1), folder / "vectors" / f"v{number}.pt")
    os.environ["HOTWIRE_VECTORS"] = str(folder / "vectors")
    from vllm import LLM, __version__

    if kind == "plugin":
        from safetensors.torch import save_file

        save_file({f"layer.{SHAPE.layer}": rows}, folder / "moods.safetensors")
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=128256,
        max_position_embeddings=4096,
        torch_dtype="bfloat16",
        **SHAPE.config(),
    ).save_pretrained(folder / "model")
    block = {"layers": [SHAPE.layer], "saes": {}, "directions": {"moods": {"path": str(folder / "moods.safetensors")}}}
    started = time.time()
    llm = LLM(
        model=str(folder / "model"), load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16", max_model_len=2048, max_num_seqs=256,
        max_num_batched_tokens=8192, kv_cache_memory_bytes=int(SHAPE.cache_gib * 2**30), additional_config={"sae_steering": block} if kind == "plugin" else {},
        **SMALL, **({} if kind == "lens" else {"compilation_config": GRAPHS}),
    )  # fmt: skip
    config = llm.llm_engine.vllm_config
    say({
        "ready": time.time() - started, "vllm": __version__, "eager": bool(config.model_config.enforce_eager),
        "graphs": str(config.compilation_config.cudagraph_mode), "v2": bool(getattr(config, "use_v2_model_runner", False)),
    })  # fmt: skip
    for line in sys.stdin:
        try:
            say(run(llm, kind, rows, **json.loads(line)))
        except Exception as error:  # the other engines' rounds go on
            say({"error": repr(error)[:1500]})


def run(llm: Any, kind: str, rows: Any, *, mode: str, n: int, prompt: int, gen: int, seed: int) -> dict[str, Any]:
    import random

    from vllm import SamplingParams, TokensPrompt

    rng = random.Random(seed)
    prompts = [TokensPrompt(prompt_token_ids=[rng.randrange(1000, 100000) for _ in range(prompt)]) for _ in range(n)]
    params = [
        SamplingParams(
            temperature=0, max_tokens=gen, ignore_eos=True, detokenize=False,
            extra_args=steered(kind, rows, i % VECTORS) if mode == "add" else None,
        )
        for i in range(n)
    ]  # fmt: skip
    start = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "generated": sum(len(output.outputs[0].token_ids) for output in outputs),
        "prompt_tokens": n * prompt,
    }


def steered(kind: str, rows: Any, number: int) -> dict[str, Any] | None:
    """The same vector after the same block, as each plugin is told."""
    if kind == "plugin":
        return {"sae": json.dumps({"ops": [{"op": "add", "sae": "moods", "i": number, "v": 1.5, "layer": SHAPE.layer}]})}
    if kind == "hotwire":
        return {"hotwire": json.dumps({"id": f"v{number}", "layer": SHAPE.layer, "scale": 1.5})}
    if kind == "lens":
        from vllm_lens import SteeringVector

        vector = SteeringVector(activations=rows[number : number + 1], layer_indices=[SHAPE.layer], scale=1.5)
        return {"apply_steering_vectors": [vector]}
    return None


def main(out: Path, kinds: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    kids = {kind: Child("gpu_peers.py", "--serve", kind, env=ENVIRONMENT) for kind in kinds}
    result: dict[str, Any] = {"what": WEIGHTS_NOTE, "gpu": os.popen("nvidia-smi -L").read().partition(" (")[0]}
    for kind, kid in kids.items():
        result[kind] = kid.answer()
        note(kind, json.dumps(result[kind])[-1200:])
    up = [kind for kind in kinds if "error" not in result[kind]]
    result["versions"] = {kind: f"{name} {version(name)}" for kind, name in PEERS.items() if kind in up}
    plan = [("plain", "plain", "none")] if "plain" in up else []
    plan += [
        (f"{kind} {what}", kind, mode) for kind in up if kind != "plain" for what, mode in (("idle", "none"), ("steered", "add"))
    ]
    batches = {"batch256 of 256": {"n": 256, "prompt": 64, "gen": 256}, "batch16 of 256": {"n": 16, "prompt": 64, "gen": 256}}
    quick = [one for one in plan if one[1] != "lens"]
    slow = [one for one in plan if one[1] in ("plain", "lens")]  # without graphs, half a minute a round
    work = [(f"{what}, those with graphs", what, quick, 7) for what in batches] if len(quick) > 1 else []
    work += [(f"{what}, the one without", what, slow, 3) for what in batches] if "lens" in up else []
    for named, what, some, times in work:
        result[named] = rounds(kids, some, batches[what], times, time.time() + 240)
        note(named, json.dumps(result[named].get("relative")), *errors(result[named]))
        (out / "engine-peers.json").write_text(json.dumps(result, indent=1) + "\n")
    for kid in kids.values():
        kid.end()


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    else:
        main(Path(sys.argv[1]), sys.argv[2:] or list(PLUGINS))
