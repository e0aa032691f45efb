"""Imports 500 MB of synthetic result files and measures time and the largest memory. To docs/benchmarks/import.json.

python scripts/bench_import.py
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from esr.errors import DataError
from esr.params import HOME
from esr.store import Store

FILES, MEGABYTES = 4, 125


def write(path: Path, megabytes: int, first: int) -> int:
    """One result file of about this size; how many trials it holds."""
    trials, latent = 0, 0  # `first` makes the files differ: the same bytes would count once
    reply = "First, take the numbers and write them down, one under the other. " * 30
    with path.open("w", encoding="utf-8") as file:
        file.write('{"experiment_config": {"model_name": "meta-llama/Meta-Llama-3.3-70B-Instruct"}, "results_by_feature": [')
        while file.tell() < megabytes << 20:
            some = [
                {"prompt": "Explain how to add two fractions.", "feature_index_in_sae": latent, "feature_label": "l", "threshold": 9.4,
                 "seed": first + latent * 5 + i, "response": f"{latent} {i} {reply}", "error": None,
                 "score": {"raw_response": reply[:700], "attempts": [{"attempt_text": reply[:400], "score": (latent * 7 + i) % 101}]}}
                for i in range(5)
            ]  # fmt: skip
            feature = {"feature_index_in_sae": latent, "feature_label": "l", "threshold": 9.4, "trials": some, "error": None}
            file.write(("," if latent else "") + json.dumps(feature, indent=4))
            latent, trials = latent + 1, trials + 5
        file.write('], "n_boost_levels": null, "boost_range_std": null}')
    return trials


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        at = folder / "experiment_results" / "claude_haiku_4_5_20251001_judge"
        at.mkdir(parents=True)
        model = "Meta-Llama-3.3-70B-Instruct"
        trials = sum(write(at / f"experiment_results_{model}_20260127_00000{i}.json", MEGABYTES, i * 200_000) for i in range(FILES))
        size = sum(path.stat().st_size for path in at.iterdir())
        environment = {**os.environ, "ESR_STORE": str(folder / "store")}
        start = perf_counter()
        subprocess.run(
            [sys.executable, "-m", "esr", "import-reference", str(folder / "experiment_results")],
            check=True,
            env=environment,
            cwd=HOME,
        )
        taken = perf_counter() - start
        entered = Store(folder / "store").sql("select count(*) as n from trials")["n"][0].as_py()
        if entered != trials:
            raise DataError(f"{trials} trials were written and {entered} entered; the measurement says nothing")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = {
            "files": FILES,
            "megabytes": round(size / 2**20),
            "trials": trials,
            "seconds": round(taken, 1),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
            "peak_mib": round(used.ru_maxrss / 1024),
        }
    found["load"] = os.getloadavg()
    (HOME / "docs" / "benchmarks" / "import.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
