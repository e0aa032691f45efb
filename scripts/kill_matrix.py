"""Kill runs at random moments, resume them, and compare with a run that nobody killed.

    python scripts/kill_matrix.py --moments 10 --out docs/benchmarks/kill_matrix.json

For each experiment on `tiny` or another `--model` (fake engine with a delay, or `--engine vllm`; provider judge on a local server): SIGKILL of the flow process, of the
worker with its flow process, of the judge server, of one of two workers of a fleet, and of the process that asks these, each at a moment
drawn evenly over the length of an uninterrupted run. With `--bucket` results lie in a bucket of an S3 server on this machine, and the whole
machine is killed too: the flow process with the folder in which it kept its copy. After each the same line is run again to its end. Written down: whether the summary equals the uninterrupted run's, how many
replies were generated twice (the fake engine keeps a log; null for another, whose replies are counted as the store keeps them), and how many
judge answers were paid twice.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import s3_server  # noqa: E402  # the tests' folder is not a package
from flow_runs import EXPERIMENTS, SMOKE, Place, kept, place, summary  # noqa: E402  # likewise

DELAY = "0.15"
LATENCY = 0.05
CONCURRENCY = 8
"""Judge calls in flight at most."""
WORK = SMOKE["work"]


class Judge:
    """The judge server as a process that can be killed and comes back on the same port."""

    def __init__(self, log: Path) -> None:
        self.log, self.port = log, 0
        self.begin()

    def begin(self) -> None:
        line = [sys.executable, str(ROOT / "tests/judge_server.py"), "--port", str(self.port), "--latency", str(LATENCY)]
        self.process = subprocess.Popen([*line, "--log", str(self.log)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip().split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def paid(self) -> Counter[str]:
        """How often each question was answered in full."""
        if not self.log.exists():
            return Counter()
        entries = [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]
        return Counter(entry["question"] for entry in entries if entry["delivered"])


@contextmanager
def prefect_server(folder: Path) -> Iterator[str]:
    port = random.randrange(20_000, 30_000)
    env = {**os.environ, "PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_LOGGING_LEVEL": "ERROR"}
    line = [str(Path(sys.executable).parent / "prefect"), "server", "start", "--port", str(port)]
    process = subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    url = f"http://127.0.0.1:{port}/api"
    try:
        wait_for(lambda: subprocess.run(["curl", "-sf", f"{url}/health"], capture_output=True).returncode == 0, 120)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def wait_for(ready: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError("not ready in time")
        time.sleep(0.2)


class Round:
    """One experiment in a fresh place."""

    def __init__(
        self, folder: Path, experiment: str, model: str, api: str, engine: str = "fake", bucket: "s3_server.Server | None" = None
    ) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.experiment, self.model, self.api = experiment, model, api
        limits = {"haiku-4.5": {"per_minute": 0, "concurrency": CONCURRENCY}}
        base = place(folder.parent / "params", limits, once=True, fake=engine == "fake")
        shutil.copytree(base.root, folder)
        self.where = Place(folder)
        self.judge = Judge(folder / "calls.jsonl")
        self.env = {
            "ESR_ENGINE": engine,
            "ESR_FAKE_DELAY": DELAY,
            "PREFECT_API_URL": api,
            "ANTHROPIC_BASE_URL": self.judge.url,
            "ANTHROPIC_API_KEY": "sk-local",
        }
        self.url = f"s3://{s3_server.BUCKET}/{folder.parent.name}-{folder.name}"
        if bucket:
            self.env |= {**bucket.env, "ESR_STORE": self.url, "ESR_MIRROR": str(self.where.store)}

    def words(self) -> list[str]:
        return [self.experiment, self.model, "--scale", "smoke", "--judge", "haiku-4.5"]

    def finish(self) -> tuple[int, str]:
        return self.where.run(*self.words(), **self.env)

    def close(self) -> None:
        self.judge.kill()


def kill_flow(r: Round, after: float) -> None:
    process = r.where.command(*r.words(), **r.env)
    time.sleep(after)
    process.kill()
    process.communicate()


def kill_machine(r: Round, after: float) -> None:
    """With its disk: what it had is what the bucket has."""
    kill_flow(r, after)
    shutil.rmtree(r.where.store, ignore_errors=True)


def kill_judge(r: Round, after: float) -> None:
    process = r.where.command(*r.words(), **r.env)
    time.sleep(after)
    r.judge.kill()
    time.sleep(1.0)
    r.judge.begin()
    process.communicate(timeout=300)


def kill_worker(r: Round, after: float) -> None:
    """The worker and the flow process under it, as when a machine goes down."""
    prefect = str(Path(sys.executable).parent / "prefect")
    env = {**os.environ, **r.where.env, **r.env}
    settings = subprocess.run([sys.executable, "-m", "deployments", "env"], env=env, cwd=ROOT, capture_output=True, text=True)
    env |= dict(line.removeprefix("export ").split("=", 1) for line in settings.stdout.splitlines())
    log = (r.where.root / "worker.log").open("a")
    pool = f"kill-{r.where.root.name}"
    quiet: dict[str, Any] = {"env": env, "cwd": ROOT, "stdout": log, "stderr": log}
    subprocess.run([prefect, "work-pool", "create", pool, "--type", "process", "--overwrite"], check=True, **quiet)
    entry = f"flows/{r.experiment}.py:{r.experiment}"
    subprocess.run([prefect, "--no-prompt", "deploy", entry, "--name", pool, "--pool", pool], check=True, **quiet)
    worker = subprocess.Popen([prefect, "worker", "start", "--pool", pool], start_new_session=True, **quiet)
    given = ["--param", f"model={r.model}", "--param", "scale=smoke", "--param", "judge=haiku-4.5"]
    subprocess.run([prefect, "deployment", "run", f"{r.experiment}/{pool}", *given], check=True, **quiet)
    time.sleep(after + 4)
    for pid in children(worker.pid):
        with suppress(ProcessLookupError):  # it ended by itself meanwhile
            os.kill(pid, signal.SIGKILL)
    worker.wait()


def kill_one_of_fleet(r: Round, after: float) -> None:
    """The run goes on by itself to its end."""
    process = r.where.command(*r.words(), "--workers", "2", **r.env)
    at_work(r, process, after)
    found = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "esr.engine.worker"], capture_output=True, text=True
    ).stdout.split()
    for pid in found[:1]:
        with suppress(ProcessLookupError):  # it ended by itself meanwhile
            os.kill(int(pid), signal.SIGKILL)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said


def kill_asker_of_fleet(r: Round, after: float) -> None:
    process = r.where.command(*r.words(), "--workers", "2", **r.env)
    at_work(r, process, after)
    process.kill()
    process.communicate()


def at_work(r: Round, process: "subprocess.Popen[str]", after: float) -> None:
    """Most of a run this small is its start, before which there is no fleet: the moment is counted from the first reply, a tenth of it."""
    wait_for(lambda: r.where.log.exists() or process.poll() is not None, 300)
    time.sleep(after / 10)


def children(pid: int) -> list[int]:
    """The process and all below it."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return [pid, *(grandchild for child in found for grandchild in children(int(child)))]


