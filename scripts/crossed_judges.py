"""Experiment 7 on tiny with two judges of known error beside the others, and what it finds of their errors.

    python scripts/crossed_judges.py                    in the usual store, where the arms of exp07 have been run
    ESR_STORE=DIR python scripts/crossed_judges.py      in another

Both judges are behind interfaces, Anthropic's and an OpenAI-compatible one (tests/judge_server.py on this machine); each sees a restart
that is there (by the restart detector) with probability 0.9 and none where there is none with probability 0.985, by draws of its own. The run is experiment 7's;
docs/benchmarks/crossed_judges.json says what each of its numbers should be and is.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from esr import params as parameters
from esr.count import agreement, reliability
from esr.count.statistics import wilson
from esr.experiment import Selection
from esr.params import HOME
from esr.show.crossed import DETECTOR, crossed
from esr.store import Store

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from judge_server import Provider, Schedule  # noqa: E402  # the tests' folder is not installed

SENSITIVITY, SPECIFICITY = 0.9, 0.985
KEY = "not-a-real-key"
OUT = HOME / "docs" / "benchmarks" / "crossed_judges.json"


def judges(servers: dict[str, Provider]) -> dict[str, dict[str, Any]]:
    """Their blocks of params.yaml."""
    anthropic, openai = servers
    alike = {"model": "scripted", "price_in": 0.0, "price_out": 0.0, "key_env": "SCRIPTED_KEY", "reference_names": []}
    return {
        anthropic: {**alike, "client": "anthropic", "api_base": servers[anthropic].url},
        openai: {**alike, "client": "litellm", "model": "openai/scripted", "api_base": f"{servers[openai].url}/v1"},
    }


def run(servers: dict[str, Provider], folder: Path) -> None:
    tree = yaml.safe_load((HOME / "params.yaml").read_text(encoding="utf-8"))
    tree["judges"] |= judges(servers)
    tree["by_model"]["tiny"]["exp07"] = {"judges": ["lexical", "topical", *servers]}
    file = folder / "params.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    env = {
        **os.environ,
        "ESR_PARAMS": str(file),
        "SCRIPTED_KEY": KEY,
        "ANTHROPIC_API_KEY": KEY,
        "ESR_LIMITS": str(folder / "limits"),
    }
    subprocess.run([sys.executable, "-m", "flows", "exp07", "tiny"], check=True, cwd=HOME, env=env)


def found(rows: pd.DataFrame, names: list[str]) -> Iterator[dict[str, Any]]:
    """Of each judge: the share of restarts that it sees and of other replies in which it sees none, by the restart detector."""
    seen = rows[rows["judge"] == DETECTOR].drop_duplicates("trial_id").set_index("trial_id")["multi"]
    for name in names:
        own = rows[rows["judge"] == name].drop_duplicates(["trial_id", "latent"])
        truth = own["trial_id"].map(seen).astype(bool)
        multi = own["multi"].astype(bool)
        for what, asked, which, right in (
            ("sensitivity", SENSITIVITY, truth, multi),
            ("specificity", SPECIFICITY, ~truth, ~multi),
        ):
            n, k = int(which.sum()), int((which & right).sum())
            span = wilson(k, n)
            assert span is not None
            told = {"judge": name, "what": what, "asked": asked, "value": k / n, "n": n, "interval": [span.low, span.high]}
            yield {**told, "held": bool(span.low <= asked <= span.high)}


def expected(rows: pd.DataFrame, names: list[str]) -> Iterator[dict[str, Any]]:
    """How often two judges both see a restart or both none: what follows from their errors, and what experiment 7 counts."""
    own = rows[rows["judge"] == DETECTOR]
    p = float((own["weight"] * own["multi"]).sum() / own["weight"].sum())
    one = p * SENSITIVITY + (1 - p) * SPECIFICITY
    both = p * (SENSITIVITY**2 + (1 - SENSITIVITY) ** 2) + (1 - p) * (SPECIFICITY**2 + (1 - SPECIFICITY) ** 2)
    for pair in agreement.pairs(rows[rows["judge"].isin([DETECTOR, *names])]):
        asked = one if DETECTOR in (pair.judge, pair.other) else both
        span = pair.multi.interval
        assert span is not None
        told = {"judge": pair.judge, "other": pair.other, "expected": asked, "value": pair.multi.value, "n": pair.n}
        yield {**told, "interval": [span.low, span.high], "held": bool(span.low <= asked <= span.high)}


def main() -> None:
    names = ["scripted-a", "scripted-b"]
    servers = {
        name: Provider(schedule=Schedule(faults=1.0, kinds=(f"errs {SENSITIVITY} {SPECIFICITY} {name}",))).start() for name in names
    }
    with tempfile.TemporaryDirectory() as folder:
        run(servers, Path(folder))
    for server in servers.values():
        server.stop()
    told = counted(Store(parameters.store()), names)
    OUT.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(json.dumps([*told["errors"], *told["agreement"]], indent=1))


def counted(store: Store, names: list[str]) -> dict[str, Any]:
    """What is written."""
    rows = crossed(store, Selection("exp07", "tiny", "full", "lexical"))
    pairs = [
        {"judge": p.judge, "other": p.other, "n": p.n, **{name: asdict(getattr(p, name)) for name in ("multi", "kappa", "pabak")}}
        for p in agreement.pairs(rows)
    ]
    ranks = [
        {
            "judge": one.judge,
            "other": one.other,
            "rates": dict(zip(one.groups, zip(*one.rates, strict=True), strict=True)),
            "tau": asdict(one.tau),
        }
        for one in reliability.ranks(rows, "multi", "source", seed=1)
    ]
    alpha = asdict(reliability.alpha(rows, "multi"))
    return {
        "errors": list(found(rows, names)),
        "agreement": list(expected(rows, names)),
        "pairs": pairs,
        "alpha": alpha,
        "ranks": ranks,
    }


if __name__ == "__main__":
    main()
