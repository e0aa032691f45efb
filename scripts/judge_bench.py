"""What judging holds under faults and kills: 5,000 grades, a fifth of the calls failing, ten SIGKILLs; limits of one and two processes;
three equal batches at once, killed 15 times, with receipts lost.

    python scripts/judge_bench.py [--grades 5000] [--per-minute 1000] [--kills 10] [--only batches]

writes docs/benchmarks/judge.json. The provider is tests/judge_server.py on this machine; judges run in processes of their own.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from judge_server import Provider, Schedule  # noqa: E402  # the tests' folder is not installed
from judge_setup import KEY, asked_after, killed_among_batches, on_disk, paid_twice, params_at  # noqa: E402  # likewise

RUN = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from judge_setup import grade_in_child, params_at
params = params_at({url!r}, per_minute={per_minute}, concurrency={concurrency}, timeout=30.0)
grade_in_child(params, "haiku-4.5", Path({store!r}), {n}, Path({out!r}), {first})
"""


def start(
    provider: Provider, store: Path, out: Path, n: int, per_minute: int, concurrency: int = 64, first: int = 0
) -> subprocess.Popen[bytes]:
    code = RUN.format(
        tests=str(ROOT / "tests"),
        url=provider.url,
        store=str(store),
        out=str(out),
        n=n,
        per_minute=per_minute,
        concurrency=concurrency,
        first=first,
    )
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"ANTHROPIC_API_KEY": KEY})


def kills(folder: Path, n: int, per_minute: int, times: int) -> dict[str, object]:
    """Grades under faults, killed at random moments, timed from the first start to the last grade."""
    provider = Provider(schedule=Schedule(latency=0.5, jitter=0.3, faults=0.2, retry_after=1.0)).start()
    store, out, rng = folder / "store", folder / "out.json", random.Random(1)
    span = n * 1.3 / per_minute * 60 / (times + 1)
    began, again, restarts = time.time(), [], []
    for _ in range(times):
        process, at = start(provider, store, out, n, per_minute), time.time()
        while (
            not (first := [entry["at"] for entry in list(provider.requests) if entry["at"] > at + 0.3]) and process.poll() is None
        ):
            time.sleep(0.05)
        restarts.append(min(first) - at)
        time.sleep(span * rng.uniform(0.3, 1.2))
        process.kill()
        process.wait()
        again.append((time.time(), on_disk(store)))
    start(provider, store, out, n, per_minute).wait()
    wall = time.time() - began
    result = json.loads(out.read_text())["grades"]
    violations = sum(len(kept & asked_after(provider, moment)) for moment, kept in again)
    reasons = Counter(str(grade["missing"]) for grade in result)
    calls = len(provider.requests)
    ideal = calls / (per_minute / 60)
    provider.stop()
    return {
        "grades": n, "kills": times, "calls": calls, "per_minute": per_minute, "faults": dict(Counter(r["what"] for r in provider.requests)),
        "graded": reasons.pop("None", 0), "missing": dict(reasons), "asked_again_although_stored": violations,
        "answered_twice": sum(count - 1 for count in provider.answered().values()), "wall_s": round(wall, 1), "ideal_s": round(ideal, 1),
        "wall_over_ideal": round(wall / ideal, 4), "wall_without_starts_over_ideal": round((wall - sum(restarts)) / ideal, 4), "start_to_first_call_s": [round(s, 2) for s in restarts],
    }  # fmt: skip


def limits(folder: Path, processes: int, calls: int, per_minute: int) -> dict[str, object]:
    """Starts a second as the provider saw them, while all processes were at it."""
    provider = Provider(schedule=Schedule(latency=0.3)).start()
    outs = [folder / f"{processes}-{i}.json" for i in range(processes)]
    running = [
        start(provider, folder / f"limit-{processes}-{i}", out, calls, per_minute, 100, i * 100_000) for i, out in enumerate(outs)
    ]
    for process in running:
        process.wait()
    ran = [json.loads(out.read_text()) for out in outs]
    low, high = max(one["began"] for one in ran) + 0.5, min(one["ended"] for one in ran) - 0.5
    starts = sorted(entry["at"] for entry in provider.requests if low < entry["at"] < high)
    rate = (len(starts) - 1) / (starts[-1] - starts[0])
    provider.stop()
    return {
        "processes": processes,
        "calls": len(provider.requests),
        "per_minute": per_minute,
        "share_of_limit": round(rate * 60 / per_minute, 4),
    }


def batches(folder: Path, times: int) -> dict[str, object]:
    """Three equal batches more in every run, all handed over at once, killed while they are; then every receipt lost without a kill."""
    os.environ["ANTHROPIC_API_KEY"] = KEY
    found: dict[str, object] = {}
    for name, kills, share in (
        ("receipts kept", times, 0.0),
        ("half the receipts lost", times, 0.5),
        ("no kill, every receipt lost", 0, 1.0),
    ):
        provider = Provider(schedule=Schedule(latency=0.08, batch_seconds=1.5, receipts=share)).start()
        params, store = params_at(provider.url, judging={"mode": "batch"}), folder / name.replace(" ", "-")
        out, began = folder / "batches.json", time.time()
        n = killed_among_batches(
            provider, params, store, out, kills=kills, size=30, rng=random.Random(15), last=570 if not kills else None
        )
        graded = Counter(str(grade["missing"]) for grade in json.loads(out.read_text())["grades"])
        handed = sum(len(batch["requests"]) for batch in provider.batches.values())
        found[name] = {"kills": kills, "questions": n, "batches": len(provider.batches), "handed over": handed,
                       "paid twice": len(paid_twice(provider)), "graded": graded["None"], "wall_s": round(time.time() - began, 1)}  # fmt: skip
        provider.stop()
    return found


def speed(folder: Path, n: int) -> dict[str, object]:
    """Grades a second without a limit, and read back from disk."""
    provider = Provider(schedule=Schedule(latency=0.1)).start()
    seconds = []
    for _ in range(2):
        out = folder / "speed.json"
        start(provider, folder / "speed", out, n, 0, 64).wait()
        one = json.loads(out.read_text())
        seconds.append(one["ended"] - one["began"])
    provider.stop()
    return {
        "grades": n,
        "latency_s": 0.1,
        "concurrency": 64,
        "asked_per_s": round(n / seconds[0], 1),
        "stored_per_s": round(n / seconds[1], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--grades", type=int, default=5000)
    parser.add_argument("--per-minute", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--only", choices=("speed", "limits", "kills", "batches"), help="measure this again and keep the rest")
    arguments = parser.parse_args()
    target = ROOT / "docs" / "benchmarks" / "judge.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(target.read_text()) if arguments.only else {}
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["ESR_LIMITS"] = str(folder / "limits")
        parts: dict[str, Callable[[], object]] = {
            "speed": lambda: speed(folder, 2000),
            "limits": lambda: [limits(folder, 1, 900, 1800), limits(folder, 2, 500, 1800)],
            "kills": lambda: kills(folder, arguments.grades, arguments.per_minute, arguments.kills),
            "batches": lambda: batches(folder, 15),
        }
        results |= {"machine": machine} if not arguments.only else {}
        results |= {name: measure() for name, measure in parts.items() if arguments.only in (None, name)}
    target.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
