"""What the processes of the store's stress test run: writers that acknowledge, readers that look on."""

import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

import duckdb

from esr.store import Store
from esr.types import Attempt, Grade, Reply

ROWS, BATCHES = 8, 3


def replies(writer: str, batch: int) -> list[Reply]:
    ids = [f"{writer}-{batch}-{i}" for i in range(ROWS)]
    return [
        Reply(trial_id=i, text="so it goes " * 20, token_ids=tuple(range(40)), n_prompt_tokens=9, finish_reason="stop", applied=3)
        for i in ids
    ]


def write(root: str, writer: str, acknowledged: str) -> None:
    """Every batch twice, as a retry would; a line for what has been acknowledged; the database now and then."""
    store = Store(Path(root))
    with open(acknowledged, "ab", buffering=0) as ack:
        for batch in range(BATCHES):
            some = replies(writer, batch)
            store.put_replies(some)
            store.put_replies(some)
            grades = [
                Grade(
                    trial_id=r.trial_id,
                    latent=1,
                    judge="lexical",
                    judge_prompt="p",
                    attempts=(Attempt(50.0, "a", 0, 1), Attempt(80.0, "b", 1, 2)),
                )
                for r in some
            ]
            store.put_grades(grades)
            os.write(ack.fileno(), "".join(f"{r.trial_id}\n" for r in some).encode())
            if batch % 2:
                store.ingest()


def serve(pipe: Connection, root: str) -> None:
    """A writer for many rounds: told a name and where to acknowledge, it writes and says that it is done."""
    while (told := pipe.recv()) is not None:
        write(root, *told)
        pipe.send("done")


def read(root: str, stop: str, errors: str) -> None:
    """Counts grow and nothing is doubled, whoever writes; whatever goes wrong is written down."""
    store, last = Store(Path(root)), 0
    try:
        while True:
            ending = Path(stop).exists()
            rows, ids = store.sql("select count(*) as n, count(distinct trial_id) as ids from replies").to_pylist()[0].values()
            assert rows == ids, f"{rows} rows of {ids} replies"
            assert rows >= last, f"{rows} rows after {last}"
            last = rows
            if ending:
                return
            time.sleep(0.02)
    except BaseException as error:
        with open(errors, "a", encoding="utf-8") as file:
            file.write(f"{type(error).__name__}: {error}\n")


def sit(path: str, ready: str, stop: str) -> None:
    """A person in a DuckDB shell, holding the file for writing."""
    with duckdb.connect(path) as con:
        con.execute("create table if not exists my_notes (text varchar)")
        Path(ready).touch()
        while not Path(stop).exists():
            time.sleep(0.01)
