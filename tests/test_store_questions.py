"""A question sees every view that it names or lists, though most are answered without making any."""

from pathlib import Path

import pytest
from store_rows import member

from esr.errors import StoreError
from esr.store import Store, query, schema


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "store")
    found.put_members([member(0)])
    return found


@pytest.mark.parametrize(
    "question",
    [
        "select view_name as name from duckdb_views() where not internal",
        "show tables",
        "select table_name as name from information_schema.tables",
    ],
)
def test_what_there_is_to_ask_is_all_listed(store: Store, question: str) -> None:
    every = {item.name for item in schema.described() if item.kind == "view"}
    assert every <= set(store.sql(question)["name"].to_pylist())


@pytest.mark.parametrize("named", ["SUMMARY", '"summary"', "main.summary", "query_table('sum' || 'mary')"])
def test_a_view_is_found_however_it_is_named(store: Store, named: str) -> None:
    assert store.sql(f"select n_planned from {named}")["n_planned"].to_pylist() == [1]


def test_what_is_not_there_is_told_with_the_nearest_view(store: Store) -> None:
    with pytest.raises(StoreError, match=r"Did you mean.*summary"):
        store.sql("from replies, sumary")


def test_tables_alone_are_asked_without_making_views(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    build = query._build
    monkeypatch.setattr(query, "_build", lambda con, root, attached, views: made.append(views) or build(con, root, attached, views))
    assert store.sql("select count(*) as n from trials")["n"].to_pylist() == [1]
    assert store.sql("from summary").num_rows == 1
    assert made == [False, True]
