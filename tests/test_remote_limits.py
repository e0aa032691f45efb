"""A provider's limit over several machines: together they stay within it, and what a machine gave up the others have."""

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from s3_server import BUCKET, Server

from esr.judge.providers import machines
from esr.judge.providers.machines import Machines
from esr.params import HOME
from esr.remote.bucket import Bucket

PER_MINUTE = 1200
URL = f"s3://{BUCKET}/limits"
ASKS = """
import asyncio, json, sys, time
from esr.judge.providers import machines
from esr.judge.providers.limits import Limits
from esr.remote.bucket import Bucket
machines.EVERY, machines.TERM = 0.5, 3.0
there = machines.Machines(Bucket(sys.argv[1]), "provider")
there.settled.wait()

async def ask(until):
    limits = Limits("provider", 64, int(sys.argv[2]), lambda: there.asking)
    while time.time() < until:
        async with limits.slot():
            await limits.start()
            print(time.time(), flush=True)

asyncio.run(ask(time.time() + float(sys.argv[3])))
there.close()
"""


def asking(served: Server, limits: Path, seconds: float) -> "subprocess.Popen[str]":
    """A machine of its own, by the folder of its limits."""
    env = {**os.environ, **served.env, "ESR_LIMITS": str(limits)}
    words = [sys.executable, "-c", ASKS, URL, str(PER_MINUTE), str(seconds)]
    return subprocess.Popen(words, env=env, cwd=HOME, stdout=subprocess.PIPE, text=True)


def median_gap(times: list[float]) -> float:
    return median(later - earlier for earlier, later in pairwise(times))


def test_two_machines_together_keep_one_limit_and_one_that_ends_leaves_it_to_the_other(served: Server, tmp_path: Path) -> None:
    long, short = asking(served, tmp_path / "a", 14), None
    try:
        assert long.stdout
        first = float(long.stdout.readline())
        short = asking(served, tmp_path / "b", 4)
        told = short.communicate(timeout=60)[0].split()
        rest = long.communicate(timeout=60)[0].split()
    finally:
        for one in (long, short):
            if one is not None:
                one.kill()
    b = [float(at) for at in told]
    a = [first, *(float(at) for at in rest)]
    interval = 60 / PER_MINUTE
    both = [at for at in sorted(a + b) if b[0] <= at <= b[-1]]
    assert len(both) <= (b[-1] - b[0]) / interval * 1.1 + 8  # what a stall of the machine loses may be caught up on
    assert len(b) <= (b[-1] - b[0]) / (2 * interval) * 1.1 + 8
    shared, alone = [at for at in a if b[0] <= at <= b[-1]], [at for at in a if at > b[-1] + 1.5]
    assert median_gap(alone) < 0.75 * median_gap(shared)


def test_processes_of_one_machine_are_one_and_a_dead_one_is_forgotten(
    served: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in served.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(machines, "EVERY", 0.1)
    monkeypatch.setattr(machines, "TERM", 2.0)
    monkeypatch.setenv("ESR_LIMITS", str(tmp_path / "limits"))
    bucket = Bucket(f"s3://{BUCKET}/dead")
    one, two = Machines(bucket, "p"), Machines(bucket, "p")
    try:
        assert one.settled.wait(10)
        assert two.settled.wait(10)
        assert (one.asking, two.asking) == (1, 1)
        [name, *_] = bucket.objects("limits/")
        bucket.keep("/".join([*name.split("/")[:2], "another", "process"]), b"asking")
        for wanted in (2, 1):  # seen, and forgotten when its term is over
            until = time.monotonic() + 15
            while one.asking != wanted:
                assert time.monotonic() < until
                time.sleep(0.05)
    finally:
        one.close()
        two.close()
    assert [name for name in bucket.objects("limits/") if "another" not in name] == []
