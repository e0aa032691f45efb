"""What was acknowledged is never lost, never doubled, and can always be read."""

import logging
import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import store_workers as workers
from store_rows import grade, member, one, reply

from esr import params
from esr.errors import StoreError
from esr.params import HOME
from esr.record.manifest import manifest
from esr.store import Store, database, migration, schema, shards

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["store_workers"])  # every child is a fork of one process that has imported the store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_of_equal_ids_the_first_written_stands_in_every_order_of_reading(tmp_path):
    """Files are scanned in parallel, so one lucky pass proves nothing: many small stores, built twice each."""
    for i in range(6):
        store = Store(tmp_path / str(i))
        for text in ("first", "second", "third"):
            store.put("replies", [{"trial_id": "same", "text": text}, {"trial_id": text, "text": "t"}])
        for _ in range(2):
            assert one(store, "select text from replies where trial_id = 'same'") == {"text": "first"}
            store.rebuild()


def test_what_is_larger_than_the_memory_enters_whole_slice_by_slice(store, monkeypatch):
    """Each shard a slice of its own; one of them alone needs more than DuckDB may take at first."""
    monkeypatch.setattr(database, "SLICE", 1)
    monkeypatch.setattr(database, "MEMORY", "16.0 MiB")
    for text in ("first", "second"):
        store.put("replies", [{"trial_id": "same", "text": text}, {"trial_id": text, "text": "t"}])
    store.put("replies", [{"trial_id": str(i), "text": random.Random(i).randbytes(1000).hex()} for i in range(12_000)])
    damaged = store.put("replies", [{"trial_id": "lost", "text": "x" * 100}])
    content = bytearray(damaged.read_bytes())
    content[4:60] = bytes(56)
    damaged.write_bytes(content)
    found = store.ingest()
    assert (found.shards, found.rows, found.deferred) == (3, 12_003, None)
    assert one(store, "select text from replies where trial_id = 'same'") == {"text": "first"}


def test_putting_the_same_again_is_nothing(store):
    ms = [member(i) for i in range(3)]
    for _ in range(2):
        store.put_replies([reply(m) for m in ms])
        store.put_grades([grade(m, 5) for m in ms])
    assert len(list((store.root / "shards" / "replies").iterdir())) == len(list((store.root / "shards" / "grades").iterdir())) == 1
    store.put_replies([reply(ms[2], "another text"), reply(member(9))])
    for _ in range(2):
        assert one(store, "select count(*) as n, count(distinct trial_id) as ids from replies") == {"n": 4, "ids": 4}
        assert one(store, f"select text from replies where trial_id = '{ms[2].trial.id}'") == {"text": "fine words"}, (
            "the first written stands"
        )
        store.rebuild()


def test_known_sees_what_is_durable_at_once(store):
    ms = [member(i) for i in range(4)]
    ids = [m.trial.id for m in ms]
    assert store.known("replies", ids) == set()
    store.put_replies([reply(m) for m in ms[:2]])
    assert store.known("replies", ids) == set(ids[:2])
    Store(store.root).put_replies([reply(m) for m in ms[2:3]])
    assert store.known("replies", ids) == set(ids[:3])
    assert store.known("grades", ids) == set()


def test_what_does_not_fit_is_refused_by_name_and_nothing_is_stored(store):
    with pytest.raises(StoreError, match=r"no table 'trails'.*nearest: trials"):
        store.put("trails", [])
    with pytest.raises(StoreError, match=r"no column 'txt'.*nearest: text"):
        store.put("replies", [{"trial_id": "a", "txt": "b"}])
    with pytest.raises(StoreError, match="lack 'trial_id'"):
        store.put("replies", [{"text": "b"}])
    with pytest.raises(StoreError, match="types"):
        store.put("replies", [{"trial_id": "a", "text": "b", "applied": "many"}])
    with pytest.raises(StoreError, match="cannot be named"):
        store.put("replies", [{"trial_id": "a", "text": "b"}], key="../up")
    with pytest.raises(StoreError, match="is not a time"):
        store.put_run({"started_at": "yesterday"})
    assert not (store.root / "shards").exists()


def test_a_users_query_that_fails_is_one_sentence(store):
    with pytest.raises(StoreError) as caught:
        store.sql("select nothing from\n nowhere")
    assert "\n" not in str(caught.value)
    assert "nowhere" in str(caught.value)


