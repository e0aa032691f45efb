"""A shard is checked whole before it counts; one that fails is named, counted by `doctor` and in nobody's way."""

import logging
import random
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_rows import grade, member, one, reply

from esr.__main__ import main
from esr.store import Audit, Store, check, database, merge, query, schema, shards


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def forged(store: Store, name: str, data: pa.Table, version: int = schema.VERSION) -> None:
    """A file that says it is a shard, as another program may write one."""
    folder = store.root / "shards" / "replies"
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"esr_table": "replies", "esr_schema": str(version), "esr_written": "2026-01-01T00:00:00+00:00"}
    pq.write_table(data.replace_schema_metadata(facts), folder / f"{name}.parquet")


def good(trial: str) -> pa.Table:
    return schema.typed("replies", [{"trial_id": trial, "text": "words", "applied": 3}])


def with_column(name: str, values: pa.Array) -> pa.Table:
    data = good("bad")
    return data.set_column(data.column_names.index(name), name, values)


INVALID = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
BAD = {
    "a column is missing": good("bad").drop_columns(["text"]),
    "text is not UTF-8": with_column("text", INVALID),
    "a number is text": with_column("applied", pa.array(["3"])),
    "text is a number": with_column("text", pa.array([7])),
    "ids are NULL": with_column("trial_id", pa.array([None], pa.string())),
    "a list is a number": with_column("token_ids", pa.array([7])),
    "a column too many": good("bad").append_column("mine", pa.array([1])),
    "another integer": with_column("applied", pa.array([3], pa.int32())),
}


@pytest.mark.parametrize("version", [schema.VERSION, 2])
@pytest.mark.parametrize("why", list(BAD))
def test_a_shard_that_is_no_shard_is_in_nobodys_way(store, why, version, caplog):
    store.put("replies", [{"trial_id": "a", "text": "b"}])
    if version == 2 and why in (
        "a column is missing",
        "a column too many",
        "another integer",
        "a number is text",
        "text is a number",
    ):
        pytest.skip("what is brought forward is laid into today's types")
    forged(store, "forged", BAD[why], version)
    store.put("replies", [{"trial_id": "c", "text": "d"}])
    with caplog.at_level(logging.WARNING):
        assert store.sql("select trial_id from replies order by 1")["trial_id"].to_pylist() == ["a", "c"]
    assert "forged.parquet" in caplog.text
    assert store.known("replies", ["a", "bad", "c"]) == {"a", "c"}
    assert store.ingest().deferred is None
    with duckdb.connect(str(database.file(store.root)), read_only=True) as con:
        assert con.sql("select count(*) from replies").fetchall() == [(2,)], "what is sound entered the file"
    with duckdb.connect() as con:
        assert not query._behind(store.root, query._attach(con, store.root)), "and nothing is left to do"
    assert Store(store.root).sql("select count(*) as n from replies")["n"].to_pylist() == [2]


def test_a_shard_of_another_program_that_holds_what_it_should_counts(store):
    for version in (2, schema.VERSION):
        forged(store, f"by-hand-{version}", good(f"hand {version}"), version)
    with duckdb.connect() as con:
        con.execute("create table r as select 'duck' as trial_id, 'words' as text, [1, 2]::integer[] as token_ids, 3::integer as n_prompt_tokens,"
                    " 'stop' as finish_reason, 4::bigint as applied, false as degraded")  # fmt: skip
        path = store.root / "shards" / "replies" / "duck.parquet"
        con.execute(
            f"copy r to '{path}' (format parquet, kv_metadata {{esr_table: 'replies', esr_schema: '3', esr_written: '2026'}})"
        )
    assert store.sql("select count(*) as n from replies")["n"].to_pylist() == [3]
    assert store.known("replies", ["duck", "hand 2", f"hand {schema.VERSION}"]) == {"duck", "hand 2", f"hand {schema.VERSION}"}


def test_no_flipped_bit_passes(store):
    """Anywhere in the file: its rows are the ones written, or none."""
    rng, wanted = random.Random(3), {f"t{i}": f"words {i} of the reply" for i in range(40)}
    path = store.put("replies", [{"trial_id": k, "text": v, "applied": 3, "token_ids": [1, 2, 3]} for k, v in wanted.items()])
    content, alone, refused = path.read_bytes(), shards.inspect("replies", path), 0
    assert alone is not None
    for i in range(300):
        flipped = bytearray(content)
        at = rng.randrange(len(content))
        flipped[at] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        shards._left.clear()
        check._sound.clear()
        there = database.not_in({f"replies/{path.name}": path}, set())
        if not there:
            refused += 1
            continue
        with duckdb.connect() as con:
            con.execute(schema.sql("tables"))
            merge.merge(con, "replies", there)
            assert dict(con.execute("select trial_id, text from replies").fetchall()) == wanted, (
                f"flip {i} at {at} of {len(content)}"
            )
            assert con.execute("select distinct applied, token_ids, degraded from replies").fetchall() == [(3, [1, 2, 3], None)]
        assert there[0].written == alone.written
    assert refused == 300, "even where nothing of value stands"


