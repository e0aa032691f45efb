"""Measures the store on 25,000 trials: writing shards, ingesting, the resume anti-join, the summary. To docs/benchmarks/store.json.

python scripts/bench_store.py
"""

import json
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

from esr.params import HOME
from esr.store import Store
from esr.types import BASELINE, Attempt, Grade, Latent, Member, Op, Reply, Sampling, Trial

N, BATCH = 25_000, 250
PLAIN = Sampling(temperature=0.6, top_p=1.0, repetition_penalty=1.1, max_tokens=512)


def member(i: int) -> Member:
    latent = Latent(i // 5, f"label {i // 5}")
    trial = Trial(
        model="70b", weights="w", meaning="", prompt=f"question {i % 38}", prompt_format="clean", seed=i, sampling=PLAIN, question=f"question {i % 38}",
        ops=(Op("add", latent.index, 9.4, 33, "s"),), latent=latent, boost=9.4, threshold=9.4,
    )  # fmt: skip
    return Member(arm=BASELINE, model="70b", scale="full", trial=trial)


def timed(work: Callable[[], object], times: int = 1) -> list[float]:
    taken = []
    for _ in range(times):
        start = perf_counter()
        work()
        taken.append(round(perf_counter() - start, 4))
    return taken


def both(work: Callable[[], object], times: int = 1) -> tuple[list[float], list[float]]:
    """Wall and CPU seconds; on a busy machine only the latter say what it takes."""
    wall, cpu = [], []
    for _ in range(times):
        start = process_time()
        wall += timed(work)
        cpu.append(round(process_time() - start, 4))
    return wall, cpu


def fill(store: Store, members: list[Member]) -> None:
    for at in range(0, len(members), BATCH):
        some = members[at : at + BATCH]
        store.put_replies([
            Reply(trial_id=m.trial.id, text=f"reply {i} " + "so it goes on " * 60, token_ids=tuple(range(i % 300)), n_prompt_tokens=40,
                  finish_reason="stop", applied=300)
            for i, m in enumerate(some, at)
        ])  # fmt: skip
        store.put_grades([
            Grade(trial_id=m.trial.id, latent=m.trial.latent.index, judge="haiku-4.5", judge_prompt="p",
                  attempts=tuple(Attempt(float((i + k) % 101), "as the judge quoted it " * 8, 0, 50) for k in range(1 + i % 3)))
            for i, m in enumerate(some, at)
        ])  # fmt: skip


def main() -> None:
    members = [member(i) for i in range(N)]
    ids = [m.trial.id for m in members]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        found: dict[str, object] = {"trials": N, "batch": BATCH}
        found["write_members_s"] = timed(lambda: store.put_members(members))
        found["write_replies_and_grades_s"] = timed(lambda: fill(store, members))
        found["shards"] = sum(1 for _ in Path(folder).rglob("*.parquet"))
        found["ingest_s"], found["ingest_cpu_s"] = both(store.ingest)
        found["rebuild_s"], found["rebuild_cpu_s"] = both(store.rebuild, 3)
        found["known_first_time_in_a_process_s"] = [timed(lambda: Store(Path(folder)).known("replies", ids))[0] for _ in range(3)]
        found["known_s"] = (store.known("replies", ids), timed(lambda: store.known("replies", ids), 5))[1]
        found["summary_s"] = timed(lambda: store.sql("from summary"), 3)
        found["machine"] = {"cpus": os.cpu_count(), "system": platform.platform(), "load_before_and_after": os.getloadavg()}
    (HOME / "docs" / "benchmarks" / "store.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
