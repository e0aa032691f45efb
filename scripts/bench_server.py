"""What does a Prefect server take? SQLite as `python -m deployments up` has it, and Postgres with and without Redis.

    python scripts/bench_server.py --rounds 3 --tasks 600 --out docs/benchmarks/server.json
    python scripts/bench_server.py --rounds 1 --tasks 5000 --only SQLite --out docs/benchmarks/server.json   # adds to the file

Postgres, Redis and the package prefect-redis have to be on the machine. Of each server, begun with an empty database, in turn and so often:

- **burst**: so many task runs reported at once, each with the three events that Prefect's task engine sends, over four connections as of four
  flow runs; then nothing, until the server has written down all that it will. How many task runs ended as Completed in its database, how many
  events it kept, seconds until the last, processor seconds and memory of server, database and Redis.
- **transitions**: eight clients that make flow runs and take them through Pending, Running and Completed, each waiting for its answer: answers a
  second, and what one took.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from team_stack import AUTH, Stack, healthy, lacking, stack  # noqa: E402  # the tests' folder is not a package

from deployments.server import RECORDER, command  # noqa: E402  # as above

BATCHES = ", in batches"
SERVERS = (
    "SQLite",
    "SQLite, in batches",
    "Postgres",
    "Postgres and Redis",
    "Postgres and Redis, in batches",
    "Postgres and Redis, two API processes, in batches",
)
"""In batches: Prefect's recorder writes so many reports of task runs in one statement, and not each by itself."""
CONNECTIONS = 4
CLIENTS = 8
AT_ONCE = 700
"""Events between two times that Prefect's client asks whether all has arrived."""
QUIET = 20.0
"""Seconds without anything new after which nothing more is expected: Redis hands messages on at the latest after ten."""
USER, WORD = AUTH.split(":", 1)


def begin(here: Stack, server: str) -> None:
    batch = RECORDER if server.endswith(BATCHES) else {}
    kind = server.removesuffix(BATCHES)
    if kind == "SQLite":
        line = command("127.0.0.1", urlsplit(here.url).port or 0)
        env = {"PREFECT_SERVER_API_AUTH_STRING": AUTH, "PREFECT__SERVER_FINAL": "1", **batch}
        here.start("server", line, functools.partial(healthy, here.url), env=here.clean("server") | env, cwd=ROOT)
        return
    here.postgres()
    if kind != "Postgres":
        here.redis()
    plain = {key: value for key, value in here.environment().items() if key not in RECORDER}
    if kind == "Postgres":
        messages = ("PREFECT_MESSAGING_", "PREFECT_REDIS_", "PREFECT_SERVER_EVENTS_CAUSAL_")
        here.server(env={key: value for key, value in plain.items() if not key.startswith(messages)} | batch)
        return
    env = plain | batch
    if kind == "Postgres and Redis":
        here.server(env=env)
        return
    env |= {
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
        "PREFECT_SERVER_DOCKET_URL": f"redis://127.0.0.1:{here.ports['redis']}/1",
        "PREFECT_API_DATABASE_MIGRATE_ON_START": "false",  # two that do it at once fail
    }
    here.once(["server", "database", "upgrade", "-y"], env)
    here.server("--workers", "2", env=env)
    here.prefect("services", ["server", "services", "start"], env, lambda: True)
    time.sleep(10)


def reports(flow_run: str, tasks: int) -> list[str]:
    """The events of so many task runs, as the task engine words them."""
    found = []
    for i in range(tasks):
        task, before = str(uuid.uuid4()), None
        for kind in ("PENDING", "RUNNING", "COMPLETED"):
            name, now = kind.capitalize(), datetime.now(UTC).isoformat()
            state = {"type": kind, "name": name, "message": "", "state_details": {}}
            run = {"name": f"shard-{i}", "task_key": "shard", "dynamic_key": str(i), "run_count": 1, "flow_run_run_count": 1}
            found.append({
                "id": str(uuid.uuid4()),
                "occurred": now,
                "event": f"prefect.task-run.{name}",
                "resource": {
                    "prefect.resource.id": f"prefect.task-run.{task}",
                    "prefect.resource.name": f"shard-{i}",
                    "prefect.run-count": "1",
                    "prefect.state-message": "",
                    "prefect.state-name": name,
                    "prefect.state-timestamp": now,
                    "prefect.state-type": kind,
                    "prefect.orchestration": "client",
                },
                "related": [{"prefect.resource.id": f"prefect.flow-run.{flow_run}", "prefect.resource.role": "flow-run"}],
                "payload": {
                    "intended": {"from": before and before["type"], "to": kind},
                    "initial_state": before,
                    "validated_state": state | {"data": None},
                    "task_run": run,
                },
                "follows": found[-1]["id"] if before else None,
            })  # fmt: skip
            before = state
    return [json.dumps(one) for one in found]


