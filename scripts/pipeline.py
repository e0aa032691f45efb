"""How well generating and judging overlap, what Prefect costs, and runs of the size of 70b without its model, by one worker and several.

    python scripts/pipeline.py efficiency --model tiny --out docs/benchmarks/pipeline_efficiency.json
    python scripts/pipeline.py overhead --out docs/benchmarks/prefect_overhead.json
    python scripts/pipeline.py size70b --out docs/benchmarks/simulated_70b.json
    python scripts/pipeline.py fleet --out docs/benchmarks/fleet.json

The judge is tests/judge_server.py on this machine, 2 s ± 1 s an answer and 20 requests a second unless said otherwise.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from judge_server import Provider, Schedule  # noqa: E402  # the tests' folder is not a package


def params(folder: Path, engine: str, change: dict[str, Any]) -> dict[str, str]:
    """params.yaml with changes for this measurement, a store of its own, and the environment to run in."""
    from flow_runs import place

    where = place(folder)
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    if engine == "fake":
        tree["saes"]["tiny-l3"]["labels"] = str(folder / "labels.csv")
    merge(tree, change)
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return {**os.environ, **where.env, "ESR_ENGINE": engine}


def merge(tree: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            merge(tree[key], value)
        else:
            tree[key] = value


def timed(line: list[str], env: dict[str, str]) -> dict[str, Any]:
    """Wall and CPU seconds and the peak memory of one command."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        [sys.executable, *line], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    peak = [0]
    threading.Thread(target=watch, args=(process, peak), daemon=True).start()
    said, _ = process.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise RuntimeError(said[-3000:])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(time.monotonic() - start, 1), "cpu_s": round(cpu, 1), "peak_mb": round(peak[0] / 1024), "said": said}