def test_torn_and_foreign_files_are_named_and_left_alone(store, caplog):
    ms = [member(i) for i in range(6)]
    store.put_replies([reply(m) for m in ms[:4]])
    good = next((store.root / "shards" / "replies").iterdir())
    folder = good.parent
    whole = good.read_bytes()
    bad = {
        folder / "torn.parquet": whole[: len(whole) // 2],
        folder / "empty.parquet": b"",
        folder / "notes.txt": b"hello",
        store.root / "shards" / "stray.parquet": whole,
        folder / "damaged.parquet": whole[:60] + bytes(b ^ 255 for b in whole[60:400]) + whole[400:],
    }
    for path, content in bad.items():
        path.write_bytes(content)
    pq.write_table(pa.table({"trial_id": ["zzz"]}), folder / "foreign.parquet")
    bad[folder / "foreign.parquet"] = (folder / "foreign.parquet").read_bytes()
    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            assert one(store, "select count(*) as n from replies") == {"n": 4}
        assert store.known("replies", [ms[0].trial.id, "zzz"]) == {ms[0].trial.id}
        store.put_replies([reply(ms[4])])
        assert store.ingest().deferred is None
        assert one(store, "select count(*) as n from replies")["n"] == 5
        store.rebuild()
        break
    for path, content in bad.items():
        assert path.name in caplog.text
        assert path.read_bytes() == content


def test_rows_whose_shard_name_is_taken_by_a_torn_file_are_kept_beside_it(store):
    row = [{"trial_id": "a", "text": "b"}]
    path = store.put("replies", row, key="k")
    path.write_bytes(b"PAR1 torn")
    beside = store.put("replies", row, key="k")
    assert beside != path
    assert store.known("replies", ["a"]) == {"a"}
    assert store.put("replies", row, key="k") == beside


def test_a_deleted_or_broken_database_comes_back(store, caplog):
    ms = [member(i) for i in range(3)]
    store.put_members(ms)
    store.put_grades([grade(m, 10, 20) for m in ms])
    before = store.sql("from summary").to_pylist()
    database.file(store.root).unlink()
    assert store.sql("from summary").to_pylist() == before
    database.file(store.root).write_bytes(b"not a database at all" * 1000)
    assert store.sql("from summary").to_pylist() == before
    store.ingest()
    assert store.sql("from summary").to_pylist() == before
    assert list(store.root.glob("esr.duckdb.unreadable-*"))


def test_the_database_alone_answers_too_and_keeps_what_a_person_made(store):
    store.put_members([member(0)])
    store.put_grades([grade(member(0), 10, 20)])
    store.ingest()
    with duckdb.connect(str(database.file(store.root))) as con:
        con.execute("create table mine as select 1 as x")
    store.rebuild()
    with duckdb.connect(str(database.file(store.root)), read_only=True) as con:
        assert con.sql("select n_corrected from summary").fetchall() == [(1,)]
        assert con.sql("from mine").fetchall() == [(1,)]


def test_a_removed_shard_is_no_longer_counted(store):
    paths = [store.put("replies", [{"trial_id": i, "text": "t"}]) for i in "ab"]
    store.ingest()
    paths[0].unlink()
    assert one(store, "select trial_id from replies") == {"trial_id": "b"}
    store.ingest()
    assert one(store, "select trial_id from replies") == {"trial_id": "b"}


def test_a_full_disk_is_one_sentence_and_leaves_nothing(store):
    store.put("replies", [{"trial_id": "a", "text": "b"}])
    held = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        text = random.Random(1).randbytes(40_000).hex()
        with pytest.raises(StoreError, match=r"cannot be written to .*; nothing of them was kept") as caught:
            store.put("replies", [{"trial_id": "c", "text": text}])
        assert one(store, "select trial_id from replies") == {"trial_id": "a"}, "reading needs no room"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, held)
    assert "\n" not in str(caught.value)
    assert len(os.listdir(store.root / "shards" / "replies")) == 1
    store.put("replies", [{"trial_id": "c", "text": text}])
    assert store.known("replies", ["a", "c"]) == {"a", "c"}