async def send(url: str, lines: list[str]) -> None:
    """What has not been answered for when the connection breaks is said again, as Prefect's client does; the server knows an event by its id."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    where = url.replace("http://", "ws://") + "/events/in"
    left = [lines[i : i + AT_ONCE] for i in range(0, len(lines), AT_ONCE)]
    while left:
        with contextlib.suppress(ConnectionClosed):
            async with connect(where, subprotocols=["prefect"], ping_interval=None) as socket:  # type: ignore[list-item]  # a str to mypy alone
                await socket.send(json.dumps({"type": "auth", "token": AUTH}))
                assert json.loads(await socket.recv())["type"] == "auth_success"
                while left:
                    for line in left[0]:
                        await socket.send(line)
                    await (await socket.ping())
                    left.pop(0)


async def burst(here: Stack, tasks: int) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=here.url, auth=(USER, WORD), timeout=120) as client:
        flow = (await client.post("/flows/", json={"name": "burst"})).json()["id"]
        runs = [(await client.post("/flow_runs/", json={"flow_id": flow})).json()["id"] for _ in range(CONNECTIONS)]
        await asyncio.sleep(2)
        lines = [reports(run, tasks // CONNECTIONS) for run in runs]
        sent = sum(map(len, lines))
        before, began = spent(here), time.monotonic()
        peak: dict[str, float] = {}

        async def watch() -> tuple[int, int, float]:
            last, at = (0, 0), time.monotonic()
            while time.monotonic() - at < QUIET:
                await asyncio.sleep(1)
                now = await counted(client)
                for name, size in memory(here).items():
                    peak[name] = max(size, peak.get(name, 0))
                if now != last:
                    last, at = now, time.monotonic()
                if now == (tasks, sent):
                    break
            return *last, at - began

        sender = asyncio.gather(*(send(here.url, some) for some in lines))
        watcher = asyncio.create_task(watch())
        await sender
        sending = time.monotonic() - began
        recorded, kept, seconds = await watcher
        processor = {name: round(value - before.get(name, 0), 1) for name, value in spent(here).items()}
    return {
        "task runs": tasks,
        "recorded as completed": recorded,
        "events": sent,
        "events kept": kept,
        "seconds to send": round(sending, 1),
        "seconds to the last": round(seconds, 1),
        "task runs a second": round(recorded / seconds, 1),
        "processor seconds": processor,
        "memory MB": {name: round(size) for name, size in peak.items()},
    }


async def counted(client: httpx.AsyncClient) -> tuple[int, int]:
    """Task runs that are Completed, and events of task runs."""
    done = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    tasks = (await client.post("/task_runs/count", json=done)).json()
    page = await client.post("/events/filter", json={"filter": {"event": {"prefix": ["prefect.task-run."]}}, "limit": 1})
    return tasks, page.json()["total"]


async def transitions(here: Stack, seconds: float) -> dict[str, Any]:
    took: list[float] = []
    async with httpx.AsyncClient(base_url=here.url, auth=(USER, WORD), timeout=120) as client:
        flow = (await client.post("/flows/", json={"name": "transitions"})).json()["id"]
        began = time.monotonic()

        async def one() -> None:
            while time.monotonic() - began < seconds:
                made = await client.post("/flow_runs/", json={"flow_id": flow, "state": {"type": "SCHEDULED"}})
                run = made.json()["id"]
                for kind in ("PENDING", "RUNNING", "COMPLETED"):
                    at = time.monotonic()
                    answer = await client.post(f"/flow_runs/{run}/set_state", json={"state": {"type": kind}})
                    assert answer.json()["status"] == "ACCEPT", answer.text
                    took.append(time.monotonic() - at)

        await asyncio.gather(*(one() for _ in range(CLIENTS)))
        elapsed = time.monotonic() - began
    cuts = statistics.quantiles(took, n=20)
    return {
        "answers": len(took),
        "a second": round(len(took) / elapsed, 1),
        "median ms": round(1000 * statistics.median(took)),
        "95th percentile ms": round(1000 * cuts[18]),
    }


def families(here: Stack) -> dict[str, list[psutil.Process]]:
    found = {}
    for name, process in here.running.items():
        leader = psutil.Process(process.pid)
        found[name] = [leader, *leader.children(recursive=True)]
    return found


def spent(here: Stack) -> dict[str, float]:
    """Processor seconds; a child of Postgres that has ended takes its own along."""
    found = {}
    for name, family in families(here).items():
        found[name] = 0.0
        for one in family:
            try:
                times = one.cpu_times()
            except psutil.NoSuchProcess:
                continue
            found[name] += times.user + times.system
    return found


def memory(here: Stack) -> dict[str, float]:
    """What is shared between processes counts once."""
    found = {}
    for name, family in families(here).items():
        found[name] = 0.0
        for one in family:
            try:
                found[name] += one.memory_full_info().pss / 1e6
            except psutil.NoSuchProcess:
                continue
    return found


def measured(server: str, tasks: int, seconds: float) -> dict[str, Any]:
    with stack() as here:
        began = time.monotonic()
        begin(here, server)
        start = time.monotonic() - began
        load = os.getloadavg()[0]
        idle = memory(here)
        answers = asyncio.run(transitions(here, seconds))
        found = {
            "server": server,
            "load before": round(load, 1),
            "seconds to start": round(start, 1),
            "memory MB at rest": {name: round(size) for name, size in idle.items()},
            "transitions": answers,
            "burst": asyncio.run(burst(here, tasks)),
        }
        logs = "".join(here.log(name) for name in here.running if name in ("server", "services"))
        return found | {"dropped, by its log": logs.count("dropping message") + logs.count("dropping event")}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Median, least and most of each server and size of burst, and of the ratios to SQLite within a round."""
    sizes = sorted({row["burst"]["task runs"] for row in rows})
    return {f"{size} task runs": of_size([row for row in rows if row["burst"]["task runs"] == size]) for size in sizes}