KILLS = {
    "flow": kill_flow, "worker": kill_worker, "judge": kill_judge, "one of a fleet": kill_one_of_fleet, "asker of a fleet": kill_asker_of_fleet,
    "machine": kill_machine,
}  # fmt: skip
BUCKET_ONLY = ("machine",)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--moments", type=int, default=10, help="moments at which each experiment's flow process is killed")
    words.add_argument("--others", type=int, default=3, help="moments at which its worker and its judge server are killed")
    words.add_argument("--experiments", nargs="*", default=list(EXPERIMENTS))
    words.add_argument("--model", default="tiny")
    words.add_argument("--kinds", nargs="*", choices=list(KILLS), help="what is killed; default: all")
    words.add_argument("--bucket", action="store_true", help="results lie in a bucket")
    words.add_argument("--jobs", type=int, default=2, help="rounds at a time")
    words.add_argument("--engine", default="fake", choices=["fake", "vllm"])
    words.add_argument("--seed", type=int, default=20260206)
    words.add_argument("--out", type=Path)
    asked = words.parse_args()
    kinds = asked.kinds or [kind for kind in KILLS if asked.bucket or kind not in BUCKET_ONLY]
    rounds: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as name,
        prefect_server(Path(name) / "prefect") as api,
        s3_server.running() if asked.bucket else nullcontext() as bucket,
    ):
        whole = {
            experiment: uninterrupted(Path(name) / f"{experiment}-whole", experiment, asked.model, api, asked.engine)
            for experiment in asked.experiments
        }

        def round_of(experiment: str, kind: str, i: int) -> dict[str, Any]:
            expected, seconds = whole[experiment]
            after = random.Random(f"{asked.seed}/{experiment}/{kind}/{i}").uniform(0.5, seconds)
            return one(
                Path(name) / f"{experiment}-{kind}-{i}", experiment, asked.model, api, kind, after, expected, asked.engine, bucket
            )

        most = {kind: asked.moments if kind == "flow" else asked.others for kind in kinds}
        every = [(e, kind, i) for i in range(max(most.values())) for e in asked.experiments for kind in kinds if i < most[kind]]
        with ThreadPoolExecutor(asked.jobs) as pool:
            for done in as_completed([pool.submit(round_of, *which) for which in every]):
                rounds.append(done.result())
                print(json.dumps(rounds[-1]), flush=True)
                if asked.out:
                    asked.out.write_text(json.dumps(report(rounds), indent=1) + "\n")