def watch(process: "subprocess.Popen[str]", peak: list[int]) -> None:
    """Peak resident memory of the process itself, in KiB."""
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            return
        peak[0] = max([peak[0], *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.5)


def judged(provider: Provider) -> dict[str, str]:
    return {"ANTHROPIC_BASE_URL": provider.url, "ANTHROPIC_API_KEY": "sk-local"}


def judge_server() -> Provider:
    return Provider(schedule=Schedule(latency=2, jitter=1, limit=20)).start()


CALIBRATED = "cache/calibrate.thresholds-*"
"""Results of the cached step that searches thresholds; without them it is done again, from the replies and grades that are left."""
JUDGE = {"judges": {"haiku-4.5": {"per_minute": 1200, "concurrency": 64}}}


def efficiency(engine: str, model: str, latents: int = 48) -> dict[str, Any]:
    """exp01 whole; then its judging alone, every reply being there; then its generation alone, every answer being there."""
    change = {
        **JUDGE,
        "protocol": {"search_mode": "reference"},  # a judge who knows nothing would let no latent converge
        "work": {"calibrate_shard": 8, "shard": 96, "batch": 32, "in_flight": 4},
        "models": {model: {"judge": "haiku-4.5"}},
        "by_model": {model: {"exp01": {"latents": latents}, "protocol": {"search_steps": 10, "early_stop": 0.0}}},
    }
    line = ["-m", "flows", "exp01", model]
    with tempfile.TemporaryDirectory() as name:
        provider = judge_server()
        env = params(Path(name), engine, change) | judged(provider)
        store = Path(name) / "store"
        whole = timed(line, env)
        calls = sum(provider.answered().values())
        replies = sum(1 for _ in store.glob("shards/replies/*"))
        remove(store, "shards/grades/*", "answers.sqlite*", "esr.duckdb*", CALIBRATED)
        judging = timed(line, env)
        remove(store, "shards/replies/*", "esr.duckdb*", CALIBRATED)
        generation = timed(line, env)
        provider.stop()
    slower = max(judging["wall_s"], generation["wall_s"])
    return {
        "engine": engine,
        "model": model,
        "judge": "2 s ± 1 s, 20 requests a second",
        "judge_calls": calls,
        "reply_shards": replies,
        "judge_floor_s": round(calls / 20, 1),
        "both_s": whole["wall_s"],
        "judging_alone_s": judging["wall_s"],
        "generation_alone_s": generation["wall_s"],
        "ratio": round(whole["wall_s"] / slower, 3),
    }


def remove(store: Path, *patterns: str) -> None:
    for pattern in patterns:
        for file in store.glob(pattern):
            file.unlink()


LIBRARY = """
from esr.prompts import evaluation
from esr.study import calibrate, choose, grade, steer
from esr.study.batches import cut
from esr.study.plan import plan
from esr.study.study import Study
from esr.types import BASELINE

study = Study.of("tiny")
asked = study.params.of(choose.Baseline)
shards = cut(choose.latents(study, asked.latents), study.params.work.calibrate_shard)
found = [one for shard in shards for one in calibrate.thresholds(study, shard) if one.bites]
members = plan(
    study.params, arm=BASELINE, model=study.model, weights=study.weights, meaning=study.meaning,
    meaning=study.meaning, latents=[one.latent for one in found],
    thresholds={one.latent.index: one.boost for one in found}, questions=evaluation(), trials_per_latent=asked.trials_per_latent,
)
study.store.put_members(members)
for shard in cut(members, study.params.work.shard):
    steer.replies(study, [member.trial for member in shard])
    grade.grades(study, shard, study.grader)
"""
"""What exp01 does, without Prefect."""


def overhead(latents: int = 200) -> dict[str, Any]:
    """The same trials through the flow and by the library alone, on the fake engine and the lexical judge."""
    change = {"by_model": {"tiny": {"exp01": {"latents": latents, "trials_per_latent": 20}}}}
    with tempfile.TemporaryDirectory() as name:
        plain = timed(["-c", LIBRARY], params(Path(name) / "plain", "fake", change))
        env = params(Path(name) / "flow", "fake", change)
        flow = timed(["-m", "flows", "exp01", "tiny"], env)
        trials = len((Path(name) / "flow" / "generated.jsonl").read_text().splitlines())
        again = timed(["-m", "flows", "exp01", "tiny"], env)
    extra = flow["wall_s"] - plain["wall_s"]
    return {
        "trials": trials,
        "library_alone_s": plain["wall_s"],
        "flow_s": flow["wall_s"],
        "flow_again_s": again["wall_s"],
        "prefect_and_drawing_s": round(extra, 1),
        "per_1000_trials_s": round(1000 * extra / trials, 2),
        "note": "the flow starts and stops its own server, draws the figures and the closing table; the library does not",
    }


def size70b(latents: int = 500) -> dict[str, Any]:
    """exp01 with 500 latents x (10 steps x 5 samples + 5 trials) = 27,500 generations and as many grades.

    The server's scores know nothing of boosts and are 50 on the mean, so the target is 0.5: every latent then has a threshold.
    """
    change = {
        **JUDGE,
        "judges": {"haiku-4.5": {"per_minute": 0, "concurrency": 64}},
        "protocol": {"verify_samples": 0, "search_mode": "reference", "target": 0.5, "concreteness": "off"},
        "saes": {"tiny-l3": {"d_sae": 65_536}},
        "models": {"tiny": {"judge": "haiku-4.5"}},
        "by_model": {"tiny": {"exp01": {"latents": latents, "trials_per_latent": 5}, "protocol": {"candidates_per_latent": 5}}},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "big"
        provider = Provider(schedule=Schedule(latency=0.2, jitter=0.1)).start()
        env = params(folder, "fake", change)
        label_all(folder / "labels.csv")
        first = timed(["-m", "flows", "exp01", "tiny"], env | judged(provider))
        calls = sum(provider.answered().values())
        again = timed(["-m", "flows", "exp01", "tiny"], env | judged(provider))
        provider.stop()
        store = folder / "store"
        size = {part.name: bytes_of(part) for part in sorted(store.iterdir())}
        import sqlite3

        with sqlite3.connect(store / "prefect" / "prefect.db") as database:
            runs = dict(
                database.execute("select f.name, count(*) from task_run t join flow_run f on f.id = t.flow_run_id group by 1")
            )
        generated = len((folder / "generated.jsonl").read_text().splitlines())
    return {
        "judge": "0.2 s ± 0.1 s, 64 at once",
        "generations": generated,
        "judge_calls": calls,
        "wall_s": first["wall_s"],
        "cpu_s": first["cpu_s"],
        "peak_mb": first["peak_mb"],
        "again_s": again["wall_s"],
        "store_mb": {name: round(size / 2**20, 1) for name, size in size.items()},
        "task_runs": list(runs.values()),
        "table": [line for line in first["said"].splitlines() if "exp01/" in line],
    }


def fleet(latents: int = 500, workers: tuple[int, ...] = (1, 2, 4), speed: int = 230) -> dict[str, Any]:
    """exp01 with so many latents x (10 steps + 5 trials), engines of a fixed speed each, and a judge that is always faster."""
    change = {
        **JUDGE,
        "judges": {"haiku-4.5": {"per_minute": 0, "concurrency": 64}},
        "protocol": {"verify_samples": 0, "search_mode": "reference", "search_steps": 10, "target": 0.5, "concreteness": "off"},
        "saes": {"tiny-l3": {"d_sae": 65_536}},
        "models": {"tiny": {"judge": "haiku-4.5"}},
        "by_model": {"tiny": {"exp01": {"latents": latents, "trials_per_latent": 5}, "protocol": {"candidates_per_latent": 5}}},
    }
    each: list[dict[str, Any]] = []
    summaries = []
    for n in workers:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "big"
            provider = Provider(schedule=Schedule(latency=0.2, jitter=0.1)).start()
            env = params(folder, "fake", change) | judged(provider) | {"ESR_FAKE_SPEED": str(speed), "PREFECT_API_URL": ""}
            label_all(folder / "labels.csv")
            found = timed(["-m", "flows", "exp01", "tiny", "--workers", str(n)], env)
            provider.stop()
            made, span = spans(folder / "store")
            summaries.append(counted(folder / "store"))
            each.append({
                "workers": n, "replies": made, "judge_calls": sum(provider.answered().values()), "from_first_reply_to_last_grade_s": span,
                "replies_per_s": round(made / span, 2), "wall_s": found["wall_s"], "cpu_s": found["cpu_s"], "peak_mb": found["peak_mb"],
                "load": round(os.getloadavg()[0], 1),
            })  # fmt: skip
            print(json.dumps(each[-1]), flush=True)
    one = next(row for row in each if row["workers"] == 1)
    for row in each:
        row["efficiency"] = round(row["replies_per_s"] / one["replies_per_s"] / row["workers"], 3)
        row["efficiency_with_start_and_drawing"] = round(one["wall_s"] / row["wall_s"] / row["workers"], 3)
    return {
        "engine": f"fake, {speed} tokens a second each",
        "judge": "0.2 s ± 0.1 s, 64 at once",
        "same_summary": all(one == summaries[0] for one in summaries),
        "each": sorted(each, key=lambda row: row["workers"]),
    }


def spans(store: Path) -> tuple[int, float]:
    """Replies in a store, and seconds from when the first were kept to when the last grades were."""
    import pyarrow.parquet as pq
    from flow_runs import kept

    facts = [pq.read_metadata(file) for table in ("replies", "grades") for file in store.glob(f"shards/{table}/*.parquet")]
    times = [datetime.fromisoformat(fact.metadata[b"esr_written"].decode()) for fact in facts]
    return kept(store), round((max(times) - min(times)).total_seconds(), 1)


def counted(store: Path) -> Any:
    from flow_runs import Place, summary

    return summary(Place(store.parent))


def label_all(labels: Path) -> None:
    """Labels for 6,000 latents, so that enough pass the filters."""
    subjects = [line.split(",", 1)[1] for line in labels.read_text().splitlines()[1:]]
    rows = [f"{5 * i + 3},{subjects[i % len(subjects)]}" for i in range(6000)]
    labels.write_text("\n".join(["index_in_sae,label", *rows]) + "\n")


def bytes_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("what", choices=["efficiency", "overhead", "size70b", "fleet"])
    words.add_argument("--engine", default="fake", choices=["fake", "vllm", "hf"])
    words.add_argument("--model", default="tiny")
    words.add_argument("--latents", type=int, help="fewer or more than the recorded measurement had")
    words.add_argument("--out", type=Path)
    asked = words.parse_args()
    size = {} if asked.latents is None else {"latents": asked.latents}
    if asked.what == "efficiency":
        found = efficiency(asked.engine, asked.model, **size)
    else:
        found = {"overhead": overhead, "size70b": size70b, "fleet": fleet}[asked.what](**size)
    found["machine"] = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"
    print(json.dumps(found, indent=1, ensure_ascii=False))
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
