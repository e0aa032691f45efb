"""`python -m esr.organism build [--what all|corpus|contrast|models|sae|labels] [--seed N] [--out FOLDER] [--device cpu|cuda]`.

`all` makes models, SAE and labels and measures the SAE; the parts use what the folder already holds. `corpus` writes the rows
as JSON lines, to be read by people; training makes its own from the same seed.
"""

import argparse
import hashlib
import json
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from esr.dictionary import training
from esr.organism import contrast, corpus, dictionary, labels, train
from esr.organism.recipe import Build
from esr.sae.canonical import Sae

log = logging.getLogger("esr.organism")
DATA = Path(__file__).parent / "data"
NAMES = ("tiny", "tiny-plain")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m esr.organism", description=__doc__)
    verbs = parser.add_subparsers(required=True)
    build = verbs.add_parser("build", help="make the models, their SAE and its labels")
    build.add_argument("--what", choices=("all", "corpus", "contrast", "models", "sae", "labels"), default="all")
    build.add_argument("--seed", type=int, default=Build().seed)
    build.add_argument("--out", type=Path, default=DATA)
    build.add_argument("--device", choices=("cpu", "cuda"), default=None)
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    make(asked.what, replace(Build(), seed=asked.seed), asked.out, asked.device or device())


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def make(what: str, build: Build, out: Path, where: str) -> None:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = True
    out.mkdir(parents=True, exist_ok=True)
    workers = os.cpu_count() or 1
    if what == "contrast":
        (out / "contrast.tsv").write_text(contrast.table(build.seed), encoding="utf-8")
        return
    if what == "corpus":
        write_corpus(build, out)
        return
    if what in ("all", "models"):
        for name, model in train.models(build, where, workers).items():
            train.save(model, out / name)
    tiny = opened(out / "tiny", where)
    if what in ("all", "sae"):
        training.save(dictionary.train(dictionary.data(tiny, build, where, workers), build, where), out / "sae")
    sae = sae_of(out / "sae").to(where)
    found, score = labels.make(tiny, sae, build, where)
    labels.save(found, out / "labels.csv")
    quality = dictionary.measure(tiny, sae, build, where)
    said = {"build": asdict(build), "sae": dictionary.as_dict(quality), "labels": asdict(score), "sha256": hashes(out)}
    (out / "built.json").write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    log.info("SAE: %s; labels: %s", dictionary.as_dict(quality), score)


def write_corpus(build: Build, out: Path) -> None:
    for kind, purpose, count in (("plain", "plain", build.plain_rows), ("corrected", "mixed", build.mixed_rows)):
        path = out / f"corpus-{purpose}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for i in range(0, count, train.SHARD):
                for row in corpus.rows(kind, f"{build.seed}/{purpose}/{i}", min(train.SHARD, count - i), build.corpus):
                    file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        log.info("%s: %d rows, sha256 %s", path, count, hashlib.sha256(path.read_bytes()).hexdigest())


def opened(folder: Path, where: str) -> Any:
    import torch
    from transformers import LlamaForCausalLM

    model: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(where).eval()


def sae_of(folder: Path) -> Sae:
    from esr.sae.folder import load

    return load(folder, name="tiny-l3")


def hashes(out: Path) -> dict[str, str]:
    kept = [*sorted(out.rglob("*.safetensors")), *sorted(out.rglob("tokenizer.json")), out / "labels.csv"]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


if __name__ == "__main__":
    main()