def uninterrupted(folder: Path, experiment: str, model: str, api: str, engine: str = "fake") -> tuple[list[dict[str, Any]], float]:
    r = Round(folder, experiment, model, api, engine)
    start = time.monotonic()
    code, said = r.finish()
    seconds = time.monotonic() - start
    r.close()
    assert code == 0, said
    return summary(r.where), seconds


def one(
    folder: Path, experiment: str, model: str, api: str, kind: str, after: float, whole: list[dict[str, Any]], engine: str = "fake",
    bucket: "s3_server.Server | None" = None,
) -> dict[str, Any]:  # fmt: skip
    r = Round(folder, experiment, model, api, engine, bucket)
    KILLS[kind](r, after)
    before, paid = made(r.where, engine), r.judge.paid()
    code, said = r.finish()
    twice = [n - 1 for n in r.where.generated().values() if n > 1]
    paid_twice = [n - 1 for n in r.judge.paid().values() if n > 1]
    equal = summary(r.where) == whole
    in_all = made(r.where, engine)
    r.close()
    if code == 0 and equal:
        shutil.rmtree(folder)
    return {
        "experiment": experiment, "model": model, "killed": kind, "after_s": round(after, 2), "resumed_exit": code, "summary_equal": equal,
        "engine": engine, "replies_at_kill": before, "answers_at_kill": sum(paid.values()), "replies_in_all": in_all,
        "generated_twice": sum(twice) if engine == "fake" else None, "paid_twice": sum(paid_twice), "said": said[-400:] if code else "",
    }  # fmt: skip


def made(where: Place, engine: str) -> int:
    """Replies: generated, as the fake engine logs them, or kept."""
    return sum(where.generated().values()) if engine == "fake" else kept(where.store)


def report(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    twice = [r["generated_twice"] for r in rounds if r["generated_twice"] is not None]
    return {
        "rounds": len(rounds),
        "summary_equal": sum(r["summary_equal"] for r in rounds),
        "resumed": sum(r["resumed_exit"] == 0 for r in rounds),
        "generated_twice_at_most": max(twice, default=None),
        "paid_twice_at_most": max(r["paid_twice"] for r in rounds),
        "batch": WORK["batch"],
        "batches_in_flight_at_most": WORK["in_flight"] * 2,
        "judge_calls_in_flight_at_most": CONCURRENCY,
        "each": rounds,
    }


if __name__ == "__main__":
    main()