def of_size(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    values = {
        "recorded share": lambda row: row["burst"]["recorded as completed"] / row["burst"]["task runs"],
        "events kept share": lambda row: row["burst"]["events kept"] / row["burst"]["events"],
        "task runs a second": lambda row: row["burst"]["task runs a second"],
        "transitions a second": lambda row: row["transitions"]["a second"],
        "processor ms a task run": lambda row: (
            1000 * sum(row["burst"]["processor seconds"].values()) / row["burst"]["recorded as completed"]
        ),
        "memory MB": lambda row: sum(row["burst"]["memory MB"].values()),
    }
    for server in dict.fromkeys(row["server"] for row in rows):
        mine = [row for row in rows if row["server"] == server]
        found[server] = {"n": len(mine)}
        for name, value in values.items():
            got = [value(row) for row in mine]
            found[server][name] = [round(x, 3) for x in (statistics.median(got), min(got), max(got))]
            base = {row["round"]: value(row) for row in rows if row["server"] == SERVERS[0]}
            ratio = [value(row) / base[row["round"]] for row in mine if base.get(row["round"])]
            if ratio and name != "memory MB" and server != SERVERS[0]:
                found[server][f"{name}, times SQLite"] = [round(x, 2) for x in (statistics.median(ratio), min(ratio), max(ratio))]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--only", nargs="*", default=list(SERVERS))
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if why := lacking():
        print(f"error: {why}", file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = json.loads(asked.out.read_text())["runs"] if asked.out and asked.out.exists() else []
    first = 1 + max((row["round"] for row in rows), default=-1)
    for turn in range(first, first + asked.rounds):
        order = asked.only[turn % len(asked.only) :] + asked.only[: turn % len(asked.only)]
        for server in order:
            rows.append({"round": turn} | measured(server, asked.tasks, asked.seconds))
            print(json.dumps(rows[-1]), flush=True)
            if asked.out:
                head = {"cores": os.cpu_count(), "versions": versions(), "servers": summary(rows), "runs": rows}
                asked.out.write_text(json.dumps(head, indent=1) + "\n")
    return 0


def versions() -> dict[str, str]:
    from importlib.metadata import version

    from team_stack import binary

    said = {name: version(name) for name in ("prefect", "prefect-redis", "redis")}
    for name in ("postgres", "redis-server"):
        said[name] = subprocess.run([binary(name) or "", "--version"], capture_output=True, text=True).stdout.strip()
    return said


if __name__ == "__main__":
    sys.exit(main())