def test_a_store_that_cannot_be_written_is_one_sentence_and_can_still_be_read(store, monkeypatch):
    store.put("replies", [{"trial_id": "a", "text": "b"}])
    (store.root / "shards" / "grades").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="grades"):
        store.put("grades", [{"trial_id": "a", "latent": 1, "judge": "j", "judge_prompt": "p"}])
    for path in (store.root, store.root / "shards", store.root / "shards" / "replies"):
        path.chmod(0o555)
    try:
        assert one(store, "select trial_id from replies") == {"trial_id": "a"}
        if os.geteuid():
            with pytest.raises(StoreError, match="ermission"):
                store.put("replies", [{"trial_id": "c", "text": "b"}])
    finally:
        for path in (store.root, store.root / "shards", store.root / "shards" / "replies"):
            path.chmod(0o755)


def old_shard(store: Store) -> None:
    """What schema version 1 wrote: members without a plan."""
    folder = store.root / "shards" / "members"
    folder.mkdir(parents=True)
    row = {"experiment": "exp01", "model": "tiny", "arm": "baseline", "scale": "full", "trial_id": "t1", "question": "q", "latent": 1,
           "latent_label": "l", "boost": 2.0, "threshold": None}  # fmt: skip
    data = pa.Table.from_pylist([row, row | {"trial_id": "t2"}])
    facts = {"esr_table": "members", "esr_schema": "1", "esr_written": "2026-01-01T00:00:00+00:00"}
    pq.write_table(data.replace_schema_metadata(facts), folder / "old.parquet", compression="zstd")


def test_a_store_of_an_older_version_is_read_as_todays(store):
    old_shard(store)
    before = (store.root / "shards" / "members" / "old.parquet").read_bytes()
    with duckdb.connect(str(database.file(store.root))) as con:
        con.execute("create table esr_schema (version varchar); insert into esr_schema values ('1:abc')")
        con.execute(
            "create table esr_ingested (shard varchar primary key); insert into esr_ingested values ('members/old.parquet')"
        )
        con.execute("create table members (trial_id varchar); insert into members values ('t1')")
    for _ in range(2):
        assert one(store, "select n_planned, arm from summary") == {"n_planned": 2, "arm": "baseline"}
        assert store.sql("select distinct plan from members")["plan"].to_pylist() == ["version-1"]
        store.ingest()
    store.put_members([member(0, scale="full")])
    assert one(store, "select n_planned from summary")["n_planned"] == 1, "a plan made today stands before the old one"
    assert (store.root / "shards" / "members" / "old.parquet").read_bytes() == before
    assert set(migration.STEPS) == set(range(1, schema.VERSION))


def test_a_store_of_a_newer_version_is_left_alone(store, caplog):
    store.put("replies", [{"trial_id": "a", "text": "b"}])
    store.ingest()
    with duckdb.connect(str(database.file(store.root))) as con:
        con.execute("update esr_schema set version = '99:x'")
    data = pa.table({"trial_id": ["n"]}).replace_schema_metadata({"esr_table": "replies", "esr_schema": "99"})
    pq.write_table(data, store.root / "shards" / "replies" / "newer.parquet")
    assert one(store, "select trial_id from replies") == {"trial_id": "a"}
    assert "newer" in (store.ingest().deferred or "")
    assert "schema version 99" in caplog.text


@pytest.mark.quiet
def test_a_person_in_a_shell_stops_nobody(store, tmp_path):
    ms = [member(i) for i in range(20)]
    store.put_members(ms)
    store.ingest()
    sitting = FORK.Process(
        target=workers.sit, args=(str(database.file(store.root)), str(tmp_path / "ready"), str(tmp_path / "stop"))
    )
    sitting.start()
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "ready").exists() and time.monotonic() < until:
            time.sleep(0.01)
        start = time.monotonic()
        for m in ms:
            store.put_grades([grade(m, 10, 20)])
        assert store.ingest().deferred
        assert one(store, "select n_planned, n_graded from summary") == {"n_planned": 20, "n_graded": 20}
        assert time.monotonic() - start < 10
    finally:
        (tmp_path / "stop").touch()
        sitting.join(60)
    assert store.ingest() == database.Ingested(20, 20)
    with duckdb.connect(str(database.file(store.root)), read_only=True) as con:
        assert con.sql("select count(*) from grades").fetchall() == [(20,)]
        assert con.sql("from my_notes").fetchall() == []


