"""A store written with schema version 2, by a study of experiments 1 and 2, is read as today's: nothing of it is lost or counted otherwise.

tests/data/store-version-2.zip holds its shards, its DuckDB file, and what its own views said (expected.json).
"""

import json
import zipfile
from pathlib import Path

import duckdb
import pytest

from esr.store import Store, database, schema, shards

PACKED = Path(__file__).parent / "data" / "store-version-2.zip"


@pytest.fixture(params=["with its database", "shards alone"])
def old(request, tmp_path):
    with zipfile.ZipFile(PACKED) as packed:
        packed.extractall(tmp_path)
    expected = json.loads((tmp_path / "expected.json").read_text())
    if request.param == "shards alone":
        (tmp_path / "esr.duckdb").unlink()
    return Store(tmp_path), expected


def test_it_is_counted_as_it_was(old):
    store, expected = old
    before = {path: path.read_bytes() for path in (store.root / "shards").rglob("*.parquet")}
    assert {shards.inspect(path.parent.name, path).version for path in before} == {2}
    columns = ", ".join(expected["columns"])
    for _ in range(2):
        assert [list(r.values()) for r in store.sql(f"select {columns} from outcomes order by all").to_pylist()] == expected[
            "outcomes"
        ]
        names = ", ".join(expected["summary"][0])
        for row, was in zip(store.sql(f"select {names} from summary order by all").to_pylist(), expected["summary"], strict=True):
            assert row == {k: pytest.approx(v, rel=1e-12) if isinstance(v, float) else v for k, v in was.items()}
        for table, n in expected["rows"].items():
            assert store.sql(f"select count(*) as n from {table}")["n"].to_pylist() == [n], table
        assert store.rebuild().deferred is None
    assert {path: path.read_bytes() for path in before} == before, "the shards stay as they were written"
    with duckdb.connect(str(database.file(store.root)), read_only=True) as con:
        assert con.sql("select version from esr_schema").fetchone()[0].startswith(f"{schema.VERSION}:")


def test_what_it_did_not_record_is_null_and_its_arms_are_told_from_their_names(old):
    store, _ = old
    assert store.sql("select count(meaning) as n from trials")["n"].to_pylist() == [0]
    assert store.sql("select count(shown) as n from grades")["n"].to_pylist() == [0]
    assert store.sql("select count(judge) + count(name) + count(hidden) + count(recorded_at) as n from runs")["n"].to_pylist() == [
        0
    ]
    rows = store.sql(
        "select arm, kind, level, place, against, mean, recorded from current_arms order by experiment, place"
    ).to_pylist()
    absolute = ["45.4316", "83.226", "121.021", "158.815", "196.609"]
    relative = ["0", "0.5", "1", "2"]
    wanted = [
        ("baseline", "baseline", None, 0, None, None, False),
        *((f"absolute-{x}", "absolute", float(x), i, None, None, False) for i, x in enumerate(absolute)),
        *((f"relative-{x}", "relative", float(x), i, None, None, False) for i, x in enumerate(relative, len(absolute))),
    ]
    assert [tuple(row.values()) for row in rows] == wanted


def test_what_is_written_now_stands_beside_it(old):
    store, expected = old
    plan = store.sql("from members where arm = 'baseline'").to_pylist()
    ids = [row["trial_id"] for row in plan]
    assert store.known("replies", ids) == set(ids), "nothing of it is computed again"
    store.put("arms", [{"experiment": "exp01", "model": "tiny", "arm": "baseline", "scale": "smoke", "kind": "baseline", "place": 7,
                        "recorded_at": "2026-12-01T00:00:00Z"}])  # fmt: skip
    row = store.sql("select place, recorded from current_arms where arm = 'baseline'").to_pylist()
    assert row == [{"place": 7, "recorded": True}]
    again = store.sql("from grades").to_pylist()[:4]
    store.put("grades", [row | {"shown": "now", "graded_at": "2026-12-01T00:00:00Z"} for row in again])
    assert store.sql("select count(*) as n from grades where shown = 'now'")["n"].to_pylist() == [4]
    assert store.sql("select count(*) as n from grades")["n"].to_pylist() == [expected["rows"]["grades"]]
