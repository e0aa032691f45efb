"""Measures a store in a bucket against one in a folder, and against DuckLake where its extensions are given. To docs/benchmarks/remote.json.

    python scripts/bench_remote.py [--extensions FOLDER --postgres 'dbname=lake host=127.0.0.1 user=postgres']

The S3 server is moto's, on this machine: one process of Python that answers a request in some ten milliseconds. FOLDER holds the unpacked
wheels duckdb-extension-ducklake, -postgres-scanner and -httpfs of DuckDB's version. Both write so many batches of 64 replies, each durable
before the next, and then answer the same question on a machine that has seen nothing yet and once more.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import duckdb

from esr.params import HOME
from esr.remote import mirror
from esr.remote.bucket import Bucket
from esr.remote.lease import leased
from esr.store import Store
from esr.types import Reply

sys.path.insert(0, str(HOME / "tests"))
import s3_server  # the tests' folder is not a package

BATCHES, EACH = 200, 64
WORDS = "Bread wants flour, water, salt and time; knead it well, let it rest, and bake it until the crust sings. " * 12
QUESTION = "select count(*), sum(n_prompt_tokens), max(text) from replies"


def replies(batch: int) -> list[Reply]:
    return [
        Reply(trial_id=f"{batch:06d}{i:026d}", text=f"{batch} {i} {WORDS}", token_ids=tuple(range(300)), n_prompt_tokens=40, finish_reason="stop", applied=300)
        for i in range(EACH)
    ]  # fmt: skip


def timed(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def told(seconds: list[float]) -> dict[str, float]:
    return {"median_ms": round(1e3 * statistics.median(seconds), 1), "sum_s": round(sum(seconds), 2)}


def store(root: Path) -> dict[str, Any]:
    made = Store(root)
    writing = [timed(partial(made.put_replies, replies(b))) for b in range(BATCHES)]
    return {"batch": told(writing)}


def bucket(folder: Path, server: s3_server.Server) -> dict[str, Any]:
    os.environ.update(server.env, ESR_STORE=f"s3://{s3_server.BUCKET}/bench", ESR_MIRROR=str(folder / "writes"))
    found = store(folder / "writes")
    place = Bucket(os.environ["ESR_STORE"])

    def lease() -> None:
        with leased(place, "locks/bench"):
            pass

    found["look for news"] = told([timed(lambda: mirror.refresh(folder / "writes", at_once=True)) for _ in range(10)])
    found["lease taken and given back"] = told([timed(lease) for _ in range(10)])
    os.environ["ESR_MIRROR"] = str(folder / "reads")
    found["question on a new machine"] = told([timed(lambda: Store().sql(QUESTION))])
    found["question once more"] = told([timed(lambda: Store().sql(QUESTION)) for _ in range(5)])
    return found


def lake(extensions: Path, postgres: str, server: s3_server.Server) -> dict[str, Any]:
    def opened() -> duckdb.DuckDBPyConnection:
        con = duckdb.connect()
        for file in sorted(extensions.rglob("*.duckdb_extension")):
            con.execute(f"LOAD '{file}'")
        con.execute(
            f"CREATE SECRET s (TYPE s3, KEY_ID 'key', SECRET 'secret', REGION 'us-east-1', ENDPOINT '127.0.0.1:{server.port}', "
            "URL_STYLE 'path', USE_SSL false)"
        )
        con.execute(f"ATTACH 'ducklake:postgres:{postgres}' AS lake (DATA_PATH 's3://{s3_server.BUCKET}/lake'); USE lake")
        return con

    con = opened()
    con.execute("CREATE TABLE replies (trial_id VARCHAR, text VARCHAR, token_ids INTEGER[], n_prompt_tokens INTEGER)")

    def write(batch: int) -> None:
        rows = [(one.trial_id, one.text, list(one.token_ids), one.n_prompt_tokens) for one in replies(batch)]
        con.register("batch", _arrow(rows))
        con.execute("INSERT INTO replies FROM batch")

    writing = [timed(partial(write, b)) for b in range(BATCHES)]
    return {
        "batch": told(writing),
        "question on a new machine": told([timed(lambda: opened().execute(QUESTION).fetchall())]),
        "question once more": told([timed(lambda: con.execute(QUESTION).fetchall()) for _ in range(5)]),
    }


def _arrow(rows: list[tuple[Any, ...]]) -> Any:
    import pyarrow as pa

    return pa.table(
        dict(zip(("trial_id", "text", "token_ids", "n_prompt_tokens"), map(list, zip(*rows, strict=True)), strict=True))
    )


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--extensions", type=Path)
    words.add_argument("--postgres", default="dbname=lake host=127.0.0.1 user=postgres")
    words.add_argument("--out", type=Path, default=HOME / "docs/benchmarks/remote.json")
    asked = words.parse_args()
    found: dict[str, Any] = {"batches": BATCHES, "replies_each": EACH, "cores": os.cpu_count(), "python": platform.python_version()}
    os.environ.pop("ESR_STORE", None)
    with tempfile.TemporaryDirectory() as name, s3_server.running() as server:
        found["folder"] = store(Path(name) / "folder")
        found["bucket"] = bucket(Path(name), server)
        if asked.extensions:
            found["ducklake"] = lake(asked.extensions, asked.postgres, server)
    found["load"] = os.getloadavg()[0]
    asked.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
