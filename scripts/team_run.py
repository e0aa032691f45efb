"""Does a run on a team's server end as one without it, also where the server is killed in the middle of it?

    python scripts/team_run.py --kills 3 --out docs/benchmarks/team_run.json

The server is the one of deployments/compose.yaml, as processes of this machine (tests/team_stack.py), with its password. From a checkout: `python -m
deployments up` for pools, deployments and a worker, a second worker, `doctor`; then exp01 and exp08 at once, of small size with the fake engine.
The summary of each is compared with that of a run of its own without this server. With `--kills`, further pairs of runs, each in a store of its
own, meet a SIGKILL of the server when so many replies have been generated; five seconds later it is started again, and where a run has failed
of that, the same line is said once more.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from flow_runs import Place, place, summary  # noqa: E402  # the tests' folder is not a package
from team_stack import Stack, lacking, stack  # noqa: E402  # as above

WORDS = ("exp01/tiny", "exp08/tiny")
DELAY = "1.0"
DOWN = 5.0
REPLIES = 100
"""Of the two runs together there are more."""


class Checkout:
    """One who works with the server: a store, and workers for it."""

    def __init__(self, here: Stack, where: Place) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        self.env = clean | where.env | here.client | {"PYTHONPATH": str(ROOT), "ESR_FAKE_DELAY": DELAY}
        self.workers: list[subprocess.Popen[bytes]] = []
        self.log = (where.root / "worker.log").open("wb")

    def say(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, env=self.env, capture_output=True, text=True)

    def worker(self) -> None:
        line = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "cpu", "--limit", "1", "--name", "second"]
        settings = {"PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_HOME": self.env["ESR_STORE"] + "/second"}
        self.workers.append(subprocess.Popen(line, cwd=ROOT, env=self.env | settings, stdout=self.log, stderr=self.log))

    def run(self, deployment: str) -> "subprocess.Popen[str]":
        line = [sys.executable, "-m", "prefect", "deployment", "run", deployment, "--param", "scale=smoke", "--watch"]
        return subprocess.Popen(line, cwd=ROOT, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end(self) -> None:
        self.say("deployments", "down")
        for worker in self.workers:
            worker.terminate()
            worker.wait(timeout=60)


def pair(here: Stack, root: Path, wanted: list[dict[str, Any]], kill_at: int | None) -> dict[str, Any]:
    where = place(root)
    checkout = Checkout(here, where)
    found: dict[str, Any] = {"server killed at reply": kill_at}
    try:
        up = checkout.say("deployments", "up")
        assert up.returncode == 0, up.stdout + up.stderr
        checkout.worker()
        time.sleep(10)
        found["doctor lacks"] = [
            line for line in checkout.say("deployments", "doctor").stdout.splitlines() if line.startswith("lacks")
        ]
        began, since = time.monotonic(), datetime.now(UTC).isoformat()
        runs = {name: checkout.run(name) for name in WORDS}
        if kill_at is not None:
            while sum(where.generated().values()) < kill_at and any(process.poll() is None for process in runs.values()):
                time.sleep(0.2)
            here.kill("server")
            time.sleep(DOWN)
            here.server()
        said = {name: process.communicate(timeout=900)[0] for name, process in runs.items()}
        found["exit codes"] = {name: process.returncode for name, process in runs.items()}
        found["states"] = ended(checkout, since)
        again = [name for name in WORDS if found["states"].get(f"{name.replace('/', '-')}-smoke") != "Completed"]
        for name in again:
            once_more = checkout.run(name)
            said[name] += once_more.communicate(timeout=900)[0]
        found["said once more"] = again
        found["seconds"] = round(time.monotonic() - began, 1)
        found["same summary"] = summary(where) == wanted
        found["replies generated twice"] = sum(n - 1 for n in where.generated().values())
        if not found["same summary"]:
            found["said"] = {name: text[-2000:] for name, text in said.items()}
    finally:
        checkout.end()
    return found


def ended(checkout: Checkout, since: str, patience: float = 400.0) -> dict[str, str]:
    """How the flow runs since then have ended, by the server; one whose process is gone is marked within 90 seconds."""
    import httpx

    user, word = checkout.env["PREFECT_API_AUTH_STRING"].split(":", 1)
    asked = {"flow_runs": {"expected_start_time": {"after_": since}}}
    until = time.monotonic() + patience
    while True:
        rows = httpx.post(f"{checkout.env['PREFECT_API_URL']}/flow_runs/filter", json=asked, auth=(user, word), timeout=60).json()
        over = all(row["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") for row in rows)
        if (rows and over) or time.monotonic() > until:
            return {row["name"]: row["state_name"] for row in rows}
        time.sleep(2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", type=int, default=1, help="pairs of runs that nothing happens to")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if why := lacking():
        print(f"error: {why}", file=sys.stderr)
        return 2
    dice = random.Random(0)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, stack() as here:
        alone = place(Path(folder) / "alone")
        for name in WORDS:
            code, said = alone.run(*name.split("/"), "--scale", "smoke", PREFECT_API_URL="", PYTHONPATH=str(ROOT))
            assert code == 0, said[-3000:]
        wanted = summary(alone)
        here.postgres()
        here.redis()
        here.server()
        for i, kill in enumerate([*[None] * asked.plain, *(dice.randint(1, REPLIES) for _ in range(asked.kills))]):
            found.append(pair(here, Path(folder) / str(i), wanted, kill))
            print(json.dumps(found[-1]), flush=True)
    if asked.out:
        asked.out.write_text(json.dumps({"cores": os.cpu_count(), "pairs": found}, indent=1) + "\n")
    return 0 if all(row["same summary"] for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