def test_threads_of_one_process_may_all_ask_and_tell(store):
    wrong: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for batch in range(3):
                store.put_replies(workers.replies(name, batch))
                n, ids = store.sql("select count(*) as n, count(distinct trial_id) as i from replies").to_pylist()[0].values()
                assert n == ids >= (batch + 1) * workers.ROWS
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert one(store, "select count(*) as n from replies")["n"] == 12 * workers.ROWS


@pytest.mark.slow
def test_no_acknowledged_row_is_lost_or_doubled_when_writers_are_killed(store, tmp_path):
    """Four writers and two readers, one writer killed at a random moment; fifty rounds on one store."""
    rng, root, errors, stop = random.Random(4), str(store.root), tmp_path / "errors", tmp_path / "stop"
    pipes = [FORK.Pipe() for _ in range(3)]
    writers = [FORK.Process(target=workers.serve, args=(there, root)) for _, there in pipes]
    readers = [FORK.Process(target=workers.read, args=(root, str(stop), str(errors))) for _ in range(2)]
    for process in (*writers, *readers):
        process.start()
    for number in range(50):
        victim = FORK.Process(target=workers.write, args=(root, f"{number}-victim", str(tmp_path / f"ack{number}-victim")))
        victim.start()
        for i, (here, _) in enumerate(pipes):
            here.send((f"{number}-{i}", str(tmp_path / f"ack{number}-{i}")))
        time.sleep(rng.uniform(0, 0.4))
        victim.kill()
        victim.join()
        assert all(here.poll(60) and here.recv() == "done" for here, _ in pipes)
    stop.touch()
    for here, _ in pipes:
        here.send(None)
    for process in (*writers, *readers):
        process.join(60)
        assert process.exitcode == 0
    assert not errors.exists(), errors.read_text()
    acknowledged = {line for ack in tmp_path.glob("ack*") for line in ack.read_text().splitlines()}
    assert len(acknowledged) >= 50 * 3 * workers.BATCHES * workers.ROWS
    assert store.ingest().deferred is None
    for _ in range(2):
        for table in ("replies", "grades"):
            ids = store.sql(f"select trial_id from {table}")["trial_id"].to_pylist()
            assert len(ids) == len(set(ids))
            assert acknowledged <= set(ids)
        assert store.rebuild().deferred is None
    with duckdb.connect(str(database.file(store.root)), read_only=True) as con:
        assert con.sql("select count(*) from replies").fetchone()[0] >= len(acknowledged)


def test_the_page_says_what_the_sql_says():
    assert (HOME / "docs" / "store.md").read_text(encoding="utf-8") == schema.markdown()


def test_every_column_is_explained_and_the_summary_has_the_columns_others_rely_on():
    found = {item.name: item for item in schema.described()}
    assert set(schema.tables()) < set(found)
    assert all(column.about for item in found.values() for column in item.columns)
    assert [column.name for column in found["summary"].columns] == [
        "experiment", "model", "arm", "judge", "scale", "n_planned", "n_graded", "n_missing", "n_multi", "n_corrected", "n_degraded",
        "first_score_mean", "multi_attempt_rate", "esr_rate", "improvement_rate", "gain_all_mean", "gain_multi_mean",
        "n_graded_as_told", "multi_attempt_rate_as_told", "esr_rate_as_told", "n_pending", "n_failed",
    ]  # fmt: skip


def test_a_manifest_says_what_a_run_rests_on_and_no_secret(store, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret-thing")
    made = manifest(params.load("70b"), "70b")
    named = store.put_run(
        {
            "experiment": "exp01",
            "model": "70b",
            "scale": "full",
            "started_at": datetime.now(UTC),
            "status": "completed",
            "manifest": made,
        }
    )
    row = one(store, "select run_id, manifest ->> '$.params.digest' as digest, manifest from runs")
    assert row["run_id"] == named
    assert row["digest"] == params.load("70b").digest
    assert "sk-secret-thing" not in row["manifest"]
    assert {"revision", "libraries", "host", "sae", "prompts", "seed", "engine"} <= set(made)


def test_a_shard_says_who_wrote_it(store):
    path = store.put("replies", [{"trial_id": "a", "text": "b"}])
    shard = shards.inspect("replies", path)
    assert shard is not None
    assert (shard.version, shard.table, path.stem) == (schema.VERSION, "replies", path.name.removesuffix(".parquet"))
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