def test_a_shard_that_duckdb_alone_refuses_is_left_alone_too(store, monkeypatch):
    """Whatever the check overlooks: the others enter."""
    store.put("replies", [{"trial_id": "a", "text": "b"}])
    forged(store, "forged", BAD["a column is missing"])
    monkeypatch.setattr(check, "_problem", lambda shard: "")
    assert store.ingest().deferred is None
    assert one(store, "select trial_id from replies") == {"trial_id": "a"}
    assert list(shards.left_alone(store.root)) == ["replies/forged.parquet"]


def test_a_shard_whose_hash_is_right_and_whose_columns_are_others_does_not_count(store):
    """As a neighbouring revision of this library, of the same schema version, may write it."""
    store.put("replies", [{"trial_id": "a", "text": "b"}])
    shards.write(store.root, "replies", BAD["a column is missing"], "theirs", datetime.now(UTC))
    assert one(store, "select trial_id from replies") == {"trial_id": "a"}
    assert store.known("replies", ["a", "bad"]) == {"a"}
    assert "lacks the column 'text'" in store.audit().left_alone["replies/theirs.parquet"]


def test_a_mended_shard_counts_again(store):
    path = store.put("replies", [{"trial_id": "a", "text": "b" * 100}])
    content = path.read_bytes()
    path.write_bytes(content[:-50] + bytes(50))
    assert store.sql("from replies").num_rows == 0
    path.write_bytes(content)
    assert store.sql("from replies").num_rows == 1


LACKING = ("drop view summary", "drop table grades cascade", "alter table recoveries drop column missing")
"""What the file's own notes say nothing of."""


@pytest.mark.parametrize(
    "mess",
    [
        *LACKING,
        "update esr_schema set version = 'garbage'",
        "update esr_schema set version = null",
        "delete from esr_schema",
        "drop table esr_schema; create table esr_schema (mine integer); insert into esr_schema values (1)",
        "drop table esr_ingested; create table esr_ingested (mine integer)",
        "drop table esr_ingested; create view esr_ingested as select 1 as x",
        "drop view summary; create table summary (x integer)",
        "drop view token_activations; drop table activations cascade; create view activations as select 1 as x",
    ],
)
def test_a_database_that_somebody_tampered_with_is_made_again(store, mess):
    ms = [member(i) for i in range(2)]
    store.put_members(ms)
    store.put_replies([reply(m) for m in ms])
    store.put_grades([grade(m, 10) for m in ms])
    store.ingest()
    with duckdb.connect(str(database.file(store.root))) as con:
        con.execute(mess)
        if mess not in LACKING and "esr_schema" not in mess and "esr_ingested" not in mess:
            con.execute("update esr_schema set version = '1:old'")
    for _ in range(2):
        assert one(store, "select n_graded from summary") == {"n_graded": 2}
        assert store.ingest().deferred is None
    with duckdb.connect(str(database.file(store.root)), read_only=True) as con:
        assert con.sql("select n_graded from summary").fetchall() == [(2,)]


def test_doctor_counts_what_does_not_count_and_compares_the_database_with_the_shards(store, monkeypatch, capsys):
    monkeypatch.setenv("ESR_STORE", str(store.root))
    ms = [member(i) for i in range(6)]
    store.put_members(ms)
    store.put_replies([reply(m) for m in ms])
    store.put_grades([grade(m, 10, 20) for m in ms])
    store.put_grades([grade(ms[0], missing="unreachable")])
    store.put_run({"experiment": "exp01", "manifest": {"a": [1, 2]}})
    store.ingest()
    assert store.audit() == Audit({})
    forged(store, "forged", BAD["ids are NULL"])
    assert list(store.audit().left_alone) == ["replies/forged.parquet"]
    with duckdb.connect(str(database.file(store.root))) as con:
        con.execute(f"delete from replies where trial_id in ('{ms[0].trial.id}', '{ms[1].trial.id}')")
        con.execute(f"update grades set cost = 1.5 where trial_id = '{ms[2].trial.id}'")
        con.execute("insert into trials (trial_id, model, prompt) values ('mine', 'm', 'p')")
    found = store.audit()
    assert (found.lost, found.changed) == ({"replies": 2}, {"grades": 1, "trials": 1})
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "shards/replies/forged.parquet does not hold" in told or "shards/replies/forged.parquet has rows without" in told
    assert (
        "esr.duckdb lacks rows that the shards hold (2 of replies) and holds rows that no shard holds (1 of grades, 1 of trials)"
        in told
    )
    database.file(store.root).unlink()
    store.ingest()
    assert (store.audit().lost, store.audit().changed) == ({}, {})
